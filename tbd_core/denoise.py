"""Noise → the latents of one clip, guided from coarse to fine (paper section 3.4).

The loop is predict, guide, step, report, over diffusers' DDIM. The joint unconditional pass has the negative prompt,
no reference and no audio; motion frames stay (docs/decisions/0004).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .config import ModelConfig, SchedulerConfig
from .devices import place
from .errors import InputError, needed_packages
from .flow import OnStep, Schedule, StepReport
from .models.attention import Context, KVCache
from .offload import nothing
from .units import CLIP_FRAMES, MOTION_FRAMES


if TYPE_CHECKING:
    from .face_guide import FaceGuide
    from .models.build import Networks
    from .models.unet import UNet


NEARLY_NO_SIGNAL = 4.8973451890853435e-08  # the alpha product that stands for a zero terminal SNR, so that sigma ends


@dataclass(frozen=True)
class Guidance:
    """How hard the conditions pull. `text` and `audio` replace `scale` for their own part of the pull, at the price of
    one more pass each (ours); None: as hard as all together."""

    scale: float = 3.5
    text: float | None = None
    audio: float | None = None


def make_scheduler(config: SchedulerConfig) -> Any:
    """diffusers' DDIMScheduler."""
    with needed_packages():
        from diffusers import DDIMScheduler
    return DDIMScheduler(**asdict(config))


def timesteps(config: SchedulerConfig, steps: int) -> list[int]:
    """The S timesteps of one run, falling from the last of training. `steps` is at most `num_train_timesteps`."""
    scheduler = make_scheduler(config)
    scheduler.set_timesteps(steps)
    return scheduler.timesteps[:steps].tolist()  # trailing spacing rounds to one too many for some counts


def step(scheduler: Any, predicted: Tensor, timestep: int, following: int, latents: Tensor) -> Tensor:
    """From `timestep` to the one that is visited next, -1 after the last: `latents` less noisy."""
    # diffusers' DDIM steps down by T // S, which is not where the next pass begins where S does not divide T.
    scheduler.num_inference_steps = Fraction(scheduler.config.num_train_timesteps, timestep - following)
    return scheduler.step(predicted, timestep, latents).prev_sample


def trailing_sigmas(config: SchedulerConfig, steps: int, table: Tensor) -> list[float]:
    """The S + 1 noise levels of one run, the last one 0: those of a sampler's `table` [T] at `timesteps`. InputError
    when the table is another model's."""
    if len(table) != config.num_train_timesteps:
        raise InputError(
            f"the MODEL was given {len(table)} noise levels, trailing counts {config.num_train_timesteps}; choose "
            "another scheduler"
        )
    return [*table[timesteps(config, steps)].tolist(), 0.0]


def sigmas(config: SchedulerConfig) -> Tensor:
    """Noise per signal, sqrt((1 - a) / a) of every training timestep's alpha product a: [T] fp32, rising.

    What samplers over sigmas (k-diffusion's, ComfyUI's) ask of a model. Where the terminal SNR is zero the last one is
    4518.8 instead of infinite, as in ComfyUI."""
    kept = make_scheduler(config).alphas_cumprod.double().clamp(min=NEARLY_NO_SIGNAL)
    return ((1 - kept) / kept).sqrt().float()


@dataclass(frozen=True)
class Job:
    """What stays the same from clip to clip."""

    networks: Networks
    config: ModelConfig
    schedule: Schedule
    guidance: Guidance
    stages: tuple[Tensor, ...]  # K text states, each [1, N, D]
    negative: Tensor  # [1, N, D]
    empty: Tensor  # [1, N, D], ReferenceNet's own context: the empty prompt, with Hallo's weights the face's tokens
    portrait: Tensor  # latents [1, C, h, w]
    reference: dict[str, Tensor]  # ReferenceNet's features of the portrait
    seed: int
    face: FaceGuide | None = None  # with Hallo's weights
    free: Callable[[], None] = nothing  # called where a stage ends (`offload.arrange`)


