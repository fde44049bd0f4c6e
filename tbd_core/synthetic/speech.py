"""Speech-like sound without any recording: a source-filter voice that babbles, to train ears on.

Glottal pulses and noise (the source) pass formant resonances that glide from vowel to vowel (the filter),
after Fant's source-filter model; the vowels are near the averages of Peterson & Barney (1952). The filter is
applied to short-time Fourier frames, so a minute takes a fraction of a second.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..units import SAMPLE_RATE


FFT, HOP = 512, 128  # 32 ms frames every 8 ms
FRAME_SECONDS = HOP / SAMPLE_RATE

# Formants F1, F2, F3 in Hz of a middle-sized speaker.
VOWELS = (
    (280, 2300, 3000),  # i
    (400, 2000, 2550),  # ɪ
    (530, 1850, 2480),  # e
    (680, 1750, 2450),  # æ
    (760, 1200, 2500),  # a
    (600, 880, 2450),  # ɔ
    (460, 820, 2400),  # o
    (310, 820, 2250),  # u
    (500, 1450, 2450),  # ə
)
BANDWIDTHS = (70.0, 100.0, 160.0)  # Hz
HIGHER = (3500.0, 4500.0, 5500.0, 6500.0, 7500.0)  # formants that hardly move, 250 Hz wide
# Consonants: voiced share, noise level, noise centre Hz and width Hz, seconds.
CONSONANTS = (
    (0.0, 0.00, 2000, 1000, 0.06),  # a closure: p, t, k
    (0.0, 0.30, 6200, 1500, 0.10),  # s
    (0.0, 0.30, 3600, 1200, 0.10),  # sh
    (0.0, 0.12, 5000, 3000, 0.08),  # f
    (0.3, 0.12, 6000, 1500, 0.07),  # z
    (0.25, 0.00, 2000, 1000, 0.07),  # m, n
    (0.6, 0.00, 2000, 1000, 0.05),  # l, r, w
    (0.0, 0.10, 1500, 900, 0.05),  # h
)


def babble(generator: torch.Generator, seconds: float) -> Tensor:
    """A voice that says nothing for `seconds`: [T] in [-1, 1] at 16 kHz, a new speaker each time."""
    samples = round(seconds * SAMPLE_RATE)
    frames = samples // HOP + 1

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    formants, voiced, noise, centre, width = score(draw, frames)
    size = draw(0.86, 1.2)  # shorter vocal tract, higher formants
    pitch = pitch_curve(draw, frames, 85 * 3.0 ** draw(0, 1) * (0.8 + 0.2 * size))
    source = glottal_pulses(generator, pitch, samples)
    hiss = torch.randn(samples, generator=generator)

    hertz = torch.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)[:, None]
    tract = torch.ones(len(hertz), frames)
    poles = [*formants.unbind(1), *(torch.tensor(hertz) for hertz in HIGHER)]
    widths = [*BANDWIDTHS, *(250.0 for _ in HIGHER)]
    for formant, bandwidth in zip((pole * size for pole in poles), widths, strict=True):
        half = bandwidth * size / 2
        tract = (
            tract
            * (formant**2 + half**2)
            / torch.sqrt(((hertz - formant) ** 2 + half**2) * ((hertz + formant) ** 2 + half**2))
        )
    tract = tract * (1 + hertz / 500).pow(draw(-0.4, 1.0))  # soft to bright voices
    breath = torch.exp(-(((hertz - centre) / width) ** 2))
    window = torch.hann_window(FFT)
    tone = torch.stft(source, FFT, HOP, window=window, return_complex=True) * tract * voiced
    air = torch.stft(hiss, FFT, HOP, window=window, return_complex=True) * (breath * noise + 0.01 * tract * voiced)
    sound = torch.istft(tone + air, FFT, HOP, window=window, length=samples)
    sound = sound / sound.abs().max().clamp(min=1e-6) * 10 ** (draw(-18, -1) / 20)
    room = 10 ** (draw(-75, -52) / 20)
    return (sound + room * torch.randn(samples, generator=generator)).clamp(-1, 1)


def score(draw, frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What is said: formants [frames, 3], then voice, noise, noise centre and width, each [frames]."""
    formants = torch.zeros(frames, 3)
    voiced, noise = torch.zeros(frames), torch.zeros(frames)
    centre, width = torch.full((frames,), 3000.0), torch.full((frames,), 1000.0)
    vowels = torch.tensor(VOWELS, dtype=torch.float32)
    last = vowels[int(draw(0, len(VOWELS)))]
    at, left = 0, 0  # frame, syllables left in this phrase

    def span(seconds: float) -> slice:
        nonlocal at
        start, at = at, min(frames, at + max(2, round(seconds / FRAME_SECONDS)))
        return slice(start, at)

    while at < frames:
        if left == 0:
            formants[span(draw(0.08, 0.5))] = last
            left = 1 + int(draw(2, 9))
        voice, level, middle, spread, seconds = CONSONANTS[int(draw(0, len(CONSONANTS)))]
        target, stress = vowels[int(draw(0, len(VOWELS)))], draw(0.3, 1.0)
        here = span(seconds * draw(0.7, 1.3))
        count = here.stop - here.start
        formants[here] = torch.lerp(last, target, torch.linspace(0, 0.5, count)[:, None])
        voiced[here], noise[here], centre[here], width[here] = voice * stress, level * stress, middle, spread
        here = span(draw(0.08, 0.30))
        count = here.stop - here.start
        glide = vowels[int(draw(0, len(VOWELS)))] if draw(0, 1) < 0.25 else target
        start = 0.5 * (last + target)
        path = torch.linspace(0, 1, count)[:, None]
        formants[here] = torch.where(
            path < 0.35,
            torch.lerp(start, target, path / 0.35),
            torch.lerp(target, glide, (path - 0.35) / 0.65),
        )
        voiced[here] = stress * torch.sin(math.pi * (0.12 + 0.80 * path[:, 0]))
        last, left = glide, left - 1
    kernel = torch.hann_window(7)[1:-1]
    kernel = (kernel / kernel.sum())[None, None]
    smooth = [torch.nn.functional.conv1d(t[None, None], kernel, padding=2)[0, 0] for t in (voiced, noise)]
    return formants, smooth[0], smooth[1], centre, width


def pitch_curve(draw, frames: int, base: float) -> Tensor:
    """Fundamental frequency in Hz, [frames]: melody, vibrato, falling phrases; 80 to 300 Hz."""
    seconds = torch.arange(frames) * FRAME_SECONDS
    melody = sum(draw(0.02, 0.09) * torch.sin(2 * math.pi * (draw(0.2, 1.6) * seconds + draw(0, 1))) for _ in range(3))
    vibrato = draw(0, 0.015) * torch.sin(2 * math.pi * draw(4.5, 6.5) * seconds)
    return (base * (1 + melody + vibrato)).clamp(80, 300)


def glottal_pulses(generator: torch.Generator, pitch: Tensor, samples: int) -> Tensor:
    """The buzz of the vocal folds, [samples]: derivative of a Rosenberg pulse, with a little jitter."""
    hertz = torch.nn.functional.interpolate(pitch[None, None], size=samples, mode="linear", align_corners=True)[0, 0]
    jitter = 1 + 0.01 * torch.randn(samples, generator=generator)
    phase = torch.cumsum((hertz * jitter).double() / SAMPLE_RATE, 0) % 1.0
    phase = phase.float()
    rising = 0.5 * math.pi / 0.4 * torch.sin(math.pi * phase / 0.4)
    falling = -0.5 * math.pi / 0.16 * torch.sin(0.5 * math.pi * (phase - 0.4) / 0.16)
    return torch.where(phase < 0.4, rising, torch.where(phase < 0.56, falling, torch.zeros(1)))
