"""Frames look at each other: AnimateDiff's temporal transformer, with the motion frames put in front (Hallo).

Unlike diffusers' AnimateDiffTransformer3D its GroupNorm runs per frame, as AnimateDiff's own does.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .attention import Attention, Context, FeedForward


MAX_FRAMES = 32  # AnimateDiff's positions


class PositionalEncoding(nn.Module):
    """Sinusoids, sin at even and cos at odd channels; a stored buffer, as in AnimateDiff's weights."""

    pe: Tensor  # [1, length, dim]

    def __init__(self, dim: int, length: int = MAX_FRAMES):
        super().__init__()
        position = torch.arange(length).unsqueeze(1)
        frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
        table = torch.stack([torch.sin(position * frequency), torch.cos(position * frequency)], dim=2)
        self.register_buffer("pe", table.flatten(1).unsqueeze(0))

    def forward(self, hidden: Tensor) -> Tensor:
        # The device too: whoever moves only what has parameters leaves this table behind.
        return hidden + self.pe[:, : hidden.shape[1]].to(hidden)


class TemporalAttention(Attention):
    def __init__(self, dim: int, heads: int, ops: Any = nn, attend=None):
        super().__init__(dim, heads, None, ops, attend)
        self.pos_encoder = PositionalEncoding(dim)

    def forward(self, hidden: Tensor, kv=None) -> Tensor:
        return super().forward(self.pos_encoder(hidden), kv)


class TemporalBlock(nn.Module):
    def __init__(self, dim: int, heads: int, ops: Any = nn, attend=None):
        super().__init__()
        self.attention_blocks = nn.ModuleList([TemporalAttention(dim, heads, ops, attend) for _ in range(2)])
        self.norms = nn.ModuleList([ops.LayerNorm(dim) for _ in range(2)])
        self.ff = FeedForward(dim, ops)
        self.ff_norm = ops.LayerNorm(dim)

    def forward(self, hidden: Tensor) -> Tensor:
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            hidden = hidden + attention(norm(hidden))
        return hidden + self.ff(self.ff_norm(hidden))


class TemporalTransformer(nn.Module):
    def __init__(self, channels: int, heads: int, groups: int, ops: Any = nn, attend=None):
        super().__init__()
        self.norm = ops.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = ops.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(channels, heads, ops, attend)])
        self.proj_out = ops.Linear(channels, channels)

    def forward(self, hidden: Tensor, ctx: Context, name: str) -> Tensor:
        frames, channels, height, width = hidden.shape
        batch = frames // ctx.num_frames
        residual = hidden

        # The motion frames' features go in front; a LayerNormed feature in a residual stream, as Hallo was trained.
        num_motion = 0
        if ctx.motion is not None:
            motion = ctx.motion[name].to(hidden.dtype)  # [B, M, h·w, C]
            num_motion = motion.shape[1]
            motion = motion.unflatten(2, (height, width)).permute(0, 1, 4, 2, 3)
            hidden = torch.cat([motion, hidden.unflatten(0, (batch, -1))], dim=1).flatten(0, 1)
        length = num_motion + ctx.num_frames
        if length > MAX_FRAMES:
            raise ValueError(f"{length} frames at once; motion modules know {MAX_FRAMES} positions; use shorter clips")

        # [B·(M+F), C, h, w] → [B·h·w, M+F, C], attend over time, and back without the motion frames.
        tokens = self.norm(hidden).flatten(2).unflatten(0, (batch, length)).permute(0, 3, 1, 2)
        tokens = self.proj_in(tokens.reshape(-1, length, channels))
        tokens = self.transformer_blocks[0](tokens)[:, num_motion:]
        tokens = self.proj_out(tokens).unflatten(0, (batch, height, width))  # [B, h, w, F, C]
        return residual + tokens.permute(0, 3, 4, 1, 2).flatten(0, 1)


class MotionModule(nn.Module):
    """One motion module under AnimateDiff's key `motion_modules.j.temporal_transformer`."""

    def __init__(self, channels: int, heads: int, groups: int, ops: Any = nn, attend=None):
        super().__init__()
        self.temporal_transformer = TemporalTransformer(channels, heads, groups, ops, attend)

    def forward(self, hidden: Tensor, ctx: Context, name: str) -> Tensor:
        return self.temporal_transformer(hidden, ctx, name)
