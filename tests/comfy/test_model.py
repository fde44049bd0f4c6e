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
def encoded(bridge, loaded, face, sound):
    """(reference, audio) of two clips."""
    with torch.inference_mode():
        reference, _ = bridge.see_portrait(loaded.model, loaded.vae, face, (64, 64))
        return reference, bridge.listen(loaded.audio_encoder, sound(0.8))


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
def test_two_slices_of_one_step_are_the_mean_of_both(bridge, loaded, words, encoded):
    import comfy.sample

    positive, negative, latent = bridge.apply_conditions(loaded.model, *encoded, *words, 0, None)
    other = [[words[1][0][0], positive[0][1]]]
    noise = torch.randn(14, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def one_step(cond):
        given = "euler", "simple", cond, negative, latent["samples"]
        levels = torch.tensor([1.0, 0.0])  # from pure noise, at 4519, one step has three digits
        return comfy.sample.sample(loaded.model, noise, 1, 1.0, *given, sigmas=levels, seed=1)

    mean = (one_step(positive) + one_step(other)) / 2
    assert torch.allclose(one_step(positive + other), mean, atol=1e-4)


@torch.inference_mode()
def test_apply_conditions_in_a_plain_ksampler_is_the_samplers_first_clip(bridge, part, loaded, words, encoded):
    import comfy.sample

    positive, negative, latent = bridge.apply_conditions(loaded.model, *encoded, *words, 0, None)
    noise = part("tbd_core.denoise").clip_noise(3, 0, encoded[0].latents)
    drawn = comfy.sample.sample(
        loaded.model, noise, 5, 2.0, "euler", "simple", positive, negative, latent["samples"], seed=1
    )
    options = bridge.DrawOptions(seed=3, steps=5, guidance=2.0)
    first = next(bridge.draw_clips(loaded.model, *encoded, *words, options))
    assert torch.allclose(drawn, first, atol=1e-4)
    alone = ksampler(loaded.model, *words, frames=14, steps=5)
    assert not torch.allclose(drawn, alone, atol=0.1)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "heun", "dpmpp_2m", "uni_pc", "lcm"])
@pytest.mark.parametrize("scheduler", ["trailing", "normal"])
def test_other_samplers_and_schedulers_draw_numbers_the_same_each_time(drawn, sampler, scheduler):
    first = drawn(sampler=sampler, scheduler=scheduler)
    assert first.isfinite().all()
    assert torch.equal(first, drawn(sampler=sampler, scheduler=scheduler))


def test_what_was_kept_is_dropped_after_an_error_and_after_a_cancel(bridge, loaded, words, encoded, kept):
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
            list(bridge.draw_clips(loaded.model, *encoded, *words, options))
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


def test_latents_unlike_the_guides_are_refused(bridge, loaded, words, encoded):
    with torch.inference_mode():
        positive, negative, _ = bridge.apply_conditions(loaded.model, *encoded, *words, 0, None)
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
def test_previews_show_the_portrait(load, bridge, part):
    """A picture of the bundled model's latents, cell by cell, has the mean colours of the pixels under them."""
    import latent_preview

    tiny = load(part("tbd_core.config").TINY_BUNDLE)
    format = tiny.model.model.latent_format  # ComfyUI's default is no previewer; `auto` is this
    previewer = latent_preview.Latent2RGBPreviewer(format.latent_rgb_factors, format.latent_rgb_factors_bias)
    reference, shown = bridge.see_portrait(tiny.model, tiny.vae, part("tbd_core.host").sample_inputs()[0])
    _, picture, _ = previewer.decode_latent_to_preview_image("JPEG", reference.latents)
    wanted = torch.nn.functional.avg_pool2d(shown.movedim(-1, 1), 8)[0].movedim(0, -1)
    preview = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(wanted.shape) / 255
    one_colour = (wanted - wanted.mean((0, 1))).square().mean()
    assert (preview - wanted).square().mean() < 0.3 * one_colour


def test_nothing_loaded_is_an_inference_tensor(load, small_bundle):
    new = load(small_bundle)
    parts = new.model.get_attachment("tbd")
    modules = [new.model.model, parts.reference.model, new.clip.cond_stage_model, new.vae.first_stage_model]
    tensors = [t for module in [*modules, new.audio_encoder.patcher.model] for t in module.state_dict().values()]
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


