"""Where the denoiser begins: as one that draws the portrait again, so that training only has to add what changes (ours:
docs/decisions/0023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import SchedulerConfig
from ..denoise import make_scheduler
from ..models.unet import UNet


CHANGE = 0.1  # of the latents' own spread: how far a cell is taken to be from the portrait, before anything is known


@torch.no_grad()
def start_with_portrait(denoiser: UNet, config: SchedulerConfig, fresh: bool = True) -> None:
    """Fill `denoiser`'s table of what is given as it is, and, where it never had one (`fresh`), let its layers add
    nothing to it at first."""
    if denoiser.reference_out is None or denoiser.conv_out is None:
        return
    denoiser.reference_out.weight.copy_(shares(config))
    if fresh:
        nn.init.zeros_(denoiser.conv_out.weight)
        nn.init.zeros_(denoiser.conv_out.bias)


def shares(config: SchedulerConfig) -> Tensor:
    """[T, 2]: v as a sum of the portrait p and the noisy latents z, for latents that are p and a little more.

    With x = p + e, e of spread s, and z = √α x + √(1-α) noise, the mean of x given z is p + c (z - √α p) where
    c = √α s² / (α s² + 1 - α), and v = (√α z - x) / √(1-α).
    """
    alpha = make_scheduler(config).alphas_cumprod.double()
    spread = alpha * CHANGE**2 + 1 - alpha
    of_portrait = -(1 - alpha).sqrt() / spread
    of_noisy = (alpha * (1 - alpha)).sqrt() * (1 - CHANGE**2) / spread
    return torch.stack([of_portrait, of_noisy], dim=1).float()
