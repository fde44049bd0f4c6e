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


def test_another_file_of_the_same_name_is_loaded_anew(shelf, loader):
    before = loader.fingerprint_inputs("small.safetensors", dtype="auto", beta_schedule="linear")
    assert loader.fingerprint_inputs("small.safetensors") == before
    os.utime(shelf / "small.safetensors", ns=(1, 1))
    assert loader.fingerprint_inputs("small.safetensors") != before


def test_a_bundle_becomes_model_clip_vae_and_ears(shelf, loader, run, bridge, small_config):
    model, clip, vae, ears = run(loader, model="small.safetensors", dtype="fp32", beta_schedule=bridge.FROM_BUNDLE).args
    assert bridge.tbd_parts(model.clone()) is bridge.tbd_parts(model)  # LoRA loaders hand it on
    assert model.get_model_object("latent_format").scale_factor == small_config.vae["scaling_factor"]
    assert clip.encode_from_tokens(clip.tokenize("a smile")).shape == (1, 77, 16)
    assert vae.encode(torch.zeros(1, 64, 64, 3)).shape == (1, 4, 8, 8)
    assert ears.patcher.model.encoder.config.hidden_size == 16
    weights = [model.model, clip.cond_stage_model, vae.first_stage_model, ears.patcher.model]
    tensors = [tensor for module in weights for tensor in module.state_dict().values()]
    assert not any(tensor.is_meta or tensor.is_inference() or tensor.requires_grad for tensor in tensors)


def test_the_sigmas_are_the_bundles_own_or_those_of_the_schedule_asked_for(shelf, loader, run, bridge, small_config):
    from dataclasses import replace

    from tbd_core.denoise import sigmas

    for asked in (bridge.FROM_BUNDLE, "linear"):
        model = run(loader, model="small.safetensors", dtype="fp32", beta_schedule=asked).args[0]
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
        ValueError, match=r"1 package is missing \(diffusers\); run `.*-m pip install -r .*requirements"
    ):
        run(loader, model="small.safetensors", dtype="fp32", beta_schedule=bridge.FROM_BUNDLE)


def test_previews_take_the_colours_of_the_header_or_fit_them(loader, run, bridge, shelf, small_bundle, small_config):
    from tbd_core.checkpoint import store

    fitted = run(loader, model="small.safetensors", dtype="fp32", beta_schedule=bridge.FROM_BUNDLE).args[0]
    assert torch.tensor(fitted.model.latent_format.latent_rgb_factors).shape == (4, 3)
    preview = {"factors": [[1.0, 2.0, 3.0]] * 4, "bias": [0.1, 0.2, 0.3]}
    networks, _ = store.load(small_bundle)
    store.save(shelf / "told.safetensors", networks, small_config, {"name": "told", "preview": preview}, torch.float16)
    told = run(loader, model="told.safetensors", dtype="fp32", beta_schedule=bridge.FROM_BUNDLE).args[0]
    format = told.model.latent_format
    assert {"factors": format.latent_rgb_factors, "bias": format.latent_rgb_factors_bias} == preview


def test_the_sample_inputs_are_ready_to_be_encoded(pack, run):
    from tbd_pack.nodes.model import TBDSampleInputs

    image, audio = run(TBDSampleInputs).args
    assert image.shape[0] == 1 and image.shape[3] == 3 and image.dtype == torch.float32
    assert audio["waveform"].shape[:2] == (1, 1) and audio["sample_rate"] == 16_000
