"""MODEL, CLIP and VAE of a bundle inside ComfyUI: with its own nodes, in its memory, under cancel and errors."""

import gc
import logging
import weakref
from types import SimpleNamespace

import pytest
import torch


pytestmark = pytest.mark.comfy


@pytest.fixture
def kept(loaded):
    """What the model keeps for one sampling; nothing, between two."""
    return loaded.model.model.diffusion_model.kept


@pytest.fixture(scope="module")
def words(bridge, loaded):
    """(positive, negative) of plain prompts."""
    with torch.inference_mode():
        return bridge.encode_text(loaded.clip, "a happy person"), bridge.encode_text(loaded.clip, "blurry")


@pytest.fixture(scope="module")
def seen_and_heard(bridge, loaded, face, sound):
    with torch.inference_mode():
        return bridge.see_portrait(loaded.model, loaded.vae, face, (64, 64))[0], bridge.listen(loaded.ears, sound(0.8))


def ksampler(model, positive, negative, frames=4, cfg=2.0, size=8, steps=2):
    """ComfyUI's KSampler node."""
    import nodes

    latent = {"samples": torch.zeros(frames, 4, size, size)}
    with torch.inference_mode():
        return nodes.common_ksampler(model, 3, steps, cfg, "euler", "simple", positive, negative, latent)[0]["samples"]


def test_a_plain_ksampler_draws_without_conditions(loaded, words, kept):
    drawn = ksampler(loaded.model, *words)
    assert drawn.shape == (4, 4, 8, 8) and drawn.isfinite().all() and drawn.std() > 0
    assert not kept


def test_rows_of_one_batch_are_drawn_as_each_alone(loaded, part, words):
    """Without a guide cond and uncond are one batch; with one of its own each is drawn alone."""
    guide = part("tbd_core.guide").Guide(None, None, None, (64, 64))
    alone = [[words[1][0][0], {"tbd": guide}]]
    together = ksampler(loaded.model, *words)
    assert torch.allclose(together, ksampler(loaded.model, words[0], alone), atol=1e-3)
    assert not torch.allclose(together, ksampler(loaded.model, words[1], words[0]), atol=0.1)  # the order counts


@torch.inference_mode()
def test_two_slices_of_one_step_are_the_mean_of_both(bridge, loaded, words, seen_and_heard):
    import comfy.sample

    positive, negative, latent = bridge.apply_conditions(loaded.model, *seen_and_heard, *words, 0, None)
    other = [[words[1][0][0], positive[0][1]]]
    noise = torch.randn(14, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def one_step(cond):
        given = "euler", "simple", cond, negative, latent["samples"]
        levels = torch.tensor([1.0, 0.0])  # from pure noise, at 4519, one step has three digits
        return comfy.sample.sample(loaded.model, noise, 1, 1.0, *given, sigmas=levels, seed=1)

    mean = (one_step(positive) + one_step(other)) / 2
    assert torch.allclose(one_step(positive + other), mean, atol=1e-4)


@torch.inference_mode()
def test_apply_conditions_in_a_plain_ksampler_is_the_samplers_first_clip(bridge, part, loaded, words, seen_and_heard):
    import comfy.sample

    positive, negative, latent = bridge.apply_conditions(loaded.model, *seen_and_heard, *words, 0, None)
    noise = part("tbd_core.denoise").clip_noise(3, 0, seen_and_heard[0].latents)
    drawn = comfy.sample.sample(
        loaded.model, noise, 5, 2.0, "euler", "simple", positive, negative, latent["samples"], seed=1
    )
    options = bridge.DrawOptions(seed=3, steps=5, guidance=2.0)
    first = next(bridge.draw_clips(loaded.model, *seen_and_heard, *words, options))
    assert torch.allclose(drawn, first, atol=1e-4)
    alone = ksampler(loaded.model, *words, frames=14, steps=5)
    assert not torch.allclose(drawn, alone, atol=0.1)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "heun", "dpmpp_2m", "uni_pc", "lcm"])
@pytest.mark.parametrize("scheduler", ["trailing", "normal"])
def test_other_samplers_and_schedulers_draw_numbers_the_same_each_time(drawn, sampler, scheduler):
    first = drawn(sampler=sampler, scheduler=scheduler)
    assert first.isfinite().all()
    assert torch.equal(first, drawn(sampler=sampler, scheduler=scheduler))


def test_what_was_kept_is_dropped_after_an_error_and_after_a_cancel(bridge, loaded, words, seen_and_heard, kept):
    import comfy.model_management as mm
    import comfy.utils

    steps = []

    def cancel_at_the_third(value, total, preview, node_id=None):
        steps.append((value, total, bool(kept)))
        if value == 3:
            mm.interrupt_current_processing()
        mm.throw_exception_if_processing_interrupted()

    comfy.utils.set_progress_bar_global_hook(cancel_at_the_third)
    options = bridge.DrawOptions(steps=2, guidance=2.0)
    try:
        with torch.inference_mode(), pytest.raises(mm.InterruptProcessingException):
            list(bridge.draw_clips(loaded.model, *seen_and_heard, *words, options))
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    assert steps == [(1, 4, True), (2, 4, True), (3, 4, True)]  # two clips of two steps: one bar
    assert not kept


