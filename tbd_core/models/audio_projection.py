"""Small projections into tokens: audio windows, and the face embedding of Hallo's weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import relu

from ..config import AudioProjectionConfig


class AudioProjection(nn.Module):
    """Windows of wav2vec2 layer outputs [B, F, window, L, C] → audio tokens [B, F, N, D] (Hallo's AudioProj)."""

    def __init__(self, config: AudioProjectionConfig, ops: Any = nn):
        super().__init__()
        self.tokens, self.width = config.tokens, config.width
        self.proj1 = ops.Linear(config.window * config.layers * config.channels, config.intermediate)
        self.proj2 = ops.Linear(config.intermediate, config.intermediate)
        self.proj3 = ops.Linear(config.intermediate, config.tokens * config.width)
        self.norm = ops.LayerNorm(config.width)

    def forward(self, windows: Tensor) -> Tensor:
        hidden = relu(self.proj1(windows.flatten(2)))
        hidden = relu(self.proj2(hidden))
        return self.norm(self.proj3(hidden).unflatten(2, (self.tokens, self.width)))


class ImageProjection(nn.Module):
    """Face embedding [B, D'] → face tokens [B, N, D] (Hallo's ImageProj; only its weights use it)."""

    def __init__(self, embedding: int = 512, tokens: int = 4, width: int = 768, ops: Any = nn):
        super().__init__()
        self.tokens, self.width = tokens, width
        self.proj = ops.Linear(embedding, tokens * width)
        self.norm = ops.LayerNorm(width)

    def forward(self, embedding: Tensor) -> Tensor:
        return self.norm(self.proj(embedding).unflatten(1, (self.tokens, self.width)))
