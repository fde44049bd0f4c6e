"""Where the denoiser begins: it draws the portrait, and what it is told of noise is the best guess from there."""

from dataclasses import replace

import pytest
import torch

from tbd_core import conditioning, denoise
from tbd_core.config import SchedulerConfig
from tbd_core.models.build import build
from tbd_core.progressive import make_schedule
from tbd_core.training.unet_start import CHANGE, shares, start_with_portrait
from tbd_core.units import CLIP_FRAMES


@pytest.mark.parametrize("timestep", [999, 799, 400, 100, 10, 0])
def test_the_shares_are_the_best_guess_of_v_for_latents_near_the_portrait(timestep):
    generator = torch.Generator().manual_seed(timestep)
    portrait, change, noise = torch.randn(3, 200_000, generator=generator, dtype=torch.float64)
    alpha = denoise.make_scheduler(SchedulerConfig()).alphas_cumprod.double()[timestep]
    latents = portrait + CHANGE * change
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    v = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    of_portrait, of_noisy = shares(SchedulerConfig())[timestep].tolist()
    best = torch.linalg.lstsq(torch.stack([portrait, noisy], dim=1), v).solution
    assert (of_portrait, of_noisy) == pytest.approx(tuple(best.tolist()), rel=0.03, abs=0.01)


@pytest.mark.parametrize("steps", [1, 5, 12])
def test_a_fresh_denoiser_draws_the_portrait_whatever_it_is_told(small_config, steps):
    networks = build(small_config).eval()
    start_with_portrait(networks.denoising_unet, small_config.scheduler)
    portrait = torch.randn(1, 4, 8, 6)
    words = conditioning.text_states(networks, "an angry person")
    job = denoise.Job(
        networks=networks,
        config=small_config,
        schedule=make_schedule(steps, 1),
        guidance=denoise.Guidance(1.0),
        stages=(words,),
        negative=words,
        empty=words,
        portrait=portrait,
        reference=denoise.see(networks.reference_unet, portrait, words),
        seed=0,
    )
    hears = small_config.audio_projection
    windows = torch.randn(CLIP_FRAMES, hears.window, hears.layers, hears.channels)
    drawn = denoise.draw_clip(job, windows, denoise.first_motion(portrait), 0, 1)
    assert (drawn - portrait).pow(2).mean().sqrt() < CHANGE / 2


def test_one_that_had_the_table_goes_on_with_it_made_anew(small_config):
    denoiser = build(small_config).denoising_unet
    before = denoiser.conv_out.weight.clone()
    start_with_portrait(denoiser, small_config.scheduler, fresh=False)
    assert before.any() and torch.equal(denoiser.conv_out.weight, before)
    assert torch.equal(denoiser.reference_out.weight, shares(small_config.scheduler))


def test_a_denoiser_without_the_table_starts_as_it_is(small_config):
    networks = build(replace(small_config, unet=replace(small_config.unet, reference_out=0)))
    before = networks.denoising_unet.conv_out.weight.clone()
    start_with_portrait(networks.denoising_unet, small_config.scheduler)
    assert before.any() and torch.equal(networks.denoising_unet.conv_out.weight, before)
