"""The autoencoder of the bundled model: pictures ↔ latents, f8, four channels (ours; diffusers' AutoencoderKL).

Latents stay near a unit Gaussian (KL) and the decoder also learns from visibly noised ones, so that the small errors a
denoiser leaves do not decode to blur (lesson of the trial)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from .loop import Loss, Run


CROP = 64  # most steps see crops: four times the variety for the same work
FULL_FROM = 0.75  # then whole pictures
KL_WEIGHT = 2e-4
NOISE = 0.15  # of the latents' own spread


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def picture_loss(drawn: Tensor, truth: Tensor) -> Tensor:
    """L1 plus L1 of the image gradients, which keeps lines sharp."""
    return l1_loss(drawn, truth) + sum(l1_loss(a, b) for a, b in zip(edges(drawn), edges(truth), strict=True))


def vae_loss(run: Run, vae, pictures: Tensor, batch: int) -> Loss:
    """`pictures` uint8 [n, 3, H, W]."""

    def loss(generator: torch.Generator, progress: float) -> dict[str, Tensor]:
        full = progress >= FULL_FROM
        size, height = batch if not full else max(1, batch // 4), pictures.shape[2]
        chosen = pictures[torch.randint(len(pictures), (size,), generator=generator)]
        if not full:
            top, left = torch.randint(0, height - CROP + 1, (2,), generator=generator).tolist()
            chosen = chosen[:, :, top : top + CROP, left : left + CROP]
        truth = (chosen.to(run.device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with run.autocast():
            posterior = vae.encode(truth).latent_dist
            mean = posterior.mean.float()
            noise = torch.randn(mean.shape, generator=generator).to(run.device)
            noisy = mean + noise * (posterior.std.float() + NOISE * mean.detach().std())
            drawn = vae.decode(noisy).sample.float()
        kl = 0.5 * (mean**2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        picture = picture_loss(drawn, truth)
        return {"loss": picture + KL_WEIGHT * kl, "picture": picture.detach(), "kl": kl.detach()}

    return loss


@torch.no_grad()
def encode(run: Run, vae, pictures: Tensor, batch: int = 32) -> Tensor:
    """uint8 [n, 3, H, W] → latents fp16 [n, 4, h, w], not yet scaled."""
    out = []
    for chunk in pictures.split(batch):
        x = (chunk.to(run.device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with run.autocast():
            out.append(vae.encode(x).latent_dist.mean.half().cpu())
    return torch.cat(out)


@torch.no_grad()
def psnr(run: Run, vae, pictures: Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of encode → decode, in the inference precision (fp32)."""
    total = []
    for chunk in pictures.split(16):
        x = (chunk.to(run.device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        drawn = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        mse = ((drawn - x) / 2).pow(2).flatten(1).mean(1)
        total.append(-10 * torch.log10(mse))
    return float(torch.cat(total).mean())
