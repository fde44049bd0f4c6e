"""Render Video: the file, going on after a stop, and one name for one set of inputs."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tbd_core.video import probe, read_metadata


@pytest.fixture
def render(bundle, run, pack, wires, folders):
    from tbd_pack.nodes.rendering import TBDRenderVideo

    usual = wires | dict(vae=bundle.vae, filename_prefix="video/tbd")
    return lambda **changed: run(TBDRenderVideo, **(usual | changed))


@pytest.fixture
def short(bundle, pack, sound):
    """Speech of one clip, drawn in one pass: where two clips, each guided, prove nothing more."""
    from tbd_pack.nodes import comfy_bridge

    with torch.inference_mode():
        return dict(audio=comfy_bridge.listen(bundle.audio_encoder, sound(0.4)), steps=1, guidance=1.0)


@pytest.fixture
def passes(bundle, monkeypatch):
    """A list that grows with every pass of the denoiser."""
    network, seen = type(bundle.model.model.diffusion_model), []
    whole = network.forward
    monkeypatch.setattr(network, "forward", lambda *given, **named: seen.append(1) or whole(*given, **named))
    return seen


def file(output) -> Path:
    return Path(output.args[0].get_stream_source())


def test_the_video_lies_below_the_output_folder_with_its_sound(render, folders, sound):
    output = render(sound=sound(0.8, rate=22_050))
    path, shown = file(output), output.ui.as_dict()["images"][0]
    assert path.parent == folders / "output" / "video" and path.name.startswith("tbd_")
    assert shown == {"filename": path.name, "subfolder": "video", "type": "output"}
    facts = probe(path)
    assert (facts["width"], facts["height"], facts["fps"], facts["frames"]) == (64, 64, 25.0, 20)
    assert abs(facts["audio_seconds"] - 0.8) < 0.05
    assert output.args[1].splitlines()[-1] == str(path)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_queued_again_it_is_there_already(render, passes, short):
    first = file(render(**short))
    drawn = len(passes)
    assert drawn and file(render(**short)) == first and len(passes) == drawn


def test_a_stopped_run_goes_on_at_its_first_missing_clip(render, passes):
    import comfy.model_management as mm
    import comfy.utils

    whole = file(render())
    expected, each = whole.read_bytes(), len(passes) // 2
    whole.unlink()
    seen = []

    def cancel(value, total, preview, node_id):
        seen.append(value)
        if value == 3:  # in the second clip
            mm.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(cancel)
    with pytest.raises(mm.InterruptProcessingException):
        render()
    assert not whole.exists()
    comfy.utils.set_progress_bar_global_hook(lambda value, *_, **__: seen.append(value))
    seen.clear(), passes.clear()
    assert file(render()).read_bytes() == expected
    assert (seen, len(passes)) == ([3, 4], each)  # the bar goes on, too


@pytest.fixture
def name(render, monkeypatch, pack):
    """`name(**changed)`: of the file that would be drawn."""
    from tbd_pack.nodes import rendering

    monkeypatch.setattr(rendering, "render", lambda *_: None)
    return lambda **changed: file(render(**changed)).name


def rescale(multiplier):
    """As ComfyUI's RescaleCFG: a function that closes over its number."""
    return lambda args: args["cond"] * multiplier


def sampling(kind):
    """As ComfyUI's ModelSamplingDiscrete: a class of one name for all kinds, with equal noise levels."""
    from comfy.model_sampling import ModelSamplingDiscrete

    class ModelSamplingAdvanced(ModelSamplingDiscrete, kind):
        pass

    return ModelSamplingAdvanced()


def patched(model, cfg=None, sampling=None, **patches):
    model = model.clone()
    if cfg is not None:
        model.model_options["sampler_cfg_function"] = cfg
    if sampling is not None:
        model.add_object_patch("model_sampling", sampling)
    for value in patches.values():
        weight = next(iter(dict(model.model.named_parameters())))
        model.add_patches({weight: ("diff", (torch.full((2,), value),))}, 0.5)
    return model


