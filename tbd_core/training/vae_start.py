"""Where the autoencoder begins: as one that keeps each cell's colour, so that training only has to add detail (ours).

An AutoencoderKL with default weights spends its first thousand steps on the way colours take through its levels and
their group norms (measured for the bundled model's: 20.9 dB after two minutes, 24.4 dB with this start; an 8 × 8
average alone has 20.5 dB). Here three channels carry red, green and blue through every level, averaged on the way
down (a folded square's pixels first) and blurred on the way up; every group of every norm holds two constant channels,
+A and -A, so that a norm is a fixed scale at first; the residual branches start at zero. All of it is only the start:
every weight learns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


ANCHOR = 2.0  # of the constant channels
COLOURS = 3
SHIFT = 3.0  # where SiLU is nearly straight
SILU, SLOPE = 2.8577, 1.0881  # its value and slope there
LOG_VARIANCE = -6.0  # of the posterior: at its usual 0 nothing but noise would reach the decoder for long


@torch.no_grad()
def start_with_colours(vae, groups: int) -> None:
    """Set `vae`, a fresh AutoencoderKL with `groups` norm groups, to keep colours and nothing else. ValueError when a
    group has no room for the colours and its two constants."""
    smallest = min(vae.config.block_out_channels) // groups
    if smallest < COLOURS + 2:
        raise ValueError(f"{smallest} channels a group; {COLOURS + 2} are needed; take fewer groups than {groups}")
    average, blur = torch.zeros(3, 3), torch.tensor([1.0, 2.0, 1.0])
    average[:2, :2] = 0.25  # diffusers pads right and below before its strided convolution
    blur = torch.outer(blur, blur) / 16
    centre = torch.zeros(3, 3)
    centre[1, 1] = 1.0

    for module in vae.modules():
        if hasattr(module, "conv2") and hasattr(module, "norm2"):  # a residual block
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
            if module.conv_shortcut is not None:
                _carry(module.conv_shortcut, torch.ones(1, 1), groups)
        elif hasattr(module, "to_out"):
            nn.init.zeros_(module.to_out[0].weight)
            nn.init.zeros_(module.to_out[0].bias)

    encoder, decoder = vae.encoder, vae.decoder
    pixels = vae.config.in_channels // COLOURS  # of a folded square; its channels are red ones, green ones, blue ones
    _carry(encoder.conv_in, centre, groups, pixels)
    for block in encoder.down_blocks:
        for layer in block.downsamplers or ():
            _carry(layer.conv, average, groups)
    _leave(encoder.conv_norm_out, encoder.conv_out, groups)

    _carry(decoder.conv_in, centre, groups)
    for block in decoder.up_blocks:
        for layer in block.upsamplers or ():
            _carry(layer.conv, blur, groups)
    _leave(decoder.conv_norm_out, decoder.conv_out, groups, pixels, others=0.3)

    for conv in (vae.quant_conv, vae.post_quant_conv):
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
        latents = vae.config.latent_channels
        conv.weight[:latents, :latents, 0, 0] = torch.eye(latents)
    vae.quant_conv.bias[latents:] = LOG_VARIANCE


def _carry(conv: Any, kernel: Tensor, groups: int, pixels: int = 1) -> None:
    """Channels 0-2 in (`pixels` of each) → channels 0-2 out through `kernel`; the last two channels of each group are
    constants."""
    conv.weight[:COLOURS] = 0
    conv.bias[:COLOURS] = 0
    for c in range(COLOURS):
        conv.weight[c, c * pixels : (c + 1) * pixels] = kernel / pixels
    size = conv.out_channels // groups
    for last in range(size - 1, conv.out_channels, size):
        conv.weight[last - 1 : last + 1] = 0
        conv.bias[last - 1], conv.bias[last] = ANCHOR, -ANCHOR


def _leave(norm: Any, conv: Any, groups: int, pixels: int = 1, others: float = 0.0) -> None:
    """norm → SiLU → conv gives the colours back as they came, to all `pixels` of a square. `others`: what is left of
    the weights of other channels, so that a square's pixels can differ at once."""
    size = norm.num_channels // groups
    scale = ANCHOR * (2 / size) ** 0.5  # what the constants make of the norm's standard deviation
    norm.bias[:COLOURS] = SHIFT
    conv.weight[: COLOURS * pixels] *= others
    conv.weight[: COLOURS * pixels, :COLOURS] = 0
    for c in range(COLOURS):
        conv.weight[c * pixels : (c + 1) * pixels, c, 1, 1] = scale / SLOPE
        conv.bias[c * pixels : (c + 1) * pixels] = -SILU * scale / SLOPE
