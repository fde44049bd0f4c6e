"""The two encoders: what they make of portrait and speech, and what they say of those they cannot use."""

import logging
import re
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def look(bundle, run, pack):
    from tbd_pack.nodes.encoding import TBDReferenceEncode

    usual = dict(model=bundle.model, vae=bundle.vae, width=64, height=64, box="")
    return lambda image, **changed: run(TBDReferenceEncode, image=image, **(usual | changed)).args


@pytest.fixture
def hear(bundle, run, pack):
    from tbd_pack.nodes.encoding import TBDAudioEncode

    return lambda audio: run(TBDAudioEncode, audio_encoder=bundle.audio_encoder, audio=audio).args[0]


def test_the_speech_fills_whole_clips_and_keeps_its_own_length(hear, sound):
    heard = hear(sound(0.8))
    assert heard.features.shape == (28, 2, 16) and heard.speech.num_frames == 20
    assert heard.digest == hear(sound(0.8)).digest != hear(sound(0.6)).digest
    assert heard.bundle.name == "small.safetensors"


def test_the_frames_are_counted_at_the_files_own_rate(hear):
    audio = {"waveform": torch.rand(1, 2, 44_100), "sample_rate": 44_100}
    assert hear(audio).speech.num_frames == 25


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (None, r"there is no sound \(0 samples\), as in a video without a track; connect Load Audio"),
        ({"waveform": torch.zeros(2, 1, 16_000), "sample_rate": 16_000}, "got a batch of 2 recordings"),
        ({"waveform": torch.zeros(1, 1, 1600), "sample_rate": 16_000}, r"has 0\.10 s of audio; at least 0\.2 s"),
    ],
)
def test_sound_that_cannot_be_spoken_is_refused(hear, audio, message):
    with pytest.raises(ValueError, match=message):
        hear(audio)


def test_a_cancel_ends_the_listening(hear, sound):
    import comfy.model_management as mm

    mm.interrupt_current_processing()
    with pytest.raises(mm.InterruptProcessingException):
        hear(sound(0.8))


def test_when_memory_runs_out_while_listening_or_looking_it_is_said_how_to_go_on(
    look, hear, face, sound, bundle, monkeypatch
):
    import comfy.model_management as mm

    def short_of_memory(*_, **__):
        raise mm.OOM_EXCEPTION("no memory")

    network = bundle.audio_encoder.patcher.model.encoder
    monkeypatch.setattr(type(network), "forward", short_of_memory)
    monkeypatch.setattr(type(network.feature_extractor), "forward", short_of_memory)
    monkeypatch.setattr(type(bundle.vae), "encode", short_of_memory)
    told = "listening to 0.8 s of speech ran out of memory; give a shorter recording, or fp16 in Load TBD Model"
    with pytest.raises(mm.OOM_EXCEPTION, match=told):  # of its kind: ComfyUI unloads all models then
        hear(sound(0.8))
    told = "looking at the portrait at 64 x 64 px ran out of memory; choose a smaller width and height"
    with pytest.raises(mm.OOM_EXCEPTION, match=told):
        look(face)


def test_the_portrait_is_cropped_encoded_and_looked_at(look, face, bundle):
    seen, cropped = look(face)
    assert cropped.shape == (1, 64, 64, 3) and seen.size == (64, 64)
    scale = bundle.model.get_model_object("latent_format").scale_factor
    assert torch.allclose(seen.latents, bundle.vae.encode(cropped) * scale, atol=1e-6)
    assert {name: feature.shape[0] for name, feature in seen.features.items()} == dict.fromkeys(seen.features, 1)
    assert len(seen.features) == 18 and seen.warnings == (
        "the portrait is 96 x 80 px; cropped to a square of 80 x 80 px",
    )
    assert seen.digest == look(face)[0].digest != look(face.flip(2))[0].digest


@pytest.mark.parametrize(
    ("asked", "size"), [((0, 0), (64, 64)), ((96, 0), (96, 96)), ((0, 72), (72, 72)), ((96, 64), (96, 64))]
)
def test_sides_left_out_are_the_bundles_or_the_others(look, face, asked, size):
    seen, cropped = look(face, width=asked[0], height=asked[1])
    assert seen.size == size == (cropped.shape[2], cropped.shape[1])


def test_the_face_moves_the_crop(look, face):
    left = look(face, box="0,20,20,20")[1]
    right = look(face, box="76,20,20,20")[1]
    mask = torch.zeros(1, 80, 96)
    mask[0, 20:40, 76:96] = 1
    assert not torch.equal(left, right)
    assert torch.equal(look(face, box="0,20,20,20", face=mask)[1], right)
    assert torch.equal(look(face, face=torch.zeros(1, 64, 64))[1], look(face)[1])


def test_portraits_and_marks_that_cannot_be_used_are_refused(look, face):
    with pytest.raises(ValueError, match="got a batch of 2 portraits; one is drawn at a time: use Batch Cases"):
        look(face.repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match="box is 'left'; give x,y,width,height"):
        look(face, box="left")
    with pytest.raises(ValueError, match="lies outside the picture of 96 x 80 px"):
        look(face, box="200,20,20,20")