def test_freed_models_are_gone(bridge, load, small_bundle, face, sound):
    """All five, after a whole clip with its guide."""
    import comfy.model_management as mm

    @torch.inference_mode()
    def draw(new):
        reference, _ = bridge.see_portrait(new.model, new.vae, face, (64, 64))
        audio = bridge.listen(new.audio_encoder, sound(0.4))
        prompts = [bridge.encode_text(new.clip, text) for text in ("a happy person", "blurry")]
        options = bridge.DrawOptions(steps=2, guidance=2.0)
        return [new.vae.decode(clip) for clip in bridge.draw_clips(new.model, reference, audio, *prompts, options)]

    new = load(small_bundle)
    assert len(draw(new)) == 1
    networks = {
        "model": new.model.model,
        "reference": new.model.get_attachment("tbd").reference.model,
        "audio encoder": new.audio_encoder.patcher.model,
        "clip": new.clip.cond_stage_model,
        "vae": new.vae.first_stage_model,
    }
    left = {name: weakref.ref(network) for name, network in networks.items()}
    mm.unload_all_models()
    del new, networks
    gc.collect()
    assert [name for name, network in left.items() if network() is not None] == []


@torch.inference_mode()
def test_areas_are_drawn_alike_whether_or_not_they_fit_into_one_batch(loaded, words, monkeypatch):
    """ComfyUI gives the negative an entry for each area of the positive, under the same id."""
    import comfy.model_management as mm

    positive = [words[0][0], [words[0][0][0] * 0.5, {"area": (8, 16, 0, 0), "strength": 1.0}]]
    together = ksampler(loaded.model, positive, words[1], frames=2, size=16)
    monkeypatch.setattr(mm, "get_free_memory", lambda *_, **__: 0)
    assert torch.allclose(ksampler(loaded.model, positive, words[1], frames=2, size=16), together, atol=1e-3)


def test_the_name_of_a_video_tells_comfyuis_own_patches_apart(bridge, part, load, loaded, drawn, small_bundle):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, RescaleCFG

    def key(model):
        return part("tbd_core.render").model_key(model, loaded.vae)

    rescaled = [RescaleCFG().patch(loaded.model, multiplier)[0] for multiplier in (0.7, 0.7, 0.3)]
    first, same, other = map(key, rescaled)
    assert first == same != other and first != key(loaded.model)
    drawn(over=SimpleNamespace(**{**vars(loaded), "model": rescaled[0]}))
    assert key(rescaled[0]) == first  # sampling leaves no trace in it
    noise, velocity = (ModelSamplingDiscrete().patch(loaded.model, kind, True)[0] for kind in ("eps", "v_prediction"))
    levels = [model.get_model_object("model_sampling").sigmas for model in (noise, velocity)]
    assert torch.equal(*levels) and key(noise) != key(velocity)
    assert key(load(small_bundle).model) == key(loaded.model)  # ComfyUI's own id of a patched model is random


@torch.inference_mode()
def test_trailing_asks_for_the_models_own_noise_levels(bridge, loaded):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    distilled = ModelSamplingDiscrete().patch(loaded.model, "lcm", False)[0]
    with pytest.raises(ValueError, match="the MODEL was given 50 noise levels, trailing counts 1000; choose another"):
        bridge.run_sigmas(distilled, bridge.DrawOptions(steps=4))
    assert len(bridge.run_sigmas(distilled, bridge.DrawOptions(steps=4, scheduler="simple"))) == 5


def test_a_file_without_sound_is_said_with_its_name(bridge, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"broken\.mp4 has no sound that can be read \(.+\); give a WAV or FLAC"):
        bridge.load_audio(tmp_path / "broken.mp4")


def test_bundles_of_every_listed_folder_are_offered(bridge, shelve, small_bundle, tmp_path, monkeypatch):
    import folder_paths

    paths, endings = folder_paths.folder_names_and_paths["tbd"]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "tbd", (list(paths), endings))
    elsewhere = tmp_path / "theirs.safetensors"
    shelve("tbd", "mine.safetensors", small_bundle)
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
