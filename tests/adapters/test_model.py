"""Load TBD Model and its sample inputs: what is offered, what is loaded, what is said of files that cannot be."""

import os
import sys

import pytest
import torch


@pytest.fixture
def loader(pack):
    from tbd_pack.nodes.model import TBDModelLoader

    return TBDModelLoader


@pytest.fixture
def bridge(pack):
    from tbd_pack.nodes import comfy_bridge

    return comfy_bridge


@pytest.fixture
def load(shelf, loader, run):
    """`load(beta_schedule)`: the small bundle by its name."""
    return lambda asked: run(loader, model="small.safetensors", dtype="fp32", beta_schedule=asked)


@pytest.fixture
def shelf(folders, small_bundle):
    """models/tbd with one bundle and a file that is none."""
    (folders / "models" / "tbd" / "small.safetensors").symlink_to(small_bundle)
    (folders / "models" / "tbd" / "notes.txt").write_text("no bundle")
    return folders / "models" / "tbd"


def test_the_bundled_model_comes_first_then_the_folder(shelf, loader, bridge):
    model = next(one for one in loader.GET_SCHEMA().inputs if one.id == "model")
    assert model.options == [bridge.BUNDLED, "small.safetensors"] and model.default == bridge.BUNDLED
    assert loader.validate_inputs(bridge.BUNDLED) is loader.validate_inputs("small.safetensors") is True


def test_a_file_that_is_gone_is_named_with_its_folder(shelf, loader, run, bridge):
    expected = "gone.safetensors is not in models/tbd; put it there or choose tbd_tiny (bundled)"
    assert loader.validate_inputs("gone.safetensors") == loader.fingerprint_inputs("gone.safetensors") == expected
    with pytest.raises(ValueError) as caught:
        run(loader, model="gone.safetensors", dtype="auto", beta_schedule=bridge.FROM_BUNDLE)
    assert str(caught.value) == expected


def test_the_packs_own_file_when_gone_asks_for_the_pack_again(shelf, loader, bridge, monkeypatch, tmp_path):
    monkeypatch.setattr(bridge, "TINY_BUNDLE", tmp_path / "tiny.safetensors")
    expected = f"{tmp_path / 'tiny.safetensors'} is missing, which comes with this pack; install the pack again"
    assert loader.validate_inputs(bridge.BUNDLED) == loader.fingerprint_inputs(bridge.BUNDLED) == expected


def test_a_name_that_is_linked_is_not_known_yet(shelf, loader):
    """ComfyUI hands None where a widget was turned into an input; each answer is the same every time."""
    assert loader.validate_inputs(None) is True
    assert loader.fingerprint_inputs(None, dtype="auto", beta_schedule=None) == ""


def test_another_file_of_the_same_name_is_loaded_anew(shelf, loader):
    before = loader.fingerprint_inputs("small.safetensors", dtype="auto", beta_schedule="linear")
    assert loader.fingerprint_inputs("small.safetensors") == before
    os.utime(shelf / "small.safetensors", ns=(1, 1))
    assert loader.fingerprint_inputs("small.safetensors") != before


def test_a_bundle_becomes_model_clip_vae_and_audio_encoder(shelf, load, bridge, small_config):
    model, clip, vae, encoder = load(bridge.FROM_BUNDLE).args
    assert bridge.tbd_parts(model.clone()) is bridge.tbd_parts(model)  # LoRA loaders hand it on
    assert model.get_model_object("latent_format").scale_factor == small_config.vae["scaling_factor"]
    assert clip.encode_from_tokens(clip.tokenize("a smile")).shape == (1, 77, 16)
    assert vae.encode(torch.zeros(1, 64, 64, 3)).shape == (1, 4, 8, 8)
    assert encoder.patcher.model.encoder.config.hidden_size == 16 and encoder.bundle == shelf / "small.safetensors"
    weights = [model.model, clip.cond_stage_model, vae.first_stage_model, encoder.patcher.model]
    tensors = [tensor for module in weights for tensor in module.state_dict().values()]
    assert not any(tensor.is_meta or tensor.is_inference() or tensor.requires_grad for tensor in tensors)