def test_the_vae_of_another_model_is_refused_or_warned_of(look, face, bundle):
    def other(channels, ratio, **more):
        compression = {"spacial_compression_encode": lambda: ratio, "latent_channels": channels}
        return SimpleNamespace(**compression, encode=bundle.vae.encode, **more)

    with pytest.raises(ValueError, match="the VAE has 16 channels at 1/8 of the size, this model wants 4 at 1/8; use"):
        look(face, vae=other(16, 8))
    with pytest.raises(ValueError, match="the VAE has 4 channels at 1/4 of the size"):
        look(face, vae=other(4, 4))
    warned = look(face, vae=other(4, 8, bundle=SimpleNamespace(name="their.safetensors")))[0].warnings
    assert warned[0] == "the VAE is their.safetensors's, the MODEL small.safetensors's; colours may be wrong"
    stock = other(4, 8, first_stage_model=torch.nn.Identity())  # SD 1.5's, say, which knows of no bundle
    warned = look(face, vae=stock)[0].warnings
    assert warned[0] == "the VAE is of type Identity, the MODEL small.safetensors's; colours may be wrong"


def test_a_portrait_unlike_the_training_is_said(look, face, pack, monkeypatch, caplog, bundle):
    from tbd_pack.nodes import comfy_bridge

    told = {"name": "picky", "training": {"vae_psnr_least_db": 88.0, "portrait_distance_most": 1e9}}
    known = {"mean": torch.zeros(64), "precision": torch.zeros(64, 64)}
    monkeypatch.setattr(comfy_bridge.store, "read_about", lambda path: told)
    monkeypatch.setattr(comfy_bridge.store, "read", lambda path, prefix: known)
    with caplog.at_level(logging.WARNING):
        warnings = look(face)[0].warnings
    expected = r"the portrait looks unlike the drawn faces that picky .* keeps \d+\.\d dB of it, .* at least 88\.0 dB"
    assert re.match(expected, warnings[-1]) and warnings[-1] in caplog.messages
    # Of an autoencoder that is not ours nobody knows what it keeps.
    other = SimpleNamespace(latent_channels=4, spacial_compression_encode=lambda: 8, encode=bundle.vae.encode)
    assert not any("unlike" in line for line in look(face, vae=other)[0].warnings)


def test_another_packs_model_is_refused(look, face):
    from comfy.model_patcher import ModelPatcher

    with pytest.raises(ValueError, match="this MODEL is of type Identity, not Think-Before-Draw's"):
        look(face, model=ModelPatcher(torch.nn.Identity(), "cpu", "cpu"))


# Hallo's kinds.


@pytest.fixture(scope="module")
def hallo(pack, small_config, fill, tmp_path_factory):
    """(MODEL, VAE, encoder) of a small random bundle as hallo-text."""
    from tbd_core.checkpoint import store
    from tbd_core.config import replace
    from tbd_core.models.build import build
    from tbd_pack.nodes import comfy_bridge

    config = replace(small_config, unet=replace(small_config.unet, context="both", audio="hierarchical"))
    networks = build(config)
    for seed, (_, module) in enumerate(networks.items()):
        fill(module, seed)
    path = tmp_path_factory.mktemp("hallo") / "hallo.safetensors"
    store.save(path, networks, config, {"name": "hallo"}, torch.float16)
    model, _, vae, encoder = comfy_bridge.load_bundle(path, "fp32")
    return SimpleNamespace(model=model, vae=vae, encoder=encoder)


@pytest.fixture
def look_at(look, hallo):
    return lambda image, **changed: look(image, model=hallo.model, vae=hallo.vae, **changed)[0]


def test_hallos_weights_are_told_where_the_face_is_and_whose(look_at, face, folders):
    import numpy as np

    np.save(folders / "input" / "who.npy", np.random.default_rng(0).normal(size=512))
    nobody = look_at(face)
    assert torch.equal(nobody.face.tokens, nobody.face.nobody) and len(nobody.face.masks.lip) == 4
    assert (
        "over the middle 60% of the picture" in nobody.warnings[1]
        and "no face embedding was given" in nobody.warnings[2]
    )
    somebody = look_at(face, face_embedding="who.npy")
    assert not torch.equal(somebody.face.tokens, somebody.face.nobody) and len(somebody.warnings) == 2
    assert not torch.equal(somebody.features["mid_block.attentions.0"], nobody.features["mid_block.attentions.0"])
    moved = look_at(face, box="8,8,30,30")
    assert not torch.equal(moved.face.masks.lip[0], nobody.face.masks.lip[0])
    weaker = look_at(face, text_strength=0.25)
    assert weaker.face.text_strength == 0.25
    assert len({one.digest for one in (nobody, somebody, moved, weaker)}) == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"face_embedding": "nobody.npy"}, "'nobody.npy' is no file below ComfyUI's input folder; put it there"),
        ({"face_embedding": "../secret.npy"}, "'../secret.npy' is no file below ComfyUI's input folder"),
        (
            {"face_embedding": "who.ONNX"},
            "who.ONNX is a recognition model, not its 512 numbers; give an embedding of 512",
        ),
        ({"text_strength": 1.2}, "the text strength is 1.2; give a number from 0 to 1"),
    ],
)
def test_what_hallos_weights_cannot_be_told_is_refused(look_at, face, folders, changed, message):
    (folders / "secret.npy").write_bytes(b"")
    (folders / "input" / "who.ONNX").write_bytes(b"model")
    with pytest.raises(ValueError, match=message):
        look_at(face, **changed)


def test_a_portrait_seen_by_another_kind_of_model_is_refused(look, look_at, hear, hallo, face, sound):
    from tbd_pack.nodes import comfy_bridge

    with pytest.raises(
        ValueError, match="of Hallo's kind, which wants face tokens or masks, and the reference has none"
    ):
        comfy_bridge.guide_for(hallo.model, look(face)[0], hear(sound(0.3)), 0)


def test_a_plain_sampler_without_the_face_is_refused(hallo):
    network = hallo.model.model.diffusion_model
    with pytest.raises(ValueError, match=r"0 conditions of the face came .* use TBD Sampler, or Apply Conditions"):
        network(torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, 77, 16))
