"""Latents [F, C, h, w] → pictures uint8 [F, H, W, 3]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .devices import place
from .models.decoding import decode_parts


if TYPE_CHECKING:
    from numpy import ndarray


@torch.inference_mode()
def decode(vae: Any, latents: Tensor) -> ndarray:
    """`vae` is diffusers' AutoencoderKL; `latents` are scaled, as the denoiser's. InputError when they overflowed."""
    device, dtype = place(vae)

    def prepare(part: Tensor) -> Tensor:
        return (part / vae.config.scaling_factor).to(device, dtype)

    pictures = []
    for drawn in decode_parts(vae, latents, prepare, "try --dtype fp32 or bf16"):
        bytes_ = ((drawn.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        pictures.append(bytes_.permute(0, 2, 3, 1).cpu())
    return torch.cat(pictures).numpy()


def kept(vae: Any, latents: Tensor, pixels: Tensor) -> float:
    """PSNR in dB of a picture's `latents` [1, C, h, w], decoded, against its `pixels` [1, 3, H, W] in [-1, 1]."""
    drawn = torch.from_numpy(decode(vae, latents)[0]).permute(2, 0, 1) / 127.5 - 1
    error = ((drawn - pixels[0].float().cpu()) / 2).square().mean()
    return float(-10 * error.clamp(min=1e-9).log10())
