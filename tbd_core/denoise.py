"""Noise → the latents of one clip, guided from coarse to fine (paper section 3.4).

The loop is predict, guide, step, report, over diffusers' DDIM. The joint unconditional pass has the negative prompt,
no reference and no audio; motion frames stay (docs/decisions/0004).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .config import ModelConfig, SchedulerConfig
from .flow import OnStep, Schedule, StepReport
from .models.attention import Context, KVCache
from .units import CLIP_FRAMES, MOTION_FRAMES


if TYPE_CHECKING:
    from .models.build import Networks


@dataclass(frozen=True)
class Guidance:
    """How hard the conditions pull. `text` and `audio` replace `scale` for their own part of the pull, at the price of
    one more pass each (ours); None: as hard as all together."""

    scale: float = 3.5
    text: float | None = None
    audio: float | None = None


def make_scheduler(config: SchedulerConfig) -> Any:
    """diffusers' DDIMScheduler."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(**asdict(config))


@dataclass(frozen=True)
class Job:
    """What stays the same from clip to clip."""

    networks: Networks
    config: ModelConfig
    schedule: Schedule
    guidance: Guidance
    stages: tuple[Tensor, ...]  # K text states, each [1, N, D]
    negative: Tensor  # [1, N, D]
    empty: Tensor  # [1, N, D], ReferenceNet's own context
    portrait: Tensor  # latents [1, C, h, w]
    reference: dict[str, Tensor]  # ReferenceNet's features of the portrait
    seed: int


def clip_noise(seed: int, clip: int, latents: Tensor) -> Tensor:
    """The noise of one clip: on the CPU, always for a whole clip, a function of (seed, clip) alone, so that a resumed
    run draws the same, and every device begins from the same."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + clip) % 2**63)
    return torch.randn((CLIP_FRAMES, *latents.shape[1:]), generator=generator)


def see(networks: Networks, latents: Tensor, empty: Tensor) -> dict[str, Tensor]:
    """ReferenceNet's features of latents [B, C, h, w]."""
    unet = networks.reference_unet
    dtype = next(unet.parameters()).dtype
    latents = latents.to(empty.device, dtype).contiguous(memory_format=torch.channels_last)
    return unet.features(latents, empty.expand(len(latents), -1, -1))


@torch.inference_mode()
def draw_clip(
    job: Job, windows: Tensor, before: Tensor, clip: int, num_clips: int, on_step: OnStep | None = None
) -> Tensor:
    """One clip's latents [F, C, h, w], fp32 on the CPU.

    `windows` [F, window, L, C] are the clip's audio features, `before` [M, C, h, w] the last latents of the clip before
    (of the first clip: the portrait, M times). `on_step` may raise to interrupt.
    """
    unet = job.networks.denoising_unet
    parameter = next(unet.parameters())
    device, dtype = parameter.device, parameter.dtype
    scheduler = make_scheduler(job.config.scheduler)
    scheduler.set_timesteps(job.schedule.steps)
    timesteps = scheduler.timesteps[: job.schedule.steps]  # trailing spacing rounds to one too many for some counts
    latents = clip_noise(job.seed, clip, job.portrait) * scheduler.init_noise_sigma
    motion = {name: value.unsqueeze(0) for name, value in see(job.networks, before, job.empty).items()}
    audio = job.networks.audioproj(windows.unsqueeze(0).to(device, dtype))
    cache = KVCache()
    often = Counter(job.schedule.weights)

    def context(text: Tensor, text_id, reference: bool, sound: bool) -> Context:
        return Context(
            text=text,
            text_id=text_id,
            num_frames=CLIP_FRAMES,
            reference=job.reference if reference else None,
            motion=motion,
            audio=audio if sound else None,
            cache=cache,
        )

    def predict(noisy: Tensor, timestep: Tensor, ctx: Context) -> Tensor:
        return unet(noisy, timestep, ctx).float().cpu()

    try:
        for i, timestep in enumerate(timesteps):
            row = job.schedule.weights[i]
            text = torch.stack([w * states for w, states in zip(row, job.stages, strict=True)]).sum(0)
            text_id = row if often[row] > 1 else None
            noisy = latents.to(device, dtype).contiguous(memory_format=torch.channels_last)
            at = timestep.to(device).reshape(1)

            # Predict, guide.
            scale, pull = job.guidance.scale, job.guidance
            full = predict(noisy, at, context(text, text_id, True, True))
            guided = full
            if scale != 1:
                without = predict(noisy, at, context(job.negative, "negative", False, False))
                guided = without + scale * (full - without)
            if pull.text is not None and pull.text != scale:
                untold = predict(noisy, at, context(job.negative, "negative", True, True))
                guided = guided + (pull.text - scale) * (full - untold)
            if pull.audio is not None and pull.audio != scale:
                unheard = predict(noisy, at, context(text, text_id, True, False))
                guided = guided + (pull.audio - scale) * (full - unheard)

            # Step, report.
            latents = scheduler.step(guided, timestep, latents).prev_sample
            if on_step:
                shown = latents.transpose(0, 1).unsqueeze(0)
                on_step(StepReport(clip, num_clips, i + 1, job.schedule.steps, shown))
    finally:
        cache.clear()
    return latents


def first_motion(portrait: Tensor) -> Tensor:
    """Before the first clip nothing moved: the portrait, M times. [1, C, h, w] → [M, C, h, w]."""
    return portrait.float().cpu().expand(MOTION_FRAMES, -1, -1, -1)