def clip_seed(seed: int, clip: int) -> int:
    """A clip's own seed; neighbouring seeds share none."""
    return (seed * 1_000_003 + clip) % 2**63


def clip_noise(seed: int, clip: int, latents: Tensor) -> Tensor:
    """The noise of one clip: on the CPU, always for a whole clip, a function of (seed, clip) alone, so that a resumed
    run draws the same, and every device begins from the same."""
    generator = torch.Generator().manual_seed(clip_seed(seed, clip))
    return torch.randn((CLIP_FRAMES, *latents.shape[1:]), generator=generator)


def see(unet: UNet, latents: Tensor, empty: Tensor) -> dict[str, Tensor]:
    """Features of latents [B, C, h, w] that `unet`, a ReferenceNet, hands over: {layer: [B, h·w, C]}. `empty` [1, N, D]
    is its own context and lies where it computes."""
    _, dtype = place(unet)
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
    device, dtype = place(unet)
    scheduler = make_scheduler(job.config.scheduler)
    latents = clip_noise(job.seed, clip, job.portrait) * scheduler.init_noise_sigma
    seen = see(job.networks.reference_unet, before, job.empty)
    motion = {name: value.unsqueeze(0) for name, value in seen.items()}
    job.free()
    audio = job.networks.audioproj(windows.unsqueeze(0).to(device, dtype))
    cache = KVCache()
    often = Counter(job.schedule.weights)

    face = {True: job.face, False: job.face and job.face.unguided()}

    def context(text: Tensor, text_id, reference: bool, sound: bool) -> Context:
        told = face[reference]
        heard: dict[str, Any] = {"text": text} if told is None else told.hear(text)
        return Context(
            **heard,
            text_id=text_id if job.face is None or text_id is None else (text_id, reference),
            num_frames=CLIP_FRAMES,
            reference=job.reference if reference else None,
            motion=motion,
            audio=audio if sound else None,
            cache=cache,
        )

    def predict(noisy: Tensor, timestep: Tensor, ctx: Context) -> Tensor:
        return unet(noisy, timestep, ctx).float().cpu()

    try:
        visited = timesteps(job.config.scheduler, job.schedule.steps)
        for i, timestep in enumerate(visited):
            row = job.schedule.weights[i]
            text = torch.stack([w * states for w, states in zip(row, job.stages, strict=True)]).sum(0)
            text_id = row if often[row] > 1 else None
            noisy = latents.to(device, dtype).contiguous(memory_format=torch.channels_last)
            at = torch.tensor([timestep], device=device)

            # Predict, guide.
            scale, pull = job.guidance.scale, job.guidance
            full = predict(noisy, at, context(text, text_id, True, True))
            guided = full
            if scale != 1:
                without = predict(noisy, at, context(job.negative, "negative", False, False))
                guided = without + scale * (full - without)
            if pull.text is not None and pull.text != scale:
                no_text = predict(noisy, at, context(job.negative, "negative", True, True))
                guided = guided + (pull.text - scale) * (full - no_text)
            if pull.audio is not None and pull.audio != scale:
                no_audio = predict(noisy, at, context(text, text_id, True, False))
                guided = guided + (pull.audio - scale) * (full - no_audio)

            # Step, report.
            following = visited[i + 1] if i + 1 < len(visited) else -1
            latents = step(scheduler, guided, timestep, following, latents)
            if on_step:
                shown = latents.transpose(0, 1).unsqueeze(0)
                on_step(StepReport(clip, num_clips, i + 1, job.schedule.steps, shown))
    finally:
        cache.clear()
    job.free()
    return latents


def first_motion(portrait: Tensor) -> Tensor:
    """Before the first clip nothing moved: the portrait, M times. [1, C, h, w] → [M, C, h, w]."""
    return portrait.float().cpu().expand(MOTION_FRAMES, -1, -1, -1)
