"""Tokens [B, N, D] → tokens: the attention every part of both networks is made of (paper Eq. 2, with 1/√d).

Layers come from an injected namespace (`ops.Linear`, `ops.LayerNorm`, …; `torch.nn` by default) and the attention
itself from an injected function, so that a host may bring its own. Key names are those of diffusers' SD 1.5.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


class KeyValue(NamedTuple):
    """Projected keys and values, each [B, N, D]."""

    key: Tensor
    value: Tensor


class KVCache:
    """Keys and values that stay the same through a clip: projected in its first forward, dropped with `clear`."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, KeyValue] = {}

    def get(self, name: Hashable, project: Callable[[], KeyValue]) -> KeyValue:
        if name not in self._kept:
            self._kept[name] = project()
        return self._kept[name]

    def clear(self) -> None:
        self._kept.clear()


class AudioMasks(NamedTuple):
    """Where each branch of hierarchical audio attention speaks: one [F, h·w] per level, finest first."""

    full: list[Tensor]
    face: list[Tensor]
    lip: list[Tensor]


@dataclass
class Context:
    """All that guides one forward of the denoiser. Features are keyed by the block's name, e.g.
    `down_blocks.0.attentions.1`; they are ReferenceNet's norm1 outputs, and beside them what
    `UNetConfig.entries` names (of motion frames nobody reads that)."""

    text: Tensor  # [B, N, D], what attn2 hears: with Hallo's weights the face's tokens
    num_frames: int = 1  # F; the batch of the latents is B·F, frames fastest
    reference: dict[str, Tensor] | None = None  # [B, h·w, C]
    motion: dict[str, Tensor] | None = None  # [B, M, h·w, C], the M motion frames
    audio: Tensor | None = None  # [B, F, N, D]; None: no sound
    audio_masks: AudioMasks | None = None  # hierarchical audio only, which without sound hears tokens of zeros (Hallo)
    audio_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of the branches: full, face, lip
    words: Tensor | None = None  # [B, N, D], what attn2_text hears beside attn2; None: nothing
    words_scale: float = 1.0  # 0-1, how strongly
    located: Tensor | None = None  # [1, C, h, w], FaceLocator's feature, added after the first convolution
    cache: KVCache | None = None
    text_id: Hashable = "text"  # tells apart the texts of one cache; None: not worth keeping
    record: dict[str, Tensor] | None = field(default=None, repr=False)  # filled with features when given

    def audio_tokens(self) -> Tensor:
        """[B·F, N, D], a row for each frame."""
        if self.audio is None:
            raise ValueError("audio attention got no audio tokens; pass Context.audio")
        return self.audio.flatten(0, 1)

    def keep(self, name: Hashable, project: Callable[[], KeyValue]) -> KeyValue:
        return project() if self.cache is None else self.cache.get(name, project)


def per_frame(kv: KeyValue, num_frames: int) -> KeyValue:
    """[B, N, D] → [B·F, N, D]: every frame of a sample sees the sample's own tokens."""
    if num_frames == 1:
        return kv
    return KeyValue(*(x.unsqueeze(1).expand(-1, num_frames, -1, -1).flatten(0, 1) for x in kv))


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v by plain products, each [B, heads, N, D]. For training on a CPU, where the backward pass of
    torch's fused kernel takes three to seven times as long."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return scores.softmax(-1) @ value


