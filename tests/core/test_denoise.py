"""Laws of the sampling loop, on the real classes at small width."""

from dataclasses import replace

import pytest
import torch

from tbd_core import conditioning, denoise
from tbd_core.checkpoint import store
from tbd_core.denoise import Guidance, Job, clip_noise, draw_clip, first_motion, see
from tbd_core.errors import InputError
from tbd_core.progressive import make_schedule
from tbd_core.units import CLIP_FRAMES, MOTION_FRAMES


@pytest.fixture(scope="module")
def job(small_bundle) -> Job:
    networks, config = store.load(small_bundle)
    generator = torch.Generator().manual_seed(0)
    portrait = torch.randn(1, 4, 8, 8, generator=generator)
    with torch.inference_mode():
        empty = conditioning.text_states(networks, "")
        return Job(
            networks=networks,
            config=config,
            schedule=make_schedule(3),
            guidance=Guidance(2.0),
            stages=tuple(conditioning.text_states(networks, text) for text in ("a happy person", "lip corner puller")),
            negative=conditioning.text_states(networks, "sad"),
            empty=empty,
            portrait=portrait,
            reference=see(networks.reference_unet, portrait, empty),
            seed=3,
        )


@pytest.fixture(scope="module")
def windows(job) -> torch.Tensor:
    config = job.config.audio_projection
    shape = (CLIP_FRAMES, config.window, config.layers, config.channels)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def draw(job: Job, windows: torch.Tensor, clip: int = 0, on_step=None) -> torch.Tensor:
    return draw_clip(job, windows, first_motion(job.portrait), clip, 2, on_step)


@pytest.fixture(scope="module")
def plain(job, windows) -> torch.Tensor:
    """What the job as it is draws."""
    return draw(job, windows)


def test_same_seed_and_clip_draw_the_same(job, windows, plain):
    assert torch.equal(draw(job, windows), plain)


def test_noise_depends_on_seed_and_clip_and_nothing_else():
    cells = torch.zeros(1, 4, 8, 6)
    first = clip_noise(1, 0, cells)
    assert first.shape == (CLIP_FRAMES, 4, 8, 6)
    torch.manual_seed(5)
    assert torch.equal(first, clip_noise(1, 0, cells))
    assert not torch.equal(first, clip_noise(1, 1, cells))
    assert not torch.equal(first, clip_noise(2, 0, cells))


def test_neighbouring_seeds_share_no_clip():
    cells = torch.zeros(1, 4, 2, 2)
    drawn = [clip_noise(seed, clip, cells) for seed in range(4) for clip in range(4)]
    assert len({tuple(noise.flatten().tolist()) for noise in drawn}) == 16
    seeds = {denoise.clip_seed(seed, clip) for seed in range(4) for clip in range(4)}
    assert len(seeds) == 16 and denoise.clip_seed(2**63 - 1, 3) < 2**63


def test_every_step_is_reported_once_in_order(job, windows):
    reports = []
    draw(job, windows, clip=1, on_step=reports.append)
    assert [(r.clip, r.num_clips, r.step, r.num_steps) for r in reports] == [(1, 2, i, 3) for i in (1, 2, 3)]
    assert reports[0].latents.shape == (1, 4, CLIP_FRAMES, 8, 8)


def test_a_callback_that_raises_interrupts_and_leaves_no_cache(job, windows, monkeypatch):
    caches = []

    class Watched(denoise.KVCache):
        def __init__(self):
            super().__init__()
            caches.append(self)

    monkeypatch.setattr(denoise, "KVCache", Watched)

    def stop(report):
        if report.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(job, windows, on_step=stop)
    assert len(caches) == 1 and not caches[0]._kept


@pytest.mark.parametrize("part", ["stages", "negative", "reference", "windows", "before", "schedule"])
def test_every_condition_changes_what_is_drawn(job, windows, plain, part):
    before = first_motion(job.portrait)
    if part == "windows":
        windows = windows.flip(0)
    elif part == "before":
        before = -before
    elif part == "reference":
        job = replace(job, reference=see(job.networks.reference_unet, -job.portrait, job.empty))
    elif part == "stages":
        job = replace(job, stages=job.stages[::-1])
    elif part == "negative":
        job = replace(job, negative=job.stages[0])
    else:
        job = replace(job, schedule=make_schedule(3, blend="smooth"))
    changed = draw_clip(job, windows, before, 0, 2)
    assert (changed - plain).abs().max() > 1e-3


