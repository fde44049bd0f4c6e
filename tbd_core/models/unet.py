"""SD 1.5's U-Net, twice: ReferenceNet (2D) and the denoiser (frames folded into the batch: [B·F, C, h, w]).

A layer of the denoiser is ResNet → Reference-Attn + Text-Attn → Audio-Attn → Motion-Attn (paper Fig. 5, appendix A).
The file goes in the order the latent meets the blocks; the class a reader came for stands last. Key names are those of
SD 1.5 in diffusers, AnimateDiff and Hallo, so that their weights load without renaming.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from ..config import ENTRY, LATENTS, UNetConfig
from .attention import AudioBlock, Context, HierarchicalAudioBlock, SpatialTransformer, TransformerBlock
from .motion import MotionModule


def timestep_embedding(timestep: Tensor, dim: int) -> Tensor:
    """[B] → [B, dim], cosines first (SD 1.5's flip_sin_to_cos)."""
    half = dim // 2
    frequency = torch.exp(-math.log(10_000) * torch.arange(half, device=timestep.device) / half)
    angle = timestep.float().unsqueeze(1) * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class TimestepEmbedding(nn.Module):
    def __init__(self, dim: int, width: int, ops: Any = nn):
        super().__init__()
        self.linear_1 = ops.Linear(dim, width)
        self.linear_2 = ops.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(silu(self.linear_1(x)))


class ResnetBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, time_width: int, groups: int, ops: Any = nn):
        super().__init__()
        self.norm1 = ops.GroupNorm(groups, in_channels, eps=1e-5)
        self.conv1 = ops.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = ops.Linear(time_width, out_channels)
        self.norm2 = ops.GroupNorm(groups, out_channels, eps=1e-5)
        self.conv2 = ops.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = ops.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        """`hidden` [B·F, C, h, w], `time` [B·F, D]."""
        residual = self.conv_shortcut(hidden)
        hidden = self.conv1(silu(self.norm1(hidden)))
        hidden = hidden + self.time_emb_proj(silu(time))[:, :, None, None]
        return residual + self.conv2(silu(self.norm2(hidden)))


class Downsample(nn.Module):
    def __init__(self, channels: int, ops: Any = nn):
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv(hidden)


class Upsample(nn.Module):
    def __init__(self, channels: int, ops: Any = nn):
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: Tensor, size: tuple[int, int]) -> Tensor:
        """`size` is that of the skip to be met, so that odd sizes meet as well."""
        return self.conv(interpolate(hidden, size=size, mode="nearest"))


class Layers(nn.Module):
    """One block's layers: each a ResNet and, where the block has them, attention, audio and motion."""

    def __init__(self, name: str, level: int):
        super().__init__()
        self.name, self.level = name, level
        self.hears_silence = False  # whether the audio modules run without sound, too (Hallo)
        self.resnets = nn.ModuleList()
        self.attentions = nn.ModuleList()
        self.audio_modules = nn.ModuleList()
        self.motion_modules = nn.ModuleList()

    def add(self, channels: int, config: UNetConfig, audio_inner: int, ops: Any, attend: Any) -> None:
        """Attention, audio and motion behind the newest ResNet."""
        groups = config.norm_num_groups
        beside = config.context == "both"
        block = TransformerBlock(channels, config.num_heads, config.cross_attention_dim, ops, attend, beside)
        self.attentions.append(SpatialTransformer(channels, channels, groups, block, ops))
        if config.audio != "none":
            kind, inner = (AudioBlock, channels) if config.audio == "single" else (HierarchicalAudioBlock, audio_inner)
            block = kind(inner, config.num_heads, config.audio_attention_dim, ops, attend)
            self.audio_modules.append(SpatialTransformer(channels, inner, groups, block, ops))
            self.hears_silence = config.audio == "hierarchical"
        if config.motion:
            self.motion_modules.append(MotionModule(channels, config.motion_num_heads, groups, ops, attend))

    def layer(self, j: int, hidden: Tensor, time: Tensor, ctx: Context) -> Tensor:
        """ResNet → reference and text → audio → motion."""
        hidden = self.resnets[j](hidden, time)
        return self.guide(j, hidden, ctx)

    def guide(self, j: int, hidden: Tensor, ctx: Context) -> Tensor:
        if not self.attentions:
            return hidden
        name = f"{self.name}.attentions.{j}"
        hidden = self.attentions[j](hidden, ctx, name)
        if self.audio_modules and (ctx.audio is not None or (self.hears_silence and ctx.audio_masks is not None)):
            hidden = self.audio_modules[j](hidden, ctx, self.level)
        if self.motion_modules and (ctx.num_frames > 1 or ctx.motion is not None):
            hidden = self.motion_modules[j](hidden, ctx, name)
        return hidden


class DownBlock(Layers):
    def __init__(self, i: int, config: UNetConfig, time_width: int, ops: Any, attend: Any):
        super().__init__(f"down_blocks.{i}", i)
        widths = config.block_out_channels
        before, width = widths[max(i - 1, 0)], widths[i]
        for j in range(2):
            channels = before if j == 0 else width
            self.resnets.append(ResnetBlock(channels, width, time_width, config.norm_num_groups, ops))
            if i < 3:
                # Hallo's audio blocks are as wide inside as their ResNet's input.
                self.add(width, config, channels, ops, attend)
        self.downsamplers = nn.ModuleList([Downsample(width, ops)] if i < 3 else [])

    def forward(self, hidden: Tensor, time: Tensor, ctx: Context) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for j in range(2):
            hidden = self.layer(j, hidden, time, ctx)
            skips.append(hidden)
        if self.downsamplers:
            hidden = self.downsamplers[0](hidden)
            skips.append(hidden)
        return hidden, skips


