"""The networks in the calling conventions of a host that brings its own layers, attention and sampler (ComfyUI).

In a host's batch [rows·F, ...] a row is one conditioning, its frames follow each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ..config import ModelConfig
from ..errors import InputError
from ..units import MOTION_FRAMES
from .attention import Context, KVCache
from .audio_projection import AudioProjection
from .decoding import DECODED_PIXELS, decode_parts
from .motion import MAX_FRAMES
from .unet import UNet


OVERRIDE = "optimized_attention_override"  # in a pass's options: the user's own attention


class HostAttention:
    """The host's attention, with what the user put in its place; torch's own on a CPU, where ComfyUI's is several times
    slower.

    attention  (q, k, v, heads, skip_reshape=True, transformer_options=…), q k v [B, heads, N, D] → [B, N, heads·D].
               (ComfyUI's can leave the last reshape out as well, but not all of its kinds heed that for large batches.)
    """

    def __init__(self, attention: Callable):
        self.attention = attention
        self.options: dict[str, Any] = {}  # of the pass

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Each [B, heads, N, D]."""
        if query.device.type == "cpu" and OVERRIDE not in self.options:
            return scaled_dot_product_attention(query, key, value)
        heads = query.shape[1]
        mixed = self.attention(query, key, value, heads, skip_reshape=True, transformer_options=self.options)
        return mixed.unflatten(2, (heads, -1)).transpose(1, 2)


class HostedDenoiser(UNet):
    """The denoiser and its audio projection. Reference, sound and motion come as one Guide (tbd_core/guide.py)."""

    def __init__(
        self, config: ModelConfig, attention: Callable, dtype: Any = None, device: Any = None, operations: Any = nn
    ):
        """Weightless (`checkpoint.store.fill` gives them), so `device` says nothing; `dtype` is theirs."""
        attend = HostAttention(attention)
        with torch.device("meta"):
            super().__init__(config.unet, ops=operations, attend=attend)
            self.audioproj = AudioProjection(config.audio_projection, operations)
        self.host_attention, self.dtype = attend, dtype
        self.kept: dict[Any, Any] = {}  # guides and their keys and values: the host drops them after each sampling

    def forward(
        self, x, timesteps, context=None, control=None, transformer_options=None, tbd=None, tbd_once=False,
        tbd_changing=False, **_,
    ):  # fmt: skip
        """`x` [rows·F, C, h, w], `timesteps` [rows·F], `context` [rows·F, N, D] → prediction like `x`.

        tbd           Guide; None: words alone
        tbd_once      the text serves this step alone: its keys and values are not worth keeping
        tbd_changing  the weights change from step to step: nothing is kept
        Raises InputError for a ControlNet, for no text at all and for more frames than the motion modules know.
        """
        options = transformer_options or {}
        rows = len(options.get("cond_or_uncond", (0,)))
        frames = x.shape[0] // rows
        if control is not None:
            raise InputError("1 ControlNet is applied, and this model has no place for one; take it off")
        if context is None:
            raise InputError("the conditioning has no text (0 tokens); encode a prompt, which may be empty")
        if tbd is None and self.config.wants_face:
            raise InputError(
                "0 conditions of the face came with the prompts, and this model (Hallo's weights) draws nothing "
                "without; use TBD Sampler, or Apply Conditions before KSampler"
            )
        seen = tbd and tbd.reference
        for name in self.config.entries:
            if seen is not None and name not in seen:
                raise InputError(
                    f"the portrait of the conditions has {len(seen)} features and none called {name}, which this model "
                    "wants; connect the same MODEL to ReferenceNet Encode, Apply Conditions and here"
                )
        if frames > MAX_FRAMES - MOTION_FRAMES:
            raise InputError(
                f"{frames} frames are drawn at once; at most {MAX_FRAMES - MOTION_FRAMES} are possible: use TBD "
                "Sampler, which draws long videos clip by clip, or a latent of fewer frames"
            )
        self.host_attention.options = options
        try:
            parts, cache = self._bring(tbd, rows, frames, x, keep=not tbd_changing)
            face, words = parts.get("face"), context[::frames]
            guide = {name: part for name, part in parts.items() if name != "face"}
            guide |= {"text": words} if face is None else face.hear(words)
            # Where areas are used ComfyUI gives a negative entry the id of a positive one.
            texts = tuple(options.get("cond_or_uncond", ())), tuple(options.get("uuids", ()))
            ctx = Context(
                num_frames=frames,
                cache=cache,
                text_id=None if tbd_once or not texts[1] else texts,
                **guide,
            )
            return super().forward(x.contiguous(memory_format=torch.channels_last), timesteps[::frames], ctx)
        finally:
            self.host_attention.options = {}

    def _bring(
        self, guide: Any, rows: int, frames: int, x: Tensor, keep: bool
    ) -> tuple[dict[str, Any], KVCache | None]:
        """The Guide's parts where `x` lies, and their cache. `keep`: once per sampling and form of the batch; else they
        are made anew, without a cache."""
        key = id(guide), rows, x.shape
        if keep and key in self.kept:
            return self.kept[key][1:]
        parts = {} if guide is None else guide.on(self.audioproj, rows, frames, x)
        if not keep:
            return parts, None
        self.kept[key] = guide, parts, KVCache()  # the guide too, so that its id stays its own
        return self.kept[key][1:]


class FirstStage(nn.Module):
    """diffusers' autoencoder as hosts call one. (A module around it: its own `device` cannot be set.)

    check   is called before each part that is decoded and may raise to interrupt
    pixels  are decoded at once, whatever batch is handed over
    """

    def __init__(self, vae: Any, check: Callable[[], None], pixels: int = DECODED_PIXELS):
        super().__init__()
        self.vae, self.check, self.pixels = vae, check, pixels

    def encode(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] → latents [B, C, h, w], not scaled; the mean, not a sample."""
        return self.vae.encode(pixels.contiguous(memory_format=torch.channels_last)).latent_dist.mean

    def decode(self, latents: Tensor, **_) -> Tensor:
        """The way back. InputError when the pictures overflowed."""

        def prepare(part: Tensor) -> Tensor:
            self.check()
            return part

        return torch.cat(list(decode_parts(self.vae, latents, prepare, "load the model as fp32 or bf16", self.pixels)))


class AudioEncoderModule(nn.Module):
    """wav2vec2. (A module around it: its own `device` cannot be set.)"""

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder
