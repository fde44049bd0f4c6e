"""Waveform [T] at 16 kHz → what speaks against its being a voice: music, or steady noise.

Heuristics (ours), by numpy alone. A voice never keeps its fine spectrum for long: pitch glides, and sounds change ten
times a second; notes and chords stand. And it is never even: noise is, at every frequency and moment. Both thresholds
lie in the middle between synthetic and real voices on one side, chords, drums and coloured noise on the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .units import SAMPLE_RATE


if TYPE_CHECKING:
    from numpy import ndarray

SHORTEST = 3.0  # s: less is not judged
STRETCHES, STRETCH = 8, 15  # of a longer recording these are looked at, evenly spread; s each
STEADY = 0.45  # correlation of the fine spectrum over an eighth of a second: voices 0.01 to 0.34, chords from 0.55
STEADY_PAUSING = 0.6  # the same where the level moves as a voice's does: machines' that keep one pitch reach 0.48
PAUSING = 8.0  # dB, deviation of the level: music without rests up to 5, voices from 10
EVEN = 0.45  # flatness against the mean spectrum: voices 0.01 to 0.21, noise 0.56 whatever its colour
SWING = 5.0  # dB, deviation of the level: noise 0.4 to 3, voices from 10 (in as much noise: 3)
FAINT = 1e-10  # power of nothing


def unlike_voice(waveform: ndarray) -> str | None:
    """A sentence after the recording's name that says what was found and what to do; None: nothing was."""
    import numpy as np

    if len(waveform) < SHORTEST * SAMPLE_RATE or not np.any(waveform):
        return None
    sound = _stretches(waveform)
    steady, (even, swing) = steadiness(sound), evenness(sound)
    most = STEADY_PAUSING if swing > PAUSING else STEADY
    if steady > most:
        return (
            f"sounds like music or a tone (its notes stay {steady:.0%} alike for an eighth of a second, a voice at "
            f"most {most:.0%}), and the mouth would follow it; give the voice alone"
        )
    if even > EVEN and swing < SWING:
        return (
            f"sounds like steady noise ({even:.0%} even, a voice at most {EVEN:.0%}; its level moves by {swing:.1f} "
            "dB), and the mouth would follow it; give the voice alone, or a recording with less noise"
        )
    return None


def _stretches(waveform: ndarray) -> ndarray:
    """At most two minutes, so that a long recording takes no longer."""
    import numpy as np

    length = STRETCH * SAMPLE_RATE
    if len(waveform) <= STRETCHES * length:
        return waveform
    starts = np.linspace(0, len(waveform) - length, STRETCHES).astype(int)
    return np.concatenate([waveform[start : start + length] for start in starts])


def _power(sound: ndarray, size: int, hop: int) -> ndarray:
    """Power spectra [frames, size/2 + 1]."""
    import numpy as np

    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop]
    return np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32))) ** 2


def steadiness(sound: ndarray) -> float:
    """How alike the fine spectrum (partials, not formants) is to itself 128 ms later: the median correlation over all
    moments within 25 dB of the loud ones."""
    import numpy as np

    size, hop, later, around = 2048, 512, 4, 15  # 128 ms, of which 4 hops are as much; 15 bins are 117 Hz
    power = _power(sound, size, hop)[:, 8:512]  # 62 Hz to 4 kHz
    loud = power.sum(1)
    active = loud > np.percentile(loud, 95) / 10**2.5
    fine = np.log(power + 1e-3 * power.mean(1, keepdims=True) + FAINT)
    padded = np.pad(fine, ((0, 0), (around // 2 + 1, around // 2)))
    sums = np.cumsum(padded, axis=1)
    fine = fine - (sums[:, around:] - sums[:, :-around]) / around
    fine /= np.linalg.norm(fine, axis=1, keepdims=True) + FAINT
    both = active[:-later] & active[later:]
    return float(np.median((fine[:-later] * fine[later:]).sum(1)[both])) if both.any() else 0.0


def evenness(sound: ndarray) -> tuple[float, float]:
    """(flatness of the spectrum measured against its own mean, median over moments within 25 dB of the loud ones,
    deviation of the level in dB)."""
    import numpy as np

    power = _power(sound, 512, 256)[:, 2:] + FAINT
    level = 10 * np.log10(power.sum(1))
    active = power[level > np.percentile(level, 95) - 25]
    ratio = active / active.mean(0)
    flatness = np.exp(np.log(ratio).mean(1)) / ratio.mean(1)
    return float(np.median(flatness)), float(level.std())