class MidBlock(Layers):
    def __init__(self, config: UNetConfig, time_width: int, ops: Any, attend: Any):
        super().__init__("mid_block", 3)
        width = config.block_out_channels[-1]
        for _ in range(2):
            self.resnets.append(ResnetBlock(width, width, time_width, config.norm_num_groups, ops))
        self.add(width, config, width, ops, attend)

    def forward(self, hidden: Tensor, time: Tensor, ctx: Context) -> Tensor:
        hidden = self.layer(0, hidden, time, ctx)
        return self.resnets[1](hidden, time)


class UpBlock(Layers):
    def __init__(self, i: int, config: UNetConfig, time_width: int, ops: Any, attend: Any):
        super().__init__(f"up_blocks.{i}", 3 - i)
        widths = config.block_out_channels[::-1]
        before, width, after = widths[max(i - 1, 0)], widths[i], widths[min(i + 1, 3)]
        for j in range(3):
            channels = before if j == 0 else width
            skip = after if j == 2 else width
            self.resnets.append(ResnetBlock(channels + skip, width, time_width, config.norm_num_groups, ops))
            if i > 0:
                self.add(width, config, after, ops, attend)
        self.upsamplers = nn.ModuleList([Upsample(width, ops)] if i < 3 else [])

    def forward(self, hidden: Tensor, skips: list[Tensor], time: Tensor, ctx: Context) -> Tensor:
        for j in range(3):
            hidden = self.layer(j, torch.cat([hidden, skips.pop()], dim=1), time, ctx)
        if self.upsamplers:
            hidden = self.upsamplers[0](hidden, skips[-1].shape[2:])
        return hidden


class UNet(nn.Module):
    """Latents [B·F, C, h, w], timestep [B] and a `Context` → predicted v or noise [B·F, C, h, w].

    `head=False` makes ReferenceNet: no motion, no audio, no output layer; it is run for what it records.
    """

    def __init__(self, config: UNetConfig, head: bool = True, ops: Any = nn, attend: Any = None):
        super().__init__()
        self.config = config
        widths, groups = config.block_out_channels, config.norm_num_groups
        time_width = 4 * widths[0]
        self.conv_in = ops.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.reference_in = ops.Linear(widths[0], widths[0], bias=False) if head and config.reference_in else None
        # Of each timestep, how much of (the portrait's latents, the noisy ones) is given as they are.
        self.reference_out = ops.Embedding(config.reference_out, 2) if head and config.reference_out else None
        self.time_embedding = TimestepEmbedding(widths[0], time_width, ops)
        self.down_blocks = nn.ModuleList([DownBlock(i, config, time_width, ops, attend) for i in range(4)])
        self.mid_block = MidBlock(config, time_width, ops, attend)
        self.up_blocks = nn.ModuleList([UpBlock(i, config, time_width, ops, attend) for i in range(4)])
        self.conv_norm_out = ops.GroupNorm(groups, widths[0], eps=1e-5) if head else None
        self.conv_out = ops.Conv2d(widths[0], config.in_channels, 3, padding=1) if head else None

    def forward(self, latents: Tensor, timestep: Tensor, ctx: Context) -> Tensor:
        # Embedding.
        hidden = self.conv_in(latents)
        if self.config.reference_in and ctx.record is not None:
            ctx.record[ENTRY] = hidden.flatten(2).transpose(1, 2)
        if self.config.reference_out and ctx.record is not None:
            ctx.record[LATENTS] = latents.flatten(2).transpose(1, 2)
        if self.reference_in is not None and ctx.reference is not None:
            portrait = self.reference_in(ctx.reference[ENTRY]).transpose(1, 2).unflatten(2, hidden.shape[2:])
            hidden = hidden + portrait.repeat_interleave(ctx.num_frames, dim=0)
        if ctx.located is not None:
            hidden = hidden + ctx.located
        time = timestep_embedding(timestep, self.config.block_out_channels[0]).to(hidden.dtype)
        time = self.time_embedding(time).repeat_interleave(ctx.num_frames, dim=0)

        # Down.
        skips = [hidden]
        for block in self.down_blocks:
            hidden, new = block(hidden, time, ctx)
            skips += new

        # Middle.
        hidden = self.mid_block(hidden, time, ctx)

        # Up.
        for block in self.up_blocks:
            hidden = block(hidden, skips, time, ctx)

        if self.conv_norm_out is None or self.conv_out is None:
            return hidden
        out = self.conv_out(silu(self.conv_norm_out(hidden)))

        # Beside what changes, what does not.
        if self.reference_out is not None and ctx.reference is not None:
            portrait = ctx.reference[LATENTS].transpose(1, 2).unflatten(2, latents.shape[2:])
            at = timestep.long().clamp(0, self.config.reference_out - 1)  # some hosts' schedules go beyond
            shares = self.reference_out(at).to(out.dtype)[:, :, None, None]
            portrait, shares = (x.repeat_interleave(ctx.num_frames, dim=0) for x in (portrait, shares))
            out = out + shares[:, :1] * portrait + shares[:, 1:] * latents
        return out

    def features(self, latents: Tensor, text: Tensor) -> dict[str, Tensor]:
        """What ReferenceNet sees at timestep 0: latents [B, C, h, w] → norm1 outputs {name: [B, h·w, C]}, and what
        `UNetConfig.entries` names: its first convolution's output, the latents themselves."""
        record: dict[str, Tensor] = {}
        timestep = torch.zeros(len(latents), device=latents.device)
        self(latents, timestep, Context(text=text, record=record))
        return record
