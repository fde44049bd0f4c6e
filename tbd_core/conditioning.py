"""Portrait, speech and words → what the denoiser is guided by: latents, audio features, text states.

Each encoder is run once per job; nothing here knows about clips or steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from .cot_fa.tokenizer import cut_to_budget
from .devices import place
from .units import SAMPLES_PER_FRAME


if TYPE_CHECKING:
    from .models.build import Networks

AUDIO_CHUNK, AUDIO_MARGIN = 100, 25  # frames listened to at once, and heard beyond each end (ours)
NOISE_FLOOR = 0.01  # of the speech's loudness (ours): no training sound was wholly silent; zeros read as an open mouth


def audio_features(encoder, waveform: Tensor, num_frames: int) -> Tensor:
    """Normalised sound [B, T] at 16 kHz → outputs of every transformer layer on the 25 fps grid, [B, F, L, C].

    wav2vec2's 50 Hz features are interpolated to the frames *before* its transformer (as Hallo does)."""
    length = num_frames * SAMPLES_PER_FRAME
    waveform = pad(waveform, (0, max(0, length - waveform.shape[1])))[:, :length]
    heard = encoder.feature_extractor(waveform)  # [B, C, ~2F]
    heard = interpolate(heard.float(), num_frames, mode="linear", align_corners=True).to(heard.dtype)
    hidden, _ = encoder.feature_projection(heard.transpose(1, 2))
    layers: list[Tensor] = []

    def keep(_module, _inputs, output) -> None:
        layers.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layer.register_forward_hook(keep) for layer in encoder.encoder.layers]
    try:
        encoder.encoder(hidden)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(layers, dim=2)


@torch.no_grad()
def speech_features(encoder, waveform: Tensor, num_frames: int, on_chunk: Callable[[], None] | None = None) -> Tensor:
    """Normalised sound [T] → [F, L, C] on the CPU, listened to in overlapping chunks so that memory stays bounded.
    `on_chunk` is called before each and may raise to interrupt."""
    device, dtype = place(encoder)
    waveform = pad(waveform, (0, max(0, num_frames * SAMPLES_PER_FRAME - len(waveform))))
    waveform = waveform + NOISE_FLOOR * torch.randn(len(waveform), generator=torch.Generator().manual_seed(0))
    parts = []
    for start in range(0, num_frames, AUDIO_CHUNK):
        if on_chunk:
            on_chunk()
        stop = min(start + AUDIO_CHUNK, num_frames)
        first, last = max(0, start - AUDIO_MARGIN), min(num_frames, stop + AUDIO_MARGIN)
        sound = waveform[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME].unsqueeze(0)
        layers = audio_features(encoder, sound.to(device, dtype), last - first)[0]
        parts.append(layers[start - first : stop - first].float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def text_states(networks: Networks, text: str) -> Tensor:
    """One prompt → CLIP token states [1, N, D]; what exceeds 77 tokens is cut (the review says so beforehand)."""
    device, _ = place(networks.text_encoder)
    ids = torch.tensor([cut_to_budget(text)[0]], device=device)
    return networks.text_encoder(input_ids=ids).last_hidden_state


@torch.no_grad()
def portrait_latents(networks: Networks, pixels: Tensor) -> Tensor:
    """[1, 3, H, W] in [-1, 1] → scaled latents [1, C, h, w]; the mean, not a sample."""
    vae: Any = networks.vae
    device, dtype = place(vae)
    posterior = vae.encode(pixels.to(device, dtype)).latent_dist
    return posterior.mean * vae.config.scaling_factor