def test_the_portrait_sets_the_size(job, windows):
    small = torch.zeros(1, 4, 8, 6)
    job = replace(job, portrait=small, reference=see(job.networks.reference_unet, small, job.empty))
    assert draw_clip(job, windows, first_motion(small), 0, 1).shape == (CLIP_FRAMES, 4, 8, 6)


def test_guidance_of_one_needs_no_unconditional_pass(job, windows, monkeypatch):
    passes = count_passes(job, monkeypatch)
    draw(replace(job, guidance=Guidance(1.0)), windows)
    assert passes == {"full": 3}


def test_unconditional_pass_has_no_reference_and_no_audio_but_motion_frames(job, windows, monkeypatch):
    passes = count_passes(job, monkeypatch)
    draw(job, windows)
    assert passes == {"full": 3, "without": 3}


def test_scales_equal_to_the_joint_one_change_nothing_and_cost_nothing(job, windows, plain, monkeypatch):
    passes = count_passes(job, monkeypatch)
    same = draw(replace(job, guidance=Guidance(2.0, text=2.0, audio=2.0)), windows)
    assert torch.equal(plain, same) and passes == {"full": 3, "without": 3}


def test_separate_scales_cost_one_pass_each_and_change_the_picture(job, windows, plain, monkeypatch):
    passes = count_passes(job, monkeypatch)
    pulled = draw(replace(job, guidance=Guidance(2.0, text=6.0, audio=0.5)), windows)
    assert passes == {"full": 3, "without": 3, "no_text": 3, "no_audio": 3}
    assert (pulled - plain).abs().max() > 1e-3


def count_passes(job: Job, monkeypatch) -> dict[str, int]:
    """Counts forwards of the denoiser by what they are guided with."""
    passes: dict[str, int] = {}
    unet = job.networks.denoising_unet
    forward = unet.forward

    def counted(latents, timestep, ctx, *rest):
        assert ctx.motion is not None
        if ctx.reference is None:
            assert ctx.audio is None
            kind = "without"
        elif ctx.audio is None:
            kind = "no_audio"
        else:
            kind = "no_text" if ctx.text_id == "negative" else "full"
        passes[kind] = passes.get(kind, 0) + 1
        return forward(latents, timestep, ctx, *rest)

    monkeypatch.setattr(unet, "forward", counted)
    return passes


def test_motion_frames_before_the_first_clip_are_the_portrait(job):
    motion = first_motion(job.portrait)
    assert motion.shape == (MOTION_FRAMES, 4, 8, 8)
    assert all(torch.equal(frame, job.portrait[0]) for frame in motion)


def test_audio_features_are_interpolated_to_frames_before_the_transformer(job):
    encoder, seen = job.networks.audio_encoder, []
    handle = encoder.encoder.register_forward_pre_hook(lambda _module, args: seen.append(args[0].shape[1]))
    features = conditioning.speech_features(encoder, torch.randn(16_000), 25)
    handle.remove()
    assert seen == [25] and features.shape == (25, 2, 16)


def test_long_speech_is_heard_in_chunks_that_agree_with_the_whole(job):
    encoder = job.networks.audio_encoder
    sound = torch.randn(260 * 640, generator=torch.Generator().manual_seed(2))
    lengths = []
    handle = encoder.encoder.register_forward_pre_hook(lambda _module, args: lengths.append(args[0].shape[1]))
    parts = conditioning.speech_features(encoder, sound, 260)
    handle.remove()
    assert max(lengths) <= conditioning.AUDIO_CHUNK + 2 * conditioning.AUDIO_MARGIN and len(parts) == 260
    with torch.inference_mode():
        whole = conditioning.audio_features(encoder, sound[None], 260)[0]
    # The first layers' features agree frame by frame; attention sees a shorter surrounding, no more.
    agreement = torch.nn.functional.cosine_similarity(parts.flatten(1), whole.flatten(1), dim=1)
    assert agreement.mean() > 0.9


def test_silence_is_heard_over_a_noise_floor_that_is_always_the_same(job):
    encoder = job.networks.audio_encoder
    silence = conditioning.speech_features(encoder, torch.zeros(16_000), 25)
    assert torch.equal(silence, conditioning.speech_features(encoder, torch.zeros(16_000), 25))
    with torch.inference_mode():
        zeros = conditioning.audio_features(encoder, torch.zeros(1, 16_000), 25)[0]
    assert not torch.allclose(silence, zeros)


