"""Load Audio Encoder (TBD), what its encoder hears, and the two treatments of the speech."""

import os

import pytest
import torch


@pytest.fixture
def shelf(folders, fill):
    """models/audio_encoders with a wav2vec 2.0 of 2 layers of 64 in a folder, another network's file and no weights."""
    from safetensors.torch import save_file
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    sizes = dict(hidden_size=64, num_attention_heads=1, intermediate_size=32, num_hidden_layers=2, conv_dim=[8] * 7)
    network = fill(
        Wav2Vec2Model(Wav2Vec2Config(**sizes, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4)), 6
    )
    shelf = folders / "models" / "audio_encoders"
    (shelf / "wav2vec2").mkdir()
    save_file(network.state_dict(), shelf / "wav2vec2" / "model.safetensors")
    save_file({"encoder.embed_positions.weight": torch.zeros(2)}, shelf / "whisper.safetensors")
    (shelf / "notes.txt").write_text("none")
    return shelf


@pytest.fixture
def loader(pack):
    from tbd_pack.nodes.model import TBDAudioEncoderLoader

    return TBDAudioEncoderLoader


@pytest.fixture
def hear(run, pack):
    from tbd_pack.nodes.encoding import TBDAudioEncode

    return lambda encoder, audio, **more: run(TBDAudioEncode, audio_encoder=encoder, audio=audio, **more).args[0]


def test_the_folder_is_listed_and_its_encoder_hears(shelf, loader, run, hear, sound):
    listed = next(one for one in loader.GET_SCHEMA().inputs if one.id == "audio_encoder_name")
    name = os.path.join("wav2vec2", "model.safetensors")
    assert listed.options == [name, "whisper.safetensors"] and loader.validate_inputs(name) is True
    encoder = run(loader, audio_encoder_name=name, dtype="auto").args[0]
    assert encoder.bundle is None and encoder.chunk is None
    heard = hear(encoder, sound(0.8))
    assert heard.features.shape == (28, 2, 64) and heard.bundle is None


def test_a_folder_as_transformers_stores_it_is_one_choice(shelf, loader, run, hear, sound):
    (shelf / "wav2vec2" / "config.json").write_text('{"model_type": "wav2vec2", "num_attention_heads": 2}')
    (shelf / "empty").mkdir()
    listed = next(one for one in loader.GET_SCHEMA().inputs if one.id == "audio_encoder_name")
    assert listed.options == ["wav2vec2", os.path.join("wav2vec2", "model.safetensors"), "whisper.safetensors"]
    assert loader.validate_inputs("wav2vec2") is True and "is not among the 3 files" in loader.validate_inputs("empty")
    encoder = run(loader, audio_encoder_name="wav2vec2", dtype="auto").args[0]
    assert encoder.patcher.model.encoder.config.num_attention_heads == 2, "what config.json tells is heard"
    assert hear(encoder, sound(0.8)).features.shape == (28, 2, 64)
    before = loader.fingerprint_inputs("wav2vec2", dtype="auto")
    assert before == loader.fingerprint_inputs("wav2vec2", dtype="auto")
    os.utime(shelf / "wav2vec2" / "model.safetensors", ns=(1, 1))
    assert loader.fingerprint_inputs("wav2vec2", dtype="auto") != before


def test_another_file_of_the_same_name_is_loaded_anew(shelf, loader):
    before = loader.fingerprint_inputs("whisper.safetensors", dtype="auto")
    assert before == loader.fingerprint_inputs("whisper.safetensors", dtype="auto")
    os.utime(shelf / "whisper.safetensors", ns=(1, 1))
    assert loader.fingerprint_inputs("whisper.safetensors") != before
    assert loader.validate_inputs(None) is True and loader.fingerprint_inputs(None) == ""


def test_files_that_are_gone_or_another_networks_are_refused(shelf, loader, run):
    expected = "'gone.pth' is not among the 2 files and folders in models/audio_encoders; put a wav2vec 2.0 there"
    assert loader.validate_inputs("gone.pth") == loader.fingerprint_inputs("gone.pth") == expected
    with pytest.raises(ValueError, match=expected):
        run(loader, audio_encoder_name="gone.pth", dtype="auto")
    told = (
        r"whisper\.safetensors is a Whisper: 1 keys, feature_extractor\.conv_layers\.0\.conv\.weight is not among them"
    )
    with pytest.raises(ValueError, match=told):
        run(loader, audio_encoder_name="whisper.safetensors", dtype="auto")


def test_an_encoder_of_another_size_is_refused_when_drawn_and_one_of_no_bundle_is_no_mixture(
    shelf, loader, run, hear, sound, wires
):
    from tbd_pack.nodes import comfy_bridge
    from tbd_pack.nodes.drawing import TBDSampler, describe_run
    from tbd_pack.tbd_core.guide import DrawOptions

    encoder = comfy_bridge.load_audio_encoder(shelf / "wav2vec2" / "model.safetensors")
    heard = hear(encoder, sound(0.8))
    with pytest.raises(
        ValueError, match="the sound has 2 layers of 64 numbers, this model wants 2 of 16; use the audio"
    ):
        run(TBDSampler, **(wires | {"audio": heard}))
    assert "encoded by" not in describe_run(wires["model"], wires["reference"], heard, DrawOptions())


def test_another_encoder_and_each_treatment_has_another_digest(shelf, bundle, hear, sound, pack):
    from tbd_pack.nodes import comfy_bridge

    encoder = comfy_bridge.load_audio_encoder(shelf / "wav2vec2" / "model.safetensors")
    audio = sound(6.0)
    audio["waveform"][..., 40_000:70_000] *= 0.01
    audio["waveform"][..., 70_000:] *= 0.3
    plain = hear(bundle.audio_encoder, audio)
    assert plain.digest == hear(bundle.audio_encoder, audio, level_loudness=False, silence_gate=0.0).digest
    others = [
        hear(encoder, audio),
        hear(bundle.audio_encoder, audio, level_loudness=True),
        hear(bundle.audio_encoder, audio, silence_gate=30.0),
    ]
    assert len({plain.digest, *(other.digest for other in others)}) == 4
    for other in others:  # the sound track stays the recording
        assert torch.equal(other.speech.waveform, plain.speech.waveform)


def test_a_gate_without_sense_is_refused(bundle, hear, sound):
    with pytest.raises(ValueError, match="the silence gate is 5 dB below the speech; give a number from 10 to 60"):
        hear(bundle.audio_encoder, sound(0.8), silence_gate=5.0)


def test_music_is_warned_of_in_what_is_told_of_the_run(bundle, hear, wires):
    from tbd_pack.nodes.drawing import describe_run
    from tbd_pack.tbd_core.guide import DrawOptions

    time = torch.arange(4 * 16_000) / 16_000
    chord = sum(torch.sin(2 * torch.pi * note * time) for note in (262.0, 330.0, 392.0)) / 10
    heard = hear(bundle.audio_encoder, {"waveform": chord[None, None], "sample_rate": 16_000})
    told = describe_run(wires["model"], wires["reference"], heard, DrawOptions())
    assert "the recording sounds like music or a tone" in told
