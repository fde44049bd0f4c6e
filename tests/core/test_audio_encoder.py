"""wav2vec 2.0 in every public form hears as transformers' own network; what is none is refused with its numbers."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tbd_core import conditioning, pipeline
from tbd_core.checkpoint.audio_encoder import check_encoder, read_encoder
from tbd_core.config import AudioProjectionConfig, GenerateOptions, sd15
from tbd_core.errors import InputError
from tbd_core.parts import PartStore


BASE = dict(feat_extract_norm="group", conv_bias=False, do_stable_layer_norm=False)
LARGE = dict(feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)


def network(**changed):
    """wav2vec2-base-960h in small: with the head that writes letters, one head of attention for each 64."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    values = dict(hidden_size=128, num_attention_heads=2, intermediate_size=96, num_hidden_layers=2, vocab_size=9)
    values |= dict(conv_dim=[16] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4) | BASE
    return Wav2Vec2ForCTC(Wav2Vec2Config(**values | changed))


@pytest.fixture(scope="module")
def base(fill):
    return fill(network(), 1)


@pytest.fixture(scope="module")
def large(fill):
    return fill(network(**LARGE), 2)


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "wav2vec2-base"
    base.save_pretrained(folder)
    return folder


def stored(path, tensors):
    torch.save(tensors, path) if path.suffix != ".safetensors" else save_file(dict(tensors), path)
    return path


def refused(path, message):
    with pytest.raises(InputError, match=message) as caught:
        check_encoder(path)
    assert "\n" not in str(caught.value)


def hears_like(encoder, own):
    sound = torch.randn(1, 6400, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, other = (conditioning.audio_features(each, sound, 10) for each in (encoder, own.eval()))
    return torch.equal(one, other)


def test_a_transformers_folder_hears_as_its_network(folder, base, large):
    assert hears_like(read_encoder(folder, torch.float32), base.wav2vec2)
    assert not hears_like(read_encoder(folder, torch.float32), large.wav2vec2)


@pytest.mark.parametrize("name", ["a.safetensors", "pytorch_model.bin", "a.pth"])
@pytest.mark.parametrize("form", ["wav2vec2.", "bare", "weight_g"])
@pytest.mark.parametrize("size", ["base", "large"])
def test_one_file_in_any_form_hears_as_its_network(request, tmp_path, size, form, name):
    own = request.getfixturevalue(size)
    tensors = own.wav2vec2.state_dict() if form == "bare" else own.state_dict()
    if form == "weight_g":
        old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
        for new, before in old.items():
            tensors = {key.replace(new, before): value for key, value in tensors.items()}
    assert hears_like(read_encoder(stored(tmp_path / name, tensors), torch.float32), own.wav2vec2)


def test_base_and_large_are_told_by_their_shapes(tmp_path):
    """At full width, by the header alone."""
    for layers, width, heads, kind in ((12, 768, 12, BASE), (24, 1024, 16, LARGE)):
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        values = dict(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width
        )
        with torch.device("meta"):
            shapes = {k: v.shape for k, v in Wav2Vec2Model(Wav2Vec2Config(**values, **kind)).state_dict().items()}
        found = check_encoder(only_header(tmp_path / f"{width}.safetensors", shapes)).config
        assert {key: found[key] for key in (values | kind)} == values | kind
        assert found["conv_dim"] == [512] * 7 and found["conv_kernel"] == [10, 3, 3, 3, 3, 2, 2]


def only_header(path, shapes):
    """A sparse .safetensors of these shapes, fp16, all zeros."""
    header, end = {}, 0
    for key, shape in shapes.items():
        size = 2 * int(np.prod(shape, dtype=np.int64))
        header[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def test_what_shapes_do_not_tell_config_json_does(fill, tmp_path):
    own = fill(network(num_attention_heads=4, hidden_act="relu", layer_norm_eps=1e-3), 4)
    own.save_pretrained(tmp_path / "odd")
    assert hears_like(read_encoder(tmp_path / "odd", torch.float32), own.wav2vec2)
    alone = stored(tmp_path / "alone.safetensors", load_file(tmp_path / "odd" / "model.safetensors"))
    assert not hears_like(read_encoder(alone, torch.float32), own.wav2vec2)


def test_odd_sizes_want_their_folder(tmp_path):
    own = network(hidden_size=24, num_attention_heads=3)
    alone = stored(tmp_path / "a.safetensors", own.wav2vec2.state_dict())
    refused(alone, "is 24 wide and has 7 convolutions; without config.json only multiples of 64 and 7 can be read")
    own.save_pretrained(tmp_path / "odd")
    assert check_encoder(tmp_path / "odd").config["num_attention_heads"] == 3


def test_another_size_is_refused_with_both(tmp_path):
    with torch.device("meta"):
        big = network(hidden_size=1024, num_attention_heads=16, num_hidden_layers=24, **LARGE).state_dict()
    found = check_encoder(only_header(tmp_path / "large.safetensors", {k: v.shape for k, v in big.items()}))
    told = r"large\.safetensors has 24 layers of 1024 numbers, this model wants 12 of 768; give a wav2vec 2\.0 of that"
    with pytest.raises(InputError, match=told):
        found.check_fits(sd15().audio_projection)
    found.check_fits(AudioProjectionConfig(layers=24, channels=1024))


def test_weights_that_are_no_numbers_are_counted(base, tmp_path):
    tensors = {key: value.clone() for key, value in base.state_dict().items()}
    tensors["wav2vec2.feature_projection.projection.bias"][:5] = float("nan")
    path = stored(tmp_path / "nan.safetensors", tensors)
    check_encoder(path)
    with pytest.raises(InputError, match=r"projection\.bias has 5 of 128 values that are NaN or infinite"):
        read_encoder(path, torch.float32)


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin"])
def test_a_cut_file_is_refused(base, tmp_path, name):
    path = stored(tmp_path / name, base.state_dict())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, r"has \d+ bytes but its header promises \d+|ends too early \(\d+ bytes")


def test_a_pickle_with_code_is_never_run(tmp_path):
    class Run:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"feature_extractor": Run()}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", r"holds code or objects \(\w+.*\), which are never run")
    (tmp_path / "b.bin").write_bytes(pickle.dumps(Run()))
    refused(tmp_path / "b.bin", "holds code or objects|is no sound PyTorch file")
    assert not (tmp_path / "ran").exists()