def test_whoever_waits_for_long_speech_may_interrupt_before_each_chunk(job):
    encoder, called, heard = job.networks.audio_encoder, [], []
    handle = encoder.encoder.register_forward_pre_hook(lambda _module, _args: heard.append(len(called)))
    conditioning.speech_features(encoder, torch.zeros(640), 210, on_chunk=lambda: called.append(1))
    handle.remove()
    assert heard == [1, 2, 3]

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conditioning.speech_features(encoder, torch.zeros(640), 25, on_chunk=stop)


def test_every_number_of_steps_has_as_many_timesteps(job):
    """diffusers' trailing spacing gives one too many for 61, 103, ...; the first S are taken."""
    for steps in (1, 2, 20, 61, 103, 1000):
        times = denoise.timesteps(job.config.scheduler, steps)
        assert len(times) == steps and times[0] == 999
        assert all(after < before for before, after in zip(times, times[1:], strict=False))
    assert denoise.timesteps(job.config.scheduler, 4) == [999, 749, 499, 249]


def test_trailing_levels_are_the_tables_at_the_timesteps_and_end_at_nothing(job):
    table = denoise.sigmas(job.config.scheduler)
    levels = denoise.trailing_sigmas(job.config.scheduler, 4, table)
    assert levels == [*(float(table[i]) for i in (999, 749, 499, 249)), 0.0]
    with pytest.raises(InputError, match="the MODEL was given 50 noise levels, trailing counts 1000; choose another"):
        denoise.trailing_sigmas(job.config.scheduler, 4, table[:50])


def test_sigmas_are_noise_per_signal_and_end_where_comfyui_s_do(job):
    found = denoise.sigmas(job.config.scheduler)
    kept = denoise.make_scheduler(job.config.scheduler).alphas_cumprod.double()
    assert found.dtype == torch.float32 and len(found) == 1000 and bool((found.diff() > 0).all())
    # x = a x0 + b noise is a (x0 + sigma noise).
    assert torch.allclose(found[:-1].double(), ((1 - kept) / kept).sqrt()[:-1], rtol=1e-6)
    assert float(found[-1]) == pytest.approx(4518.8, abs=0.1)
    plain = denoise.sigmas(replace(job.config.scheduler, rescale_betas_zero_snr=False, prediction_type="epsilon"))
    assert float(plain[-1]) == pytest.approx(14.61, abs=0.01)  # SD 1.5's


def test_sixty_one_steps_draw(job, windows, monkeypatch):
    """Of the loop, not of the network: that one passes its input on."""
    reports, passes = [], []
    monkeypatch.setattr(job.networks.denoising_unet, "forward", lambda latents, *_: passes.append(1) or latents)
    draw(replace(job, schedule=make_schedule(61), guidance=Guidance(1.0)), windows, on_step=reports.append)
    assert len(reports) == len(passes) == 61


def test_scheduler_starts_at_pure_noise(job):
    scheduler = denoise.make_scheduler(job.config.scheduler)
    scheduler.set_timesteps(5)
    assert scheduler.timesteps[0] == 999 and float(scheduler.alphas_cumprod[999]) < 1e-6


@pytest.mark.parametrize("steps", [1, 3, 7, 12, 30, 40, 61, 1000])
def test_a_step_arrives_where_the_next_pass_begins(job, steps):
    """Also where `steps` does not divide 1000: with the true v, latents lie on the straight path of their noise."""
    config = job.config.scheduler
    scheduler, visited = denoise.make_scheduler(config), denoise.timesteps(config, steps)
    picture, noise = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = scheduler.alphas_cumprod.double()
    latents = noise
    for timestep, following in zip(visited, [*visited[1:], -1], strict=True):
        signal, rest = kept[timestep].sqrt(), (1 - kept[timestep]).sqrt()
        latents = denoise.step(scheduler, signal * noise - rest * picture, timestep, following, latents)
        there = kept[following] if following >= 0 else torch.tensor(1.0)
        assert torch.allclose(latents, there.sqrt() * picture + (1 - there).sqrt() * noise, atol=1e-5), following