def test_the_sigmas_are_the_bundles_own_or_those_of_the_schedule_asked_for(load, bridge, small_config):
    from dataclasses import replace

    from tbd_core.denoise import sigmas

    for asked in (bridge.FROM_BUNDLE, "linear"):
        model = load(asked).args[0]
        config = (
            small_config.scheduler
            if asked == bridge.FROM_BUNDLE
            else replace(small_config.scheduler, beta_schedule=asked)
        )
        assert torch.equal(model.get_model_object("model_sampling").sigmas, sigmas(config))


def test_fp16_is_refused_on_a_cpu(shelf, loader, run, bridge):
    with pytest.raises(ValueError, match="fp16 needs a GPU, and ComfyUI computes on the CPU here; choose auto, fp32"):
        run(loader, model="small.safetensors", dtype="fp16", beta_schedule=bridge.FROM_BUNDLE)


def test_a_missing_package_is_said_when_the_node_runs(shelf, loader, run, bridge, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.delitem(sys.modules, "tbd_pack.tbd_core.models.autoencoder", raising=False)
    with pytest.raises(
        ValueError, match=r'1 package is missing \(diffusers\); run `".*" -m pip install -r ".*requirements'
    ):
        run(loader, model="small.safetensors", dtype="fp32", beta_schedule=bridge.FROM_BUNDLE)


def test_previews_come_closer_to_the_portrait_than_any_one_colour(load, bridge):
    """The colours are fitted to the sample portrait; with other factors this random autoencoder shows anything."""
    import latent_preview

    from tbd_pack.tbd_core.host import sample_inputs

    model, _, vae, _ = load(bridge.FROM_BUNDLE).args
    with torch.inference_mode():
        reference, shown = bridge.see_portrait(model, vae, sample_inputs()[0], (64, 64))
    previewer = latent_preview.get_previewer(torch.device("cpu"), model.get_model_object("latent_format"))
    _, picture, _ = previewer.decode_latent_to_preview_image("JPEG", reference.latents)
    wanted = torch.nn.functional.avg_pool2d(shown.movedim(-1, 1), 8)[0].movedim(0, -1)
    preview = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(8, 8, 3) / 255
    one_colour = (wanted - wanted.mean((0, 1))).square().mean()
    assert (preview - wanted).square().mean() < 0.9 * one_colour


def test_with_sd15s_latents_previews_are_sd15s(bridge, load, small_config):
    from types import SimpleNamespace

    config = SimpleNamespace(scaling_factor=0.18215)
    vae = SimpleNamespace(first_stage_model=SimpleNamespace(vae=SimpleNamespace(config=config)))
    latents = bridge._latent_format(small_config, vae)
    expected = bridge.comfy.latent_formats.SD15()
    assert latents.latent_rgb_factors == expected.latent_rgb_factors and latents.latent_rgb_factors_bias is None


def test_exact_weights_hear_exactly_also_on_a_gpu(bridge, small_bundle, monkeypatch):
    """ComfyUI would take fp16 for the audio encoder."""
    monkeypatch.setattr(bridge.mm, "should_use_fp16", lambda *_: True)
    monkeypatch.setattr(bridge.mm, "is_device_cpu", lambda device: False)
    for asked, expected in (("fp32", torch.float32), ("bf16", torch.float16)):
        with torch.inference_mode():
            encoder = bridge.load_bundle(small_bundle, asked)[3]
        assert next(encoder.patcher.model.parameters()).dtype == expected


def test_the_sample_inputs_are_ready_to_be_encoded(pack, run):
    from tbd_pack.nodes.model import TBDSampleInputs

    image, audio = run(TBDSampleInputs).args
    assert image.shape[0] == 1 and image.shape[3] == 3 and image.dtype == torch.float32
    assert audio["waveform"].shape[:2] == (1, 1) and audio["sample_rate"] == 16_000
