"""Portrait, speech and words → what the denoiser is guided by: latents, audio features, text states.

Each encoder is run once per job; nothing here knows about clips or steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from .cot_fa.tokenizer import cut_to_budget
from .devices import at_hand, place
from .units import AUDIO_CHUNK, SAMPLES_PER_FRAME


if TYPE_CHECKING:
    from .models.build import Networks

AUDIO_MARGIN = 25  # frames heard beyond each end of a chunk (ours)
WINDOW = 400  # wav2vec2 features (8 s) that its convolutions make at once (ours): the widest thing in memory
NOISE_FLOOR = 0.01  # of the speech's loudness (ours): no training sound was wholly silent; zeros read as an open mouth


def audio_features(encoder, waveform: Tensor, num_frames: int) -> Tensor:
    """Normalised sound [B, T] at 16 kHz → outputs of every transformer layer on the 25 fps grid, [B, F, L, C].

    wav2vec2's 50 Hz features are interpolated to the frames *before* its transformer (as Hallo does)."""
    layers: list[Tensor] = []
    _transform(encoder, encoder.feature_extractor(_cut(waveform, num_frames)), num_frames, layers.append)
    return torch.stack(layers, dim=2)


@torch.no_grad()
def speech_features(
    encoder, waveform: Tensor, num_frames: int, on_chunk: Callable[[], None] | None = None,
    chunk: int | None = AUDIO_CHUNK,
) -> Tensor:  # fmt: skip
    """Normalised sound [T] → [F, L, C] on the CPU.

    on_chunk  called before each chunk (or window and layer); may raise to interrupt
    chunk     frames listened to at once, with a margin (ModelConfig.audio_chunk): all memory is bounded, and what lies
              further off is not heard. None: `whole_features`
    """
    check = on_chunk or (lambda: None)
    waveform = pad(waveform, (0, max(0, num_frames * SAMPLES_PER_FRAME - len(waveform))))
    waveform = waveform + NOISE_FLOOR * torch.randn(len(waveform), generator=torch.Generator().manual_seed(0))
    if chunk is None:
        return whole_features(encoder, waveform, num_frames, check)
    device, dtype = place(encoder)
    parts = []
    for start in range(0, num_frames, chunk):
        check()
        stop = min(start + chunk, num_frames)
        first, last = max(0, start - AUDIO_MARGIN), min(num_frames, stop + AUDIO_MARGIN)
        sound = waveform[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME].unsqueeze(0)
        layers = audio_features(encoder, sound.to(device, dtype), last - first)[0]
        parts.append(layers[start - first : stop - first].float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def whole_features(
    encoder, waveform: Tensor, num_frames: int, check: Callable[[], None] = lambda: None, window: int = WINDOW
) -> Tensor:
    """Normalised sound [T] → [F, L, C] on the CPU, equal to `audio_features` of all of it (ours: how it is done).

    The convolutions run in windows of `window` features, the transformer, which attends to everything, once; no layer's
    output stays on the device. Memory grows with the length, time a little faster. `check` may raise to interrupt."""
    with at_hand(encoder.feature_extractor):  # whose layers are called one by one
        heard = _convolve(encoder, _cut(waveform, num_frames), window, check)
    found: list[Tensor] = []
    _transform(encoder, heard, num_frames, lambda layer: found.append(layer[0].float().cpu()), check)
    features = torch.empty(num_frames, len(found), found[0].shape[1])
    for n in reversed(range(len(found))):  # each is given back once it is copied
        features[:, n] = found.pop()
    return features


def _cut(waveform: Tensor, num_frames: int) -> Tensor:
    """The last axis as long as `num_frames` frames."""
    length = num_frames * SAMPLES_PER_FRAME
    return pad(waveform, (0, max(0, length - waveform.shape[-1])))[..., :length]


def _transform(
    encoder, heard: Tensor, num_frames: int, keep: Callable[[Tensor], Any], check: Callable[[], None] = lambda: None
) -> None:
    """wav2vec2's features [B, C, ~2F] through its projection and transformer; `keep` gets every layer's output
    [B, F, C], `check` is called before each."""
    heard = interpolate(heard.float(), num_frames, mode="linear", align_corners=True).to(heard.dtype)
    hidden, _ = encoder.feature_projection(heard.transpose(1, 2))
    hooks = []
    for layer in encoder.encoder.layers:
        hooks.append(layer.register_forward_pre_hook(lambda *_: check()))
        hooks.append(layer.register_forward_hook(lambda _, __, out: keep(out[0] if isinstance(out, tuple) else out)))
    try:
        encoder.encoder(hidden)
    finally:
        for hook in hooks:
            hook.remove()


def _convolve(encoder, waveform: Tensor, window: int, check: Callable[[], None]) -> Tensor:
    """`encoder.feature_extractor` of [T], window by window: [1, C, ~2F]. Nothing is padded in it, so that a feature
    hears just `reach` samples, and windows that overlap by these are exact."""
    first, *rest = encoder.feature_extractor.conv_layers
    config, hop, reach = encoder.config, 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        reach, hop = reach + (kernel - 1) * hop, hop * stride
    enter = first
    if isinstance(getattr(first, "layer_norm", None), torch.nn.GroupNorm):
        kernel, stride = config.conv_kernel[0], config.conv_stride[0]
        scale, shift = _whole_norm(first, _windows(encoder, waveform, kernel, stride, window * hop // stride, check))

        def enter(sound: Tensor) -> Tensor:
            made = first.conv(sound)
            return first.activation((made.float() * scale + shift).to(made.dtype))

    parts = []
    for sound in _windows(encoder, waveform, reach, hop, window, check):
        made = enter(sound)
        for layer in rest:
            made = layer(made)
        parts.append(made)
    return torch.cat(parts, dim=2)


def _windows(
    encoder, waveform: Tensor, reach: int, hop: int, window: int, check: Callable[[], None]
) -> Iterator[Tensor]:
    """The samples [1, 1, t] that `window` features at a time hear, where the encoder lies."""
    device, dtype = place(encoder)
    count = (len(waveform) - reach) // hop + 1
    for start in range(0, count, window):
        check()
        stop = min(start + window, count)
        sound = waveform[start * hop : (stop - 1) * hop + reach]
        yield sound[None, None].to(device, dtype)


def _whole_norm(first, windows: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """(scale, shift), each [C, 1]: what wav2vec2-base's group norm does to its first convolution, by the mean and
    variance over *all* the time, put together from those of the windows."""
    norm, counts, means, variances = first.layer_norm, [], [], []
    for sound in windows:
        grouped = first.conv(sound).float().reshape(norm.num_groups, -1)
        counts.append(grouped.shape[1])
        means.append(grouped.mean(1).cpu().double())
        variances.append(grouped.var(1, correction=0).cpu().double())
    share = torch.tensor(counts, dtype=torch.float64)[:, None] / sum(counts)
    mean = (share * torch.stack(means)).sum(0)
    variance = (share * (torch.stack(variances) + (torch.stack(means) - mean).square())).sum(0)
    each = norm.num_channels // norm.num_groups
    mean, deviation = (value.repeat_interleave(each) for value in (mean, (variance + norm.eps).sqrt()))
    scale = norm.weight.cpu().double() / deviation
    shift = norm.bias.cpu().double() - mean * scale
    device = norm.weight.device
    return scale.float()[:, None].to(device), shift.float()[:, None].to(device)


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
