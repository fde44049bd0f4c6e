"""Latents → pictures in bounded memory, whatever their size and number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..units import LATENT_SCALE


DECODED_PIXELS = 14 * 128 * 128  # at once


def decode_parts(
    vae: Any, latents: Tensor, prepare: Callable[[Tensor], Tensor], way_out: str, pixels: int = DECODED_PIXELS
) -> Iterator[Tensor]:
    """The pictures [f, 3, H, W] in [-1, 1] of `latents` [F, C, h, w], at most `pixels` at once, but at least one.

    vae      diffusers' AutoencoderKL
    prepare  latents of one part → as the autoencoder wants them: scale, place, type. It may raise to interrupt
    way_out  what to do when the pictures overflowed: then InputError
    """
    at_once = max(1, pixels // (latents.shape[2] * latents.shape[3] * LATENT_SCALE**2))
    for part in latents.split(at_once):
        pictures = vae.decode(prepare(part).contiguous(memory_format=torch.channels_last)).sample
        if not torch.isfinite(pictures).all():
            raise InputError(f"the pictures are not numbers in {pictures.dtype}; {way_out}")
        yield pictures
