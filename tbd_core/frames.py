"""Latents [F, C, h, w] → pictures uint8 [F, H, W, 3]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import InputError
from .units import LATENT_SCALE


if TYPE_CHECKING:
    from numpy import ndarray

DECODED_PIXELS = 14 * 128 * 128  # at once: bounded memory whatever the size


@torch.inference_mode()
def decode(vae: Any, latents: Tensor) -> ndarray:
    """`vae` is diffusers' AutoencoderKL; `latents` are scaled, as the denoiser's. InputError when they overflowed."""
    parameter = next(vae.parameters())
    pixels = latents.shape[2] * latents.shape[3] * LATENT_SCALE**2
    pictures = []
    for chunk in latents.split(max(1, DECODED_PIXELS // pixels)):
        scaled = (chunk / vae.config.scaling_factor).to(parameter.device, parameter.dtype)
        drawn = vae.decode(scaled.contiguous(memory_format=torch.channels_last)).sample.float()
        if not torch.isfinite(drawn).all():
            raise InputError(f"the pictures are not numbers in {parameter.dtype}; try --dtype fp32 or bf16")
        bytes_ = ((drawn.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        pictures.append(bytes_.permute(0, 2, 3, 1).cpu())
    return torch.cat(pictures).numpy()


def kept(vae: Any, latents: Tensor, pixels: Tensor) -> float:
    """PSNR in dB of a picture's `latents` [1, C, h, w], decoded, against its `pixels` [1, 3, H, W] in [-1, 1]."""
    drawn = torch.from_numpy(decode(vae, latents)[0]).permute(2, 0, 1) / 127.5 - 1
    error = ((drawn - pixels[0].float().cpu()) / 2).square().mean()
    return float(-10 * error.clamp(min=1e-9).log10())
