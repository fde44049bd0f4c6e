"""Sizes → how many numbers a network holds while it works, its weights not counted (ours; no torch is needed).

What stays through a clip is counted: ReferenceNet's features, kept keys and values. What comes and goes inside a
network grows with its widest level; how many numbers there are for each of that level's, the constants below say,
counted on networks without memory (tests/core/test_estimate.py counts again). Attention is fused: no N x N scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..config import ModelConfig, UNetConfig
from ..units import CLIP_FRAMES, LATENT_SCALE, MOTION_FRAMES, TEXT_TOKENS


# At once in the denoiser and in ReferenceNet, for each number of their widest level's tokens [F, h·w, C].
DRAWN, SEEN = 30, 26
DECODED = ((1, 3), (0, 5))  # levels of the autoencoder, and its numbers at once for each channel there of each pixel
BRANCHES = 3  # of hierarchical audio attention


def blocks(config: UNetConfig) -> Iterator[tuple[int, int, int]]:
    """(level, width, width inside its audio attention) of each of the 16 transformer blocks."""
    widths = config.block_out_channels
    back = widths[::-1]
    for i in range(3):
        yield i, widths[i], widths[max(i - 1, 0)]
        yield i, widths[i], widths[i]
    yield 3, widths[3], widths[3]
    for i in range(1, 4):
        for _ in range(3):
            yield 3 - i, back[i], back[min(i + 1, 3)]


def tokens(size: tuple[int, int], level: int) -> int:
    """h·w at a level; a stride of 2 rounds up."""
    return math.prod(-(-(side // LATENT_SCALE) // 2**level) for side in size)


def features(config: UNetConfig, size: tuple[int, int]) -> int:
    """What ReferenceNet hands over of one picture."""
    return tokens(size, 0) * sum(config.entries.values()) + asked(config, size)


def asked(config: UNetConfig, size: tuple[int, int]) -> int:
    """What of that attention asks: the rest has no keys and values."""
    return sum(tokens(size, level) * width for level, width, _ in blocks(config))


def widest(config: UNetConfig, size: tuple[int, int]) -> int:
    """h·w·C of the level that is widest."""
    return max(tokens(size, level) * width for level, width in enumerate(config.block_out_channels))


def seeing(config: ModelConfig, size: tuple[int, int]) -> int:
    """ReferenceNet at work on the motion frames, the portrait's features beside it."""
    return (1 + MOTION_FRAMES) * features(config.unet, size) + SEEN * MOTION_FRAMES * widest(config.unet, size)


def kept(config: ModelConfig, size: tuple[int, int], texts: int) -> int:
    """Held through a clip: features of portrait and motion frames; keys and values of portrait, sound and texts."""
    unet = config.unet
    seen = features(unet, size)
    hierarchical = unet.audio == "hierarchical"
    heard = sum((BRANCHES * inner if hierarchical else width) for _, width, inner in blocks(unet))
    heard *= 0 if unet.audio == "none" else CLIP_FRAMES * config.audio_projection.tokens
    words = texts * TEXT_TOKENS * sum(width for _, width, _ in blocks(unet)) * (2 if unet.context == "both" else 1)
    return (1 + MOTION_FRAMES) * seen + 2 * (asked(unet, size) + heard + words)


def drawing(config: ModelConfig, size: tuple[int, int], texts: int) -> int:
    """The denoiser at work on a clip, with what is held."""
    return kept(config, size, texts) + DRAWN * CLIP_FRAMES * widest(config.unet, size)


def decoding(config: ModelConfig, size: tuple[int, int]) -> int:
    """The autoencoder at work on as many pictures as are decoded at once (`models/decoding.py`)."""
    from .decoding import DECODED_PIXELS

    pictures = min(CLIP_FRAMES, max(1, DECODED_PIXELS // math.prod(size)))
    fold = round((config.vae.get("in_channels", 3) / 3) ** 0.5)
    widths = config.vae["block_out_channels"]
    most = max(times * widths[level] for level, times in DECODED if level < len(widths))
    return pictures * math.prod(size) // fold**2 * most + features(config.unet, size)
