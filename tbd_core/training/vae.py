"""The autoencoder of the bundled model: pictures ↔ latents, f8, four channels (ours; diffusers' AutoencoderKL, folded).

A weak KL keeps latents bounded, and the decoder also learns from noised ones, so that the small errors a denoiser
leaves do not decode to blur. `vae_start` says where it begins."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from .loop import Loss, Run


KL_WEIGHT = 1e-5
NOISE = 0.03  # of the latents' own spread


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def picture_loss(drawn: Tensor, truth: Tensor) -> Tensor:
    """L1, L1 of the image gradients, which keeps lines sharp, and squares, which keep colours."""
    lines = sum(l1_loss(a, b) for a, b in zip(edges(drawn), edges(truth), strict=True))
    return l1_loss(drawn, truth) + lines + 4 * mse_loss(drawn, truth)


def vae_loss(run: Run, vae, pictures: Tensor, batch: int) -> Loss:
    """`pictures` uint8 [n, 3, H, W]."""

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        # Whole pictures: on crops the group norms would see other statistics than at inference.
        chosen = pictures[torch.randint(len(pictures), (batch,), generator=generator)]
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
def psnr(run: Run, vae, pictures: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of encode → decode for each picture, in fp32."""
    total = []
    for chunk in pictures.split(16):
        x = (chunk.to(run.device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        drawn = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        mse = ((drawn - x) / 2).pow(2).flatten(1).mean(1)
        total.append(-10 * torch.log10(mse))
    return torch.cat(total).cpu()