def test_another_networks_file_is_named(tmp_path):
    from transformers import HubertConfig, HubertModel, WhisperConfig, WhisperModel

    sizes = dict(encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, d_model=16)
    whisper = WhisperModel(WhisperConfig(**sizes, vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=2))
    path = stored(tmp_path / "w.bin", whisper.state_dict())
    refused(path, r"w\.bin is a Whisper: \d+ keys, feature_extractor\.conv_layers\.0\.conv\.weight is not among them")
    hubert = HubertModel(HubertConfig(hidden_size=64, num_attention_heads=1, num_hidden_layers=1, intermediate_size=8))
    hubert.save_pretrained(tmp_path / "hubert")
    refused(tmp_path / "hubert", r"hubert is a hubert by its config\.json: \d+ keys, .* is, but of another network")
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", "is of no known kind: 1 keys, feature_extractor")


def test_a_file_that_lacks_or_adds_layers_is_refused(base, tmp_path):
    tensors = base.state_dict()
    path = tmp_path / "a.safetensors"
    cut = {k: v for k, v in tensors.items() if ".layers.0.attention.k_proj" not in k}
    refused(stored(path, cut), r"of the 50 keys of a wav2vec 2\.0 it lacks 2 \(first wav2vec2\.encoder\.layers\.0\.att")
    more = tensors | {"wav2vec2.encoder.layers.1.adapter_layer.norm.weight": torch.ones(2)}
    refused(stored(path, more), r"it has 1 that fit nothing known \(first wav2vec2\.encoder\.layers\.1\.adapter_layer")
    wide = tensors | {"wav2vec2.encoder.layers.1.layer_norm.weight": torch.ones(2)}
    refused(stored(path, wide), r"it has 1 of another shape \(first .*layer_norm\.weight \[2\], must be \[128\]\)")
    bare = {k: v for k, v in tensors.items() if "pos_conv_embed" not in k}
    refused(stored(path, bare), "has 7 convolutions and 2 layers of a wav2vec 2.0, but not the weights between them")


def test_a_config_json_of_other_weights_is_refused(base, tmp_path):
    def told(**changed):
        base.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | changed))
        return tmp_path

    refused(told(num_hidden_layers=12), "its config.json says num_hidden_layers 12, its weights have 2")
    refused(told(num_attention_heads=5), r"describes no network that can be built \(.*num_heads.*\)")
    refused(told(hidden_act="none such"), r"describes no network that can be built")
    refused(told(conv_stride=[5, 2]), r"describes no network that can be built \(.*conv.*\)")
    refused(told(layer_norm_eps="x"), r"describes no network that can be built \(.*layer_norm_eps.*\)")


def test_what_is_not_there_is_refused(tmp_path):
    refused(tmp_path / "none", r"none does not exist; give a wav2vec 2\.0, base or large: a transformers folder")
    refused(tmp_path, "is a folder without weights")
    (tmp_path / "a.txt").write_text("no weights")
    refused(tmp_path / "a.txt", "a.txt ends in '.txt'; give a .safetensors")


# In a run.


@pytest.fixture(scope="module")
def fitting(fill, tmp_path_factory):
    """Of the small bundle's size, which wants 2 layers of 16."""
    folder = tmp_path_factory.mktemp("encoders") / "own-encoder"
    fill(network(hidden_size=16, intermediate_size=8), 8).save_pretrained(folder)
    return folder


@pytest.fixture
def options(small_bundle, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    soundfile.write(tmp_path / "s.wav", 0.3 * np.sin(np.arange(8_000) / 20), 16_000)
    return GenerateOptions(
        portrait=tmp_path / "p.png", speech=tmp_path / "s.wav", output=tmp_path / "t.mp4", emotion="happy",
        model=small_bundle, dtype="fp32", device="cpu",
    )  # fmt: skip


def test_another_encoder_is_heard_with_and_another_key(options, fitting, small_bundle):
    own, other = pipeline.plan(options), pipeline.plan(replace(options, audio_encoder=fitting))
    features = pipeline.prepare(other)[1]
    sound = pipeline.normalise(other.speech.waveform)
    expected = conditioning.speech_features(read_encoder(fitting, torch.float32), sound, 14, chunk=None)
    assert torch.equal(features, expected) and not torch.allclose(features, pipeline.prepare(own)[1])
    keys = [pipeline.part_key(each) for each in (own, other)]
    assert "audio_encoder" not in keys[0] and keys[1]["audio_encoder"][0][0] == "model.safetensors"
    with PartStore(options.output, keys[0]) as one, PartStore(options.output, keys[1]) as two:
        assert one.folder != two.folder
    assert pipeline.metadata(other)["audio_encoder"] == "own-encoder"


def test_an_encoder_that_does_not_fit_is_refused_before_anything_is_loaded(options, folder):
    with pytest.raises(InputError, match=r"has 2 layers of 128 numbers, this model wants 2 of 16; give a wav2vec"):
        pipeline.plan(replace(options, audio_encoder=folder))
    assert not options.output.exists()
