"""The two stages of training the guided networks (paper §3.4, §4.1; what differs is said).

Stage 1 learns frames: ReferenceNet, the denoiser, and already its audio attention on single frames (*ours*: the paper
trains it in stage 2 alone; a clip shows one person and one expression, single frames show a new mouth with each, and
a mouth that the sound explains is drawn sharper). Stage 2 learns clips: only audio and motion, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import ModelConfig
from ..denoise import make_scheduler
from ..models.attention import Context
from ..models.audio_projection import AudioProjection
from ..models.unet import UNet
from ..units import CLIP_FRAMES, MOTION_FRAMES
from .loop import Loss, Run
from .objective import add_noise, change, draw_drop, draw_timesteps, telling_cells, told, v_loss


TELLING = 1.0, 4.0  # telling_cells' in stage 1: a unit on one side moves half a dozen cells, the others are to keep
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


@dataclass(frozen=True)
class Guided:
    """The networks that both stages run."""

    reference: UNet
    denoiser: UNet
    projection: AudioProjection


def stage1_loss(
    run: Run, config: ModelConfig, nets: Guided, portraits: Tensor, faces: Tensor, blink: Tensor, windows: Tensor,
    texts: Texts, batch: int,
) -> Loss:  # fmt: skip
    """Latents, scaled: `portraits` [people, C, h, w], `faces` [people, E, C, h, w]; `blink` [people, E] whether a face
    blinks; `windows` [people, E, window, L, C'] is what each face hears. A step shows `batch` faces, all E of each
    person in it, so that ReferenceNet runs once for E of them."""
    scheduler = make_scheduler(config.scheduler)
    total, per = config.scheduler.num_train_timesteps, faces.shape[1]
    empty = texts.empty.float().to(run.device)

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        people = torch.randint(len(faces), (max(1, batch // per),), generator=generator)
        rows = (people.unsqueeze(1) * per + torch.arange(per)).flatten()
        latents = faces[people].flatten(0, 1).float()
        # For each face by itself: one eyebrow alone moves few cells, and in the mean of all faces the mouth's count.
        rest = portraits[people].repeat_interleave(per, dim=0)
        cells = telling_cells(change(rest, latents), *TELLING)
        cells[blink[people].flatten() > 0] = 1  # nothing tells of a blink
        cells = cells.to(run.device)
        timesteps = draw_timesteps(len(rows), total, generator)
        noise = torch.randn(latents.shape, generator=generator)
        drop_text, drop_reference, drop_audio = draw_drop(generator)
        text = texts.pick(rows, timesteps, total, config.defaults.split, generator).to(run.device)
        latents, noise, timesteps = (x.to(run.device) for x in (latents, noise, timesteps))
        # torch 2.13's channels-last bf16 GroupNorm backward crashes on the CPU when its input needs no gradient.
        noisy = add_noise(scheduler, latents, noise, timesteps).requires_grad_()
        with run.autocast():
            seen = None
            if not drop_reference:
                portrait = portraits[people].float().to(run.device).contiguous(memory_format=torch.channels_last)
                seen = nets.reference.features(portrait, empty.expand(len(people), -1, -1))
                seen = {name: x.repeat_interleave(per, dim=0) for name, x in seen.items()}
            heard = windows[people].flatten(0, 1).unsqueeze(1).float().to(run.device)
            predicted = nets.denoiser(
                noisy.contiguous(memory_format=torch.channels_last),
                timesteps,
                Context(
                    text=empty.expand(len(rows), -1, -1) if drop_text else text,
                    reference=seen,
                    audio=None if drop_audio else nets.projection(heard),
                ),
            )
        return {"loss": v_loss(scheduler, predicted, latents, noise, timesteps, cells)}

    return loss


def stage2_loss(
    run: Run, config: ModelConfig, nets: Guided, portraits: Tensor, clips: Tensor, windows: Tensor, texts: Texts,
    batch: int,
) -> Loss:  # fmt: skip
    """Latents, scaled: `portraits` [n, C, h, w], `clips` [n, M + F, C, h, w]; `windows` [n, F, window, L, C']."""
    scheduler = make_scheduler(config.scheduler)
    total = config.scheduler.num_train_timesteps
    cells = telling_cells(change(clips[:, :-1].flatten(0, 1), clips[:, 1:].flatten(0, 1)).mean(0)).to(run.device)
    empty = texts.empty.float().to(run.device)

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(clips), (batch,), generator=generator)
        latents, before = clips[rows, MOTION_FRAMES:].float(), clips[rows, :MOTION_FRAMES].float()
        portrait = portraits[rows].float()
        first = torch.rand(batch, generator=generator) < FIRST_CLIP
        before[first] = portrait[first].unsqueeze(1).expand(-1, MOTION_FRAMES, -1, -1, -1)
        timesteps = draw_timesteps(batch, total, generator)
        noise = torch.randn(latents.shape, generator=generator)
        drop_text, drop_reference, drop_audio = draw_drop(generator)
        text = texts.pick(rows, timesteps, total, config.defaults.split, generator).to(run.device)
        latents, noise, timesteps = (x.to(run.device) for x in (latents, noise, timesteps))
        noisy = add_noise(scheduler, latents, noise, timesteps).requires_grad_()  # as in stage 1
        shown = torch.cat([portrait.unsqueeze(1), before], dim=1).to(run.device)  # [B, 1 + M, C, h, w]
        with run.autocast():
            seen = nets.reference.features(
                shown.flatten(0, 1).contiguous(memory_format=torch.channels_last),
                empty.expand(batch * (1 + MOTION_FRAMES), -1, -1),
            )
            seen = {k: v.unflatten(0, (batch, -1)) for k, v in seen.items()}
            predicted = nets.denoiser(
                noisy.flatten(0, 1).contiguous(memory_format=torch.channels_last),
                timesteps,
                Context(
                    text=empty.expand(batch, -1, -1) if drop_text else text,
                    num_frames=CLIP_FRAMES,
                    reference=None if drop_reference else {k: v[:, 0] for k, v in seen.items()},
                    motion={k: v[:, 1:] for k, v in seen.items()},
                    audio=None if drop_audio else nets.projection(windows[rows].float().to(run.device)),
                ),
            )
        return {"loss": v_loss(scheduler, predicted.unflatten(0, (batch, -1)), latents, noise, timesteps, cells)}

    return loss
