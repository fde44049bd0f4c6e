"""Talking clips from any recording: the mouth is computed from the sound itself, so the truth is exact."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..units import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from .face import MOUTH, Face


WINDOW = 1024  # samples listened to for one frame: 64 ms around its middle
FLOOR_DB = -50.0  # dBFS; below it nobody speaks
RANGE_DB = 28.0  # from the loudest syllables down to a closed mouth
VOICE_BAND = (150.0, 3600.0)  # Hz; hissing does not open the mouth
BACK_BAND = (620.0, 1800.0)  # the second formant of round and open vowels (o, u, a)
FRONT_BAND = (1900.0, 3300.0)  # second and third formants of spread front vowels (i, e)
HISS_BAND = (3600.0, 8000.0)  # s, sh, f: teeth close together
OPEN_BAND = (480.0, 1050.0)  # a first formant this high means an open jaw
CLOSE_BAND = (180.0, 420.0)
SMOOTH = (0.25, 0.5, 0.25)  # over neighbouring frames, no lag
BLINK = (0.35, 0.9, 1.0, 0.7, 0.3)  # a blink, frame by frame: 0.2 s
BLINK_PAUSE = (1.6, 5.0)  # seconds between blinks


def mouth_from_sound(waveform: Tensor, num_frames: int) -> Tensor:
    """Opening, rounding and spread of the mouth, [num_frames, 3] in [0, 1].

    `waveform` [T], 16 kHz, in [-1, 1]. Frame i is about samples [640 i, 640 (i + 1)). It depends on the
    144 ms around their middle, and on the recording as a whole through its loudness alone (95th percentile),
    so that the gain does not matter while speech stays 5 dB above `FLOOR_DB`. Silence shuts the mouth.
    """
    if num_frames == 0:
        return torch.zeros(0, len(MOUTH))
    power = frame_power(waveform, num_frames)
    loudness = decibel(band(power, VOICE_BAND))
    if loudness.max() <= FLOOR_DB:
        return torch.zeros(num_frames, len(MOUTH))
    heard = loudness[loudness > loudness.max() - 40]
    top = torch.quantile(heard, 0.95)
    bottom = float(top) - RANGE_DB
    loud = step(loudness, bottom, float(top)) * step(loudness, FLOOR_DB, FLOOR_DB + 5)

    jaw = decibel(band(power, OPEN_BAND)) - decibel(band(power, CLOSE_BAND))
    front = decibel(band(power, FRONT_BAND)) - decibel(band(power, BACK_BAND))
    hiss = decibel(band(power, HISS_BAND)) - decibel(band(power, VOICE_BAND))
    level = decibel(power.sum(1))
    speaking = step(level, bottom, bottom + 8) * step(level, FLOOR_DB, FLOOR_DB + 5)
    opening = loud.pow(1.3) * (0.50 + 0.50 * step(jaw, -14, 8)) * (1 - 0.6 * step(hiss, -6, 4))
    back = (1 - step(front, -22, -8)) * (1 - step(jaw, 5, 16))  # o, and u as books have it
    close = (1 - step(front, -2, 8)) * (1 - step(jaw, -18, -8))  # u as most people say it
    rounding = speaking * torch.maximum(back, close) * (1 - step(hiss, -12, -2))
    spread = speaking * torch.maximum(step(front, -5, 12), 0.6 * step(hiss, -4, 6))
    curves = torch.stack([opening, rounding, spread]).clamp(0, 1)
    padded = torch.nn.functional.pad(curves[:, None], (1, 1), mode="replicate")
    return torch.nn.functional.conv1d(padded, torch.tensor([[SMOOTH]]))[:, 0].T.clamp(0, 1).contiguous()


def frame_power(waveform: Tensor, num_frames: int) -> Tensor:
    """Power spectrum of each frame, [F, WINDOW // 2 + 1]; its sum is the mean square of the samples."""
    before = (WINDOW - SAMPLES_PER_FRAME) // 2
    length = (num_frames - 1) * SAMPLES_PER_FRAME + WINDOW
    sound = torch.zeros(length)
    given = waveform.detach().float()[: length - before]
    sound[before : before + len(given)] = given
    window = torch.hann_window(WINDOW)
    spectrum = torch.fft.rfft(sound.unfold(0, WINDOW, SAMPLES_PER_FRAME) * window)
    power = spectrum.abs().square() / (WINDOW * window.square().sum())
    power[:, 1:-1] *= 2
    return power


def band(power: Tensor, edges: tuple[float, float]) -> Tensor:
    low, high = (round(edge * WINDOW / SAMPLE_RATE) for edge in edges)
    return power[:, low : high + 1].sum(1)


def decibel(power: Tensor) -> Tensor:
    return 10 * torch.log10(power + 1e-12)


def step(value: Tensor, start: float, end: float) -> Tensor:
    """Rises linearly from 0 at `start` to 1 at `end`."""
    return ((value - start) / (end - start)).clamp(0, 1)


def blinks(generator: torch.Generator, num_frames: int) -> Tensor:
    """When the eyes close, [num_frames] in [0, 1]: short blinks at irregular times."""
    shape = torch.tensor(BLINK)
    closed = torch.zeros(num_frames + len(shape))
    low, high = BLINK_PAUSE
    seconds = float(torch.rand(1, generator=generator)) * high
    while (start := round(seconds * FPS)) < num_frames:
        closed[start : start + len(shape)] = torch.maximum(closed[start : start + len(shape)], shape)
        seconds += low + (high - low) * float(torch.rand(1, generator=generator))
    return closed[:num_frames]


def sway(generator: torch.Generator, num_frames: int, amount: float) -> Tensor:
    """A head never quite still: pose [num_frames, 3] within ±`amount`, with periods of 1.5 to 5 s."""
    seconds = torch.arange(num_frames)[:, None, None] / FPS
    period = 1.5 + 3.5 * torch.rand(1, 3, 2, generator=generator)
    phase = torch.rand(1, 3, 2, generator=generator)
    return amount * torch.sin(2 * math.pi * (seconds / period + phase)).mean(-1)


def talking_clip(
    identity: Tensor,
    units: Tensor,
    mouth: Tensor,
    generator: torch.Generator,
    sway_amount: float = 0.0,
    pose: Tensor | None = None,
    gaze: Tensor | None = None,
) -> Face:
    """One person speaking with one expression, as a `Face` of F frames.

    `identity` [NUM_IDENTITY]; `units` [len(AU_NUMBERS), 2], held through the clip; `mouth` [F, 3]. Blinks,
    and the head's sway if any, come from `generator`. `pose` [3] and `gaze` [2] are held, the sway about them.
    """
    frames = len(mouth)
    blink = blinks(generator, frames)
    held = torch.zeros(3) if pose is None else pose
    moving = sway(generator, frames, sway_amount) if sway_amount else torch.zeros(frames, 3)
    looking = (torch.zeros(2) if gaze is None else gaze).expand(frames, 2)
    return Face(identity.expand(frames, -1), units.expand(frames, -1, -1), mouth, blink, held + moving, looking)
