"""What both stages descend: weighted v-prediction with zero terminal SNR, and the text a training sample sees."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..progressive import weights_at


# Shares of what a sample is told (DESIGN): Algorithm 2's blend, pure fine, pure coarse, the bare label.
BLEND, FINE, COARSE, LABEL = 0.5, 0.2, 0.15, 0.15
SHIFT = 2.0  # of the timesteps towards noise: their mean is 0.61 of all, not 0.5
DROP_ALL, DROP_ONE = 0.10, 0.05  # text, reference and audio together; each alone


def v_loss(
    scheduler: DDIMScheduler, predicted: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor, cells: Tensor
) -> Tensor:
    """Mean over samples of the squared error, weighted min(snr + 1, 5) / (snr + 1) per sample and `cells` [B, h, w] or
    [h, w] per cell. `timesteps` [B]; everything else [B, ..., h, w]."""  # fmt: skip
    shape = [-1] + [1] * (latents.ndim - 1)
    alpha = scheduler.alphas_cumprod.to(latents.device)[timesteps]
    target = alpha.sqrt().view(shape) * noise - (1 - alpha).sqrt().view(shape) * latents
    snr = alpha / (1 - alpha)
    weight = (snr + 1).clamp(max=5) / (snr + 1)
    cells = cells.reshape([len(cells), *shape[1:-2], *cells.shape[1:]]) if cells.ndim == 3 else cells
    error = ((predicted.float() - target).pow(2) * cells).flatten(1).mean(1)
    return (weight * error).mean()


def add_noise(scheduler: DDIMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    shape = [-1] + [1] * (latents.ndim - 1)
    alpha = scheduler.alphas_cumprod.to(latents.device)[timesteps].view(shape)
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


def told(
    coarse: Tensor, fine: Tensor, label: Tensor, pure: Tensor, timesteps: Tensor, total: int, split: tuple[float, ...],
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Text states [B, N, D] for each sample. Only a plan that is exactly its emotion's may be told by label alone."""
    kinds = torch.multinomial(
        torch.tensor([BLEND, FINE, COARSE, LABEL]), len(pure), replacement=True, generator=generator
    ).tolist()
    out = []
    for b, kind in enumerate(kinds):
        if kind == 0:
            u = 1 - (int(timesteps[b]) + 1) / total  # 0 at pure noise
            first, second = weights_at(u, 2, split, "paper")
            out.append(first * coarse[b] + second * fine[b])
        elif kind == 1 or not pure[b]:
            out.append(fine[b])
        else:
            out.append(coarse[b] if kind == 2 else label[b])
    return torch.stack(out)


def draw_timesteps(count: int, total: int, generator: torch.Generator) -> Tensor:
    """[count] of 0 .. `total` - 1, more of them the noisier: shifted by `SHIFT` (Esser et al. 2024, Eq. 23). What the
    conditions say decides a picture while it is still noise."""
    u = torch.rand(count, generator=generator, dtype=torch.float64)
    return (total * SHIFT * u / (1 + (SHIFT - 1) * u)).long().clamp(max=total - 1)


def draw_drop(generator: torch.Generator) -> tuple[bool, bool, bool]:
    """Whether (text, reference, audio) of this step are left out."""
    value = float(torch.rand(1, generator=generator))
    if value < DROP_ALL:
        return True, True, True
    which = int((value - DROP_ALL) / DROP_ONE)
    return which == 0, which == 1, which == 2


def change(before: Tensor, after: Tensor) -> Tensor:
    """[n, h, w], how much each cell differs between [n, C, h, w] and [n, C, h, w] (latents or pictures)."""
    return (after.float() - before.float()).abs().mean(1)


def telling_cells(changes: Tensor, strength: float = 2.0, most: float = 5.0) -> Tensor:
    """[..., h, w] weights with mean 1 for each picture: cells that change count more, up to `most` times (ours)."""
    weight = (1 + strength * changes / changes.mean((-2, -1), keepdim=True).clamp(min=1e-6)).clamp(max=most)
    return weight / weight.mean((-2, -1), keepdim=True)