def test_thirty_one_frames_at_once_are_refused(loaded, words, kept):
    with pytest.raises(ValueError, match="31 frames are drawn at once; at most 30 are possible: use TBD Sampler"):
        ksampler(loaded.model, *words, frames=31)
    assert not kept
    assert ksampler(loaded.model, *words, frames=30, steps=1).isfinite().all()


def test_prompts_of_another_text_encoder_are_refused(loaded, words):
    wide = [[torch.zeros(1, 77, 768), {}]]
    with pytest.raises(ValueError, match="the prompts are 768 wide, this model wants 16; use the CLIP of Load TBD"):
        ksampler(loaded.model, wide, words[1])


def test_latents_unlike_the_guides_are_refused(bridge, loaded, words, seen_and_heard):
    with torch.inference_mode():
        positive, negative, _ = bridge.apply_conditions(loaded.model, *seen_and_heard, *words, 0, None)
    with pytest.raises(ValueError, match="latents are 128 x 128 px, but the portrait was encoded at 64 x 64"):
        ksampler(loaded.model, positive, negative, frames=14, size=16)
    with pytest.raises(ValueError, match="9 frames are drawn at once, but the guide hears 14"):
        ksampler(loaded.model, positive, negative, frames=9)


def test_anothers_model_is_told_apart(bridge):
    patcher = SimpleNamespace(get_attachment=lambda key: None, model=SimpleNamespace())
    with pytest.raises(ValueError, match="this MODEL is of type SimpleNamespace, not Think-Before-Draw's"):
        bridge.tbd_parts(patcher)


def test_an_attention_of_the_users_is_used_on_a_cpu_too(loaded, words):
    calls = []

    def override(attention, *args, **kwargs):
        calls.append(args[0].shape)
        return attention(*args, **kwargs)

    model = loaded.model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    theirs, plain = ksampler(model, *words), ksampler(loaded.model, *words)
    assert calls and torch.allclose(theirs, plain, atol=1e-2)


@torch.inference_mode()
def test_previews_show_the_frame(loaded, bridge, seen_and_heard):
    import latent_preview

    previewer = latent_preview.get_previewer(torch.device("cpu"), loaded.model.model.latent_format)
    if previewer is None:  # ComfyUI's default is none; `auto` is this
        format = loaded.model.model.latent_format
        previewer = latent_preview.Latent2RGBPreviewer(format.latent_rgb_factors, format.latent_rgb_factors_bias)
    _, picture, _ = previewer.decode_latent_to_preview_image("JPEG", seen_and_heard[0].latents)
    assert picture.size == (8, 8)


def test_nothing_loaded_is_an_inference_tensor(load, small_bundle):
    new = load(small_bundle)
    parts = new.model.get_attachment("tbd")
    modules = [new.model.model, parts.reference.model, new.clip.cond_stage_model, new.vae.first_stage_model]
    tensors = [t for module in [*modules, new.ears.patcher.model] for t in module.state_dict().values()]
    assert not any(t.is_inference() or t.is_meta for t in [*tensors, parts.empty])


def test_loading_says_nothing_of_missing_weights(load, small_bundle, caplog):
    with caplog.at_level(logging.WARNING):
        load(small_bundle)
    assert caplog.messages == []


def test_a_long_prompt_keeps_its_first_77_tokens_and_says_what_is_cut(loaded, bridge, caplog):
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        states = bridge.encode_text(loaded.clip, "smile " * 90 + "end")[0][0]
    assert states.shape == (1, 77, 16)
    assert any("the encoded prompt has 93 tokens, CLIP reads 77" in line for line in caplog.messages)


def test_freed_models_are_gone(load, small_bundle, words):
    import comfy.model_management as mm

    new = load(small_bundle)
    ksampler(new.model, *words)
    patchers = (new.model, new.model.get_attachment("tbd").reference, new.ears.patcher)
    left = [weakref.ref(patcher.model) for patcher in patchers]
    mm.unload_all_models()
    del new, patchers
    gc.collect()
    assert [ref() for ref in left] == [None] * 3


def test_bundles_of_every_listed_folder_are_offered(bridge, comfyui, small_bundle, tmp_path):
    import folder_paths

    own, elsewhere = comfyui / "models" / "tbd" / "mine.safetensors", tmp_path / "theirs.safetensors"
    own.symlink_to(small_bundle)
    elsewhere.symlink_to(small_bundle)
    (tmp_path / "notes.txt").write_text("no bundle")
    folder_paths.add_model_folder_path("tbd", str(tmp_path))  # what extra_model_paths.yaml does
    assert bridge.bundle_names() == [bridge.BUNDLED, "mine.safetensors", "theirs.safetensors"]
    assert bridge.bundle_path("theirs.safetensors") == elsewhere
    with pytest.raises(ValueError, match=r"gone.safetensors is not in models/tbd; put it there or choose tbd_tiny"):
        bridge.bundle_path("gone.safetensors")


def test_fp16_is_refused_on_a_cpu(load, small_bundle):
    with pytest.raises(ValueError, match="fp16 needs a GPU, and ComfyUI computes on the CPU here"):
        load(small_bundle, "fp16")


def test_bf16_is_computed_in_bf16(load, small_bundle, words):
    new = load(small_bundle, "bf16")
    assert new.model.model.diffusion_model.conv_in.weight.dtype == new.vae.vae_dtype == torch.bfloat16
    assert ksampler(new.model, *words).isfinite().all()
