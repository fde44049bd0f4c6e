"""The two stages of the paper (section 4.1): frames with reference and text, then clips with audio and motion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import ModelConfig
from ..denoise import make_scheduler
from ..models.attention import Context
from ..units import CLIP_FRAMES, MOTION_FRAMES
from .loop import Loss, Run
from .objective import add_noise, draw_drop, telling_cells, told, v_loss


FIRST_CLIP = 0.3  # share of clips that begin a video: the motion frames are the portrait twice


@dataclass(frozen=True)
class Texts:
    """Frozen text states of all plans: [n, N, D] each, and the empty prompt's [1, N, D]."""

    coarse: Tensor
    fine: Tensor
    label: Tensor
    empty: Tensor
    pure: Tensor

    def pick(self, rows: Tensor, timesteps: Tensor, total: int, split, generator) -> Tensor:
        coarse, fine, label = (t[rows].float() for t in (self.coarse, self.fine, self.label))
        return told(coarse, fine, label, self.pure[rows], timesteps, total, split, generator)


def stage1_loss(
    run: Run, config: ModelConfig, reference, denoiser, portraits: Tensor, faces: Tensor, texts: Texts, batch: int
) -> Loss:
    """Latents, scaled: `portraits` [people, C, h, w], `faces` [people, expressions, C, h, w]."""
    scheduler = make_scheduler(config.scheduler)
    total, per = config.scheduler.num_train_timesteps, faces.shape[1]
    cells = telling_cells(portraits.repeat_interleave(per, dim=0), faces.flatten(0, 1)).to(run.device)
    empty = texts.empty.float().to(run.device)

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(faces.shape[0] * per, (batch,), generator=generator)
        latents = faces.flatten(0, 1)[rows].float()
        timesteps = torch.randint(total, (batch,), generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        drop_text, drop_reference, _ = draw_drop(generator)
        text = texts.pick(rows, timesteps, total, config.defaults.split, generator).to(run.device)
        latents, noise, timesteps = (x.to(run.device) for x in (latents, noise, timesteps))
        noisy = add_noise(scheduler, latents, noise, timesteps).contiguous(memory_format=torch.channels_last)
        portrait = portraits[rows // per].float().to(run.device).contiguous(memory_format=torch.channels_last)
        with run.autocast():
            seen = None if drop_reference else reference.features(portrait, empty.expand(batch, -1, -1))
            text = empty.expand(batch, -1, -1) if drop_text else text
            predicted = denoiser(noisy, timesteps, Context(text=text, reference=seen))
        return {"loss": v_loss(scheduler, predicted, latents, noise, timesteps, cells)}

    return loss


def stage2_loss(
    run: Run, config: ModelConfig, reference, denoiser, projection, portraits: Tensor, clips: Tensor, windows: Tensor,
    texts: Texts, batch: int,
) -> Loss:  # fmt: skip
    """Latents, scaled: `portraits` [n, C, h, w], `clips` [n, M + F, C, h, w]; `windows` [n, F, window, L, C]."""
    scheduler = make_scheduler(config.scheduler)
    total = config.scheduler.num_train_timesteps
    cells = telling_cells(clips[:, :-1].flatten(0, 1), clips[:, 1:].flatten(0, 1)).to(run.device)
    empty = texts.empty.float().to(run.device)

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(clips), (batch,), generator=generator)
        latents, before = clips[rows, MOTION_FRAMES:].float(), clips[rows, :MOTION_FRAMES].float()
        portrait = portraits[rows].float()
        first = torch.rand(batch, generator=generator) < FIRST_CLIP
        before[first] = portrait[first].unsqueeze(1).expand(-1, MOTION_FRAMES, -1, -1, -1)
        timesteps = torch.randint(total, (batch,), generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        drop_text, drop_reference, drop_audio = draw_drop(generator)
        text = texts.pick(rows, timesteps, total, config.defaults.split, generator).to(run.device)
        latents, noise, timesteps = (x.to(run.device) for x in (latents, noise, timesteps))
        # torch 2.13's channels-last bf16 GroupNorm backward crashes on the CPU when its input needs no gradient.
        noisy = add_noise(scheduler, latents, noise, timesteps).requires_grad_()
        shown = torch.cat([portrait.unsqueeze(1), before], dim=1).to(run.device)  # [B, 1 + M, C, h, w]
        with run.autocast():
            seen = reference.features(
                shown.flatten(0, 1).contiguous(memory_format=torch.channels_last),
                empty.expand(batch * (1 + MOTION_FRAMES), -1, -1),
            )
            seen = {k: v.unflatten(0, (batch, -1)) for k, v in seen.items()}
            predicted = denoiser(
                noisy.flatten(0, 1).contiguous(memory_format=torch.channels_last),
                timesteps,
                Context(
                    text=empty.expand(batch, -1, -1) if drop_text else text,
                    num_frames=CLIP_FRAMES,
                    reference=None if drop_reference else {k: v[:, 0] for k, v in seen.items()},
                    motion={k: v[:, 1:] for k, v in seen.items()},
                    audio=None if drop_audio else projection(windows[rows].float().to(run.device)),
                ),
            )
        return {"loss": v_loss(scheduler, predicted.unflatten(0, (batch, -1)), latents, noise, timesteps, cells)}

    return loss