class Attention(nn.Module):
    """Multi-head attention of `dim` over tokens of `context_dim`."""

    def __init__(self, dim: int, heads: int, context_dim: int | None = None, ops: Any = nn, attend=None):
        super().__init__()
        self.heads = heads
        self.attend = attend or scaled_dot_product_attention
        self.to_q = ops.Linear(dim, dim, bias=False)
        self.to_k = ops.Linear(context_dim or dim, dim, bias=False)
        self.to_v = ops.Linear(context_dim or dim, dim, bias=False)
        self.to_out = nn.ModuleList([ops.Linear(dim, dim)])

    def project(self, tokens: Tensor) -> KeyValue:
        return KeyValue(self.to_k(tokens), self.to_v(tokens))

    def forward(self, hidden: Tensor, kv: KeyValue | None = None) -> Tensor:
        """`hidden` [B, N, D] asks, `kv` answers (None: self-attention)."""
        key, value = kv or self.project(hidden)
        query, key, value = (self._split(x) for x in (self.to_q(hidden), key, value))
        hidden = self.attend(query, key, value).transpose(1, 2).flatten(2)
        return self.to_out[0](hidden)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class GEGLU(nn.Module):
    def __init__(self, dim: int, inner: int, ops: Any = nn):
        super().__init__()
        self.proj = ops.Linear(dim, inner * 2)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden, gate = self.proj(hidden).chunk(2, dim=-1)
        return hidden * gelu(gate)


class FeedForward(nn.Module):
    """GEGLU, four times as wide inside. `net.1` is diffusers' dropout, which is nothing here."""

    def __init__(self, dim: int, ops: Any = nn):
        super().__init__()
        self.net = nn.ModuleList([GEGLU(dim, 4 * dim, ops), nn.Identity(), ops.Linear(4 * dim, dim)])

    def forward(self, hidden: Tensor) -> Tensor:
        return self.net[2](self.net[0](hidden))


class TransformerBlock(nn.Module):
    """Reference-Attn (attn1), Text-Attn (attn2), feed-forward: one block for both (decision 0002).

    `beside` adds attn2_text with a norm of its own: words heard beside what attn2 hears, both from the same tokens, so
    that at strength 0 the block is the one without it (ours; Hallo's weights with SD 1.5's text attention)."""

    def __init__(
        self, dim: int, heads: int, context_dim: int, ops: Any = nn, attend=None, beside: bool = False
    ):  # fmt: skip
        super().__init__()
        self.norm1 = ops.LayerNorm(dim)
        self.attn1 = Attention(dim, heads, None, ops, attend)
        self.norm2 = ops.LayerNorm(dim)
        self.attn2 = Attention(dim, heads, context_dim, ops, attend)
        self.norm2_text = ops.LayerNorm(dim) if beside else None
        self.attn2_text = Attention(dim, heads, context_dim, ops, attend) if beside else None
        self.norm3 = ops.LayerNorm(dim)
        self.ff = FeedForward(dim, ops)

    def forward(self, hidden: Tensor, ctx: Context, name: str) -> Tensor:
        # Reference: keys and values are [own tokens ; the portrait's tokens], only own tokens ask.
        normed = self.norm1(hidden)
        if ctx.record is not None:
            ctx.record[name] = normed
        kv = self.attn1.project(normed)
        if ctx.reference is not None:
            features = ctx.reference[name]
            portrait = ctx.keep((self, "reference"), lambda: self.attn1.project(features))
            portrait = per_frame(portrait, ctx.num_frames)
            kv = KeyValue(*(torch.cat(pair, dim=1) for pair in zip(kv, portrait, strict=True)))
        hidden = hidden + self.attn1(normed, kv)

        # Text.
        project = lambda: self.attn2.project(ctx.text)  # noqa: E731
        text = project() if ctx.text_id is None else ctx.keep((self, ctx.text_id), project)
        heard = self.attn2(self.norm2(hidden), per_frame(text, ctx.num_frames))
        words = ctx.words
        if self.attn2_text is not None and self.norm2_text is not None and words is not None and ctx.words_scale:
            attn = self.attn2_text
            kv = attn.project(words) if ctx.text_id is None else ctx.keep(
                (self, "words", ctx.text_id), lambda: attn.project(words)
            )  # fmt: skip
            heard = heard + ctx.words_scale * attn(self.norm2_text(hidden), per_frame(kv, ctx.num_frames))
        hidden = hidden + heard

        return hidden + self.ff(self.norm3(hidden))