@pytest.fixture
def others(bundle, wires, face, sound, pack):
    """Inputs of which each draws another picture than the usual ones, by what is changed."""
    from comfy.model_sampling import EPS, V_PREDICTION

    from tbd_pack.nodes import comfy_bridge

    def keyed(**more):
        return [[tensor, values | more] for tensor, values in wires["positive"]]

    def hooks(strength):
        return SimpleNamespace(hooks=[SimpleNamespace(weights={"up": torch.ones(2)}, strength_model=strength)])

    their_vae = SimpleNamespace(
        latent_channels=4, spacial_compression_encode=lambda: 8, vae_dtype=torch.float32, decode=None,
        get_sd=lambda: {"weight": torch.ones(2)},
    )  # fmt: skip
    with torch.inference_mode():
        return {
            "seed": {"seed": 8},
            "guidance": {"guidance": 3.0},
            "a scale": {"text_scale": 5.0},
            "steps": {"steps": 3},
            "sampler": {"sampler": "ddim"},
            "scheduler": {"scheduler": "normal"},
            "words": {"positive": comfy_bridge.encode_text(bundle.clip, "a sad person")},
            "unwanted words": {"negative": comfy_bridge.encode_text(bundle.clip, "noise")},
            "a range": {"positive": keyed(start_percent=0.5)},
            "hooks": {"positive": keyed(hooks=hooks(1.0))},
            "other hooks": {"positive": keyed(hooks=hooks(0.5))},
            "portrait": {"reference": comfy_bridge.see_portrait(bundle.model, bundle.vae, face.flip(2), (64, 64))[0]},
            "speech": {"audio": comfy_bridge.listen(bundle.audio_encoder, sound(0.6))},
            "vae": {"vae": their_vae},
            "sound": {"sound": sound(0.8)},
            "a LoRA": {"model": patched(bundle.model, one=1.0)},
            "another LoRA": {"model": patched(bundle.model, one=2.0)},
            "both": {"model": patched(bundle.model, one=1.0, two=2.0)},
            "rescaled": {"model": patched(bundle.model, rescale(0.7))},
            "rescaled less": {"model": patched(bundle.model, rescale(0.3))},
            "epsilon": {"model": patched(bundle.model, sampling=sampling(EPS)), "scheduler": "simple"},
            "velocity": {"model": patched(bundle.model, sampling=sampling(V_PREDICTION)), "scheduler": "simple"},
        }


def test_every_input_that_changes_the_picture_changes_the_name(name, others):
    names = {"usual": name()} | {what: name(**changed) for what, changed in others.items()}
    assert len(set(names.values())) == len(names), names


def test_what_changes_no_picture_changes_no_name(name, bundle):
    assert name() == name(model=bundle.model.clone()) == name(steps=0, guidance=-1.0, text_scale=2.0)
    twins = [name(model=patched(bundle.model, rescale(0.7), one=1.0)) for _ in range(2)]
    assert twins[0] == twins[1]


def test_a_patch_that_knows_its_own_model_has_a_name_too(name, bundle):
    """Many close over the MODEL that they are put on: neither endless nor the network's weights over again."""

    def knowing(number):
        model = bundle.model.clone()
        model.model_options["sampler_cfg_function"] = lambda args: (model, model.model, number)
        return name(model=model)

    assert knowing(1) == knowing(1) != knowing(2)


def test_a_name_does_not_lead_out_of_the_output_folder(render):
    with pytest.raises(
        ValueError, match=r"filename_prefix '\.\./\.\./x' leads to .*, out of .*output; give a name below"
    ):
        render(filename_prefix="../../x")


def test_a_folder_on_another_disk_is_followed(render, folders, tmp_path_factory, short):
    elsewhere = tmp_path_factory.mktemp("disk")
    (folders / "output" / "video").symlink_to(elsewhere, target_is_directory=True)
    output = render(**short)
    shown = output.ui.as_dict()["images"][0]
    assert file(output).parent == folders / "output" / "video" and shown["subfolder"] == "video"
    assert [one.name for one in elsewhere.iterdir()] == [shown["filename"]]


def test_a_name_that_no_disk_takes_is_refused_before_anything_is_drawn(render, passes):
    with pytest.raises(ValueError, match="output .* cannot be written .*; choose another place"):
        render(filename_prefix="x" * 300)
    assert not passes


def test_out_of_memory_while_decoding_says_what_to_do_and_keeps_what_was_done(render, passes, bundle, monkeypatch):
    import comfy.model_management as mm

    quick = dict(seed=77, steps=1, guidance=1.0)
    decode, calls = bundle.vae.decode, []

    def short_of_memory(latents):
        calls.append(1)
        if len(calls) == 2:
            raise mm.OOM_EXCEPTION("no memory")
        return decode(latents)

    monkeypatch.setattr(bundle.vae, "decode", short_of_memory)
    with pytest.raises(mm.OOM_EXCEPTION, match="decoding clip 2 at 64 x 64 px ran out of memory; choose a smaller"):
        render(**quick)
    both = len(passes)
    file(render(**quick))
    assert len(passes) == both + both // 2  # the first clip was kept


def test_a_vae_of_another_width_is_refused_before_anything_is_drawn(render, passes, bundle):
    wide = SimpleNamespace(latent_channels=16, spacial_compression_encode=lambda: 8)
    with pytest.raises(ValueError, match="the VAE has 16 channels at 1/8 of the size, this model wants 4 at 1/8; use"):
        render(vae=wide)
    assert not passes


def test_a_vae_of_another_model_is_named_beside_the_video(render, bundle, short):
    stock = SimpleNamespace(
        latent_channels=4, spacial_compression_encode=lambda: 8, vae_dtype=torch.float32, get_sd=dict,
        decode=bundle.vae.decode,
    )  # fmt: skip
    assert "the VAE is of type SimpleNamespace, the MODEL small.safetensors's" in render(vae=stock, **short).args[1]


def test_the_video_says_how_it_was_drawn(render, short):
    said = read_metadata(file(render(text_scale=5.0, audio=short["audio"])))
    expected = {
        "model": "small", "seed": 7, "steps": 2, "guidance": 2.0, "text_scale": 5.0, "audio_scale": None,
        "sampler": "euler", "scheduler": "trailing", "size": [64, 64], "synthetic": True,
    }  # fmt: skip
    assert {name: said[name] for name in expected} == expected
