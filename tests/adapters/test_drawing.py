"""TBD Sampler and Apply Conditions: frames, progress, cancel, what is kept, and numbers left to the bundle."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def draw(bundle, run, pack, wires):
    from tbd_pack.nodes.drawing import TBDSampler

    return lambda **changed: run(TBDSampler, **(wires | changed)).args


@pytest.fixture(scope="module")
def told(draw):
    """What the wires as they are give: a latent and what is said of it."""
    return draw()


@pytest.fixture(scope="module")
def usual(told):
    """What the wires as they are draw: latents [20, 4, 8, 8]."""
    return told[0]["samples"]


@pytest.fixture(scope="module")
def short(bundle, pack, sound):
    """Speech of one clip: a test need not wait for two."""
    from tbd_pack.nodes import comfy_bridge

    with torch.inference_mode():
        return comfy_bridge.listen(bundle.audio_encoder, sound(0.4))


@pytest.fixture
def apply(bundle, run, pack, wires):
    from tbd_pack.nodes.drawing import TBDApplyConditions

    known = {one.id for one in TBDApplyConditions.GET_SCHEMA().inputs}
    usual = {name: value for name, value in wires.items() if name in known}
    return lambda clip, **more: run(TBDApplyConditions, clip=clip, **(usual | more)).args


@pytest.fixture
def kept(bundle):
    return bundle.model.model.diffusion_model.kept


@pytest.fixture(scope="module")
def first(draw, short):
    """What the wires draw of one clip: latents [10, 4, 8, 8]."""
    return draw(audio=short)[0]["samples"]


def test_there_is_a_latent_for_each_frame_of_the_speech(told, kept):
    latent, info = told
    assert latent["samples"].shape == (20, 4, 8, 8) and latent["samples"].isfinite().all()
    assert info.splitlines()[:3] == [
        "20 frames of 64 x 64 pixels, 0.80 s",
        "2 steps of euler, trailing; seed 7",
        "guidance 2",
    ]
    assert not kept


def test_the_same_inputs_draw_the_same_and_another_seed_does_not(draw, usual, short):
    assert torch.equal(draw()[0]["samples"], usual)
    assert not torch.allclose(draw(seed=8, audio=short)[0]["samples"], usual[:10])


def test_numbers_left_out_are_the_bundles(draw, first, short, small_config):
    assert (small_config.defaults.steps, small_config.defaults.guidance) == (2, 2.0)  # as the wires'
    assert torch.equal(draw(steps=0, guidance=-1.0, audio=short)[0]["samples"], first)


def test_words_and_sound_pull_for_themselves(draw, short):
    together = draw(text_scale=2.0, audio_scale=2.0, audio=short)[0]["samples"]  # as hard as all
    for own in ("text_scale", "audio_scale"):
        latent, info = draw(**{own: 5.0}, audio=short)
        assert not torch.allclose(latent["samples"], together, atol=1e-3)
        assert info.splitlines()[2] == f"guidance 2, {own.partition('_')[0]} 5"


def test_without_guidance_the_info_says_that_the_negative_prompt_is_not_heard(draw, short):
    assert draw(guidance=1.0, audio=short)[1].splitlines()[2] == "guidance 1 (the negative prompt is not heard)"


def test_one_bar_goes_over_all_clips_and_each_is_named(draw):
    import comfy.utils
    from server import PromptServer

    page, seen = PromptServer(), []
    page.last_node_id = "4"
    comfy.utils.set_progress_bar_global_hook(
        lambda value, total, preview, node_id: seen.append((value, total, preview))
    )
    draw()
    assert [pair[:2] for pair in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(preview[1].size == (8, 8) for *_, preview in seen)  # of the right colours: see test_model.py
    assert page.said == [("clip 1/2", "4"), ("clip 2/2", "4")]


def test_a_cancel_passes_through_and_nothing_stays(draw, kept):
    import comfy.model_management as mm
    import comfy.utils

    def cancel(value, total, preview, node_id):
        if value == 3:
            mm.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(cancel)
    with pytest.raises(mm.InterruptProcessingException):
        draw()
    assert not kept


def test_out_of_memory_passes_through_and_the_next_try_is_clean(draw, usual, kept, bundle, monkeypatch):
    import comfy.model_management as mm

    calls = []
    network = bundle.model.model.diffusion_model
    whole = type(network).forward

    def short_of_memory(self, *given, **named):
        calls.append(1)
        if len(calls) == 6:
            raise mm.OOM_EXCEPTION("no memory")
        return whole(self, *given, **named)

    monkeypatch.setattr(type(network), "forward", short_of_memory)
    told = "clip 2/2 at 64 x 64 px ran out of memory; choose a smaller width and height in ReferenceNet Encode, or fp16"
    with pytest.raises(mm.OOM_EXCEPTION, match=told):  # of its kind: ComfyUI unloads all models then
        draw()
    assert not kept
    assert torch.equal(draw()[0]["samples"], usual)


def test_prompts_of_another_text_encoder_are_refused(draw):
    with pytest.raises(ValueError, match="the prompts are 768 wide, this model wants 16; use the CLIP of Load"):
        draw(positive=[[torch.zeros(1, 77, 768), {}]])


def test_a_schedule_is_cut_for_the_samplers_own_steps(draw, short, bundle, pack):
    from tbd_pack.nodes import comfy_bridge
    from tbd_pack.tbd_core.slicing import schedule_conditioning

    stages = [comfy_bridge.encode_text(bundle.clip, text) for text in ("coarse words", "fine words")]
    schedules = [schedule_conditioning(stages, steps)[0] for steps in (3, 17)]
    first, second = (draw(positive=one, steps=3, guidance=1.0, audio=short)[0]["samples"] for one in schedules)
    assert torch.equal(first, second)


def test_a_negative_schedule_is_cut_too(draw, short, bundle, pack, monkeypatch):
    from tbd_pack.nodes import comfy_bridge
    from tbd_pack.tbd_core.slicing import schedule_conditioning

    stages = [comfy_bridge.encode_text(bundle.clip, text) for text in ("no coarse words", "no fine words")]
    negative, seen = schedule_conditioning(stages, 17)[0], []
    whole = comfy_bridge._sample

    def watched(model, noise, sigmas, conds, *rest):
        seen.append(conds)
        return whole(model, noise, sigmas, conds, *rest)

    monkeypatch.setattr(comfy_bridge, "_sample", watched)
    draw(negative=negative, steps=3, text_scale=4.0, audio=short)
    for name in ("negative", "no_text"):
        ends = [("timestep_start" in values, "timestep_end" in values) for _, values in seen[0][name]]
        assert ends == [(False, True), (True, False)]
        assert not any("start_percent" in values or "end_percent" in values for _, values in seen[0][name])


def test_noise_levels_are_ksamplers_for_samplers_that_leave_one_out(bundle, pack):
    from tbd_pack.nodes import comfy_bridge

    levels = {name: comfy_bridge.model_sigmas(bundle.model, "simple", 4, name) for name in ("euler", "uni_pc")}
    five = comfy_bridge.model_sigmas(bundle.model, "simple", 5)
    assert levels["uni_pc"] == [*five[:4], 0.0] != levels["euler"]
    options = comfy_bridge.DrawOptions(steps=4, sampler="uni_pc", scheduler="simple")
    assert comfy_bridge.run_sigmas(bundle.model, options) == levels["uni_pc"]


def test_numbers_from_links_are_refused_out_of_range(draw):
    with pytest.raises(ValueError, match="steps is 2000; give a whole number from 1 to 1000"):
        draw(steps=2000)
    with pytest.raises(ValueError, match="guidance is nan; give a number from 0 to 30"):
        draw(guidance=float("nan"))


def test_trailing_wants_the_models_own_noise_levels(draw, bundle):
    from comfy.model_sampling import V_PREDICTION, ModelSamplingDiscrete

    model, short_table = bundle.model.clone(), type("Distilled", (ModelSamplingDiscrete, V_PREDICTION), {})()
    short_table.set_sigmas(short_table.sigmas[::20])
    model.add_object_patch("model_sampling", short_table)
    with pytest.raises(ValueError, match="the MODEL was given 50 noise levels, trailing counts 1000; choose another"):
        draw(model=model)


def test_what_another_bundle_encoded_is_drawn_with_a_warning(draw, wires, short):
    other = Path("their.safetensors")
    reference, audio = replace(wires["reference"], bundle=other), replace(short, bundle=other)
    told = draw(reference=reference, audio=audio)[1]
    for name in ("reference", "audio"):
        assert f"the {name} was encoded by their.safetensors, the MODEL is small.safetensors's; use one Load" in told
    assert "encoded by" not in draw(audio=short)[1]


def test_one_clip_for_a_plain_ksampler(apply, wires):
    positive, negative, latent = apply(0)
    assert latent["samples"].shape == (14, 4, 8, 8) and not latent["samples"].any()
    assert repr(positive[0][1]["tbd"]) == "Guide(portrait, motion, sound)"
    assert repr(negative[0][1]["tbd"]) == "Guide(motion)"
    assert "tbd" not in wires["positive"][0][1]  # what others hold is left as it was


def test_the_next_clip_wants_the_one_before(apply):
    with pytest.raises(ValueError, match="clip 1 goes on from clip 0: connect that clip's latent as previous"):
        apply(1)
    with pytest.raises(ValueError, match="clip 2 is not there: the recording has 2 clips, counted from 0"):
        apply(2, previous={"samples": torch.zeros(14, 4, 8, 8)})
    before = {"samples": torch.randn(14, 4, 8, 8)}
    moved, still = (apply(1, previous=one)[0][0][1]["tbd"] for one in (before, {"samples": torch.zeros(2, 4, 8, 8)}))
    name = "down_blocks.0.attentions.0"
    assert not torch.allclose(moved.motion[name], still.motion[name])
    assert torch.equal(moved.windows, still.windows)


def test_the_sampler_goes_through_the_clips_as_ksampler_does(usual, apply, bundle, wires, pack):
    from comfy.sample import sample

    from tbd_pack.tbd_core.denoise import clip_noise

    drawn, latent = [], None
    for clip in range(2):
        positive, negative, empty = apply(clip, previous=latent)
        noise = clip_noise(7, clip, wires["reference"].latents)
        with torch.inference_mode():
            one = sample(bundle.model, noise, 2, 2.0, "euler", "simple", positive, negative, empty["samples"])
        latent = {"samples": one}
        drawn.append(one)
    assert torch.allclose(torch.cat(drawn)[:20], usual, atol=1e-3)