class SpatialTransformer(nn.Module):
    """[B·F, C, h, w] → tokens [B·F, h·w, D] → one block → back, added to what came in."""

    def __init__(self, channels: int, inner: int, groups: int, block: nn.Module, ops: Any = nn):
        super().__init__()
        self.norm = ops.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = ops.Conv2d(channels, inner, 1)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = ops.Conv2d(inner, channels, 1)

    def forward(self, hidden: Tensor, ctx: Context, name) -> Tensor:
        height, width = hidden.shape[2:]
        tokens = self.proj_in(self.norm(hidden)).flatten(2).transpose(1, 2)
        tokens = self.transformer_blocks[0](tokens, ctx, name)
        return hidden + self.proj_out(tokens.transpose(1, 2).unflatten(2, (height, width)))


class AudioBlock(nn.Module):
    """Self-attention, attention to the frame's audio tokens, feed-forward (paper: identical to Text-Attn)."""

    def __init__(self, dim: int, heads: int, context_dim: int, ops: Any = nn, attend=None):
        super().__init__()
        self.norm1 = ops.LayerNorm(dim)
        self.attn1 = Attention(dim, heads, None, ops, attend)
        self.norm2 = ops.LayerNorm(dim)
        self.attn2 = Attention(dim, heads, context_dim, ops, attend)
        self.norm3 = ops.LayerNorm(dim)
        self.ff = FeedForward(dim, ops)

    def forward(self, hidden: Tensor, ctx: Context, level: int) -> Tensor:
        hidden = hidden + self.attn1(self.norm1(hidden))
        audio = ctx.keep((self, "audio"), lambda: self.attn2.project(ctx.audio_tokens()))
        hidden = hidden + self.attn2(self.norm2(hidden), audio)
        return hidden + self.ff(self.norm3(hidden))


class HierarchicalAudioBlock(nn.Module):
    """Hallo's form: three branches over the same audio tokens (whole picture, face, lips), each masked on its output,
    passed through its own 1×1 convolution and weighted. Without sound the tokens are zeros, and attention gives its
    output's bias alone."""

    BRANCHES = ("full", "face", "lip")

    def __init__(self, dim: int, heads: int, context_dim: int, ops: Any = nn, attend=None):
        super().__init__()
        self.norm1 = ops.LayerNorm(dim)
        self.attn1 = Attention(dim, heads, None, ops, attend)
        self.norm2 = ops.LayerNorm(dim)
        for i, branch in enumerate(self.BRANCHES):
            setattr(self, f"attn2_{i}", Attention(dim, heads, context_dim, ops, attend))
            setattr(self, f"zero_conv_{branch}", ops.Conv2d(dim, dim, 1))
        self.norm3 = ops.LayerNorm(dim)
        self.ff = FeedForward(dim, ops)

    def forward(self, hidden: Tensor, ctx: Context, level: int) -> Tensor:
        if ctx.audio_masks is None:
            raise ValueError("hierarchical audio attention got no masks; pass Context.audio_masks")
        hidden = hidden + self.attn1(self.norm1(hidden))
        normed, mixed = self.norm2(hidden), torch.zeros_like(hidden)
        for i, (branch, masks) in enumerate(zip(self.BRANCHES, ctx.audio_masks, strict=True)):
            attn = getattr(self, f"attn2_{i}")
            if ctx.audio is None:
                heard = attn.to_out[0](torch.zeros_like(hidden[:1, :1]))
            else:
                audio = ctx.keep((self, i), lambda attn=attn: attn.project(ctx.audio_tokens()))
                heard = attn(normed, audio)
            mask = masks[level].to(hidden.dtype).repeat(len(hidden) // ctx.num_frames, 1)
            heard = heard * mask.unsqueeze(2)
            # A 1x1 convolution on tokens: no copy to an image and back.
            conv = getattr(self, f"zero_conv_{branch}")
            heard = conv(heard.transpose(1, 2).unsqueeze(3)).squeeze(3).transpose(1, 2)
            mixed = mixed + ctx.audio_scale[i] * heard
        hidden = hidden + mixed
        return hidden + self.ff(self.norm3(hidden))
