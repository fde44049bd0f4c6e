"""Speech → speech whose loud and quiet parts are equally loud, and whose pauses are silent. Both are off unless asked.

Levels are mean squares of 0.4 s, ten a second, as EBU R 128's momentary loudness without its K-weighting, which changes
little below 8 kHz; what counts as speech is found by R 128's two gates. The rest is ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .errors import InputError
from .flow import Speech
from .units import SAMPLE_RATE


if TYPE_CHECKING:
    from numpy import ndarray

SILENT = -55.0  # dB of full scale, as speech.SILENCE_STD: nothing below is speech
GATE = 10.0  # dB below the mean: R 128's relative gate
BLOCK, HOP = 0.4, 0.1  # s, of R 128's momentary loudness
NEAR = 15  # blocks before and after: 3 s, R 128's short-term loudness
PAUSE = 25.0  # dB below the speech: such a stretch has no level of its own, and hiss is not raised to a voice
MOST = 15.0  # dB, of raising and lowering

FINE, STEP = 0.02, 0.01  # s, blocks of the gate
HOLD = 0.15  # s kept before and after what is heard: onsets and last breaths of words
FADE = 0.03  # s
GATES = (10.0, 60.0)  # dB that make sense
MOSTLY = 0.9


def treat(speech: Speech, level_it: bool = False, gate_below: float | None = None) -> Speech:
    """`speech`, levelled first, then gated, as asked; with a warning where little is left or nothing could be done.

    gate_below  dB below the speech's level, from 10 to 60; None: no gate. InputError for others.
    """
    check_gate(gate_below)
    if not level_it and gate_below is None:
        return speech
    import torch

    wave, notes = speech.waveform.numpy(), []
    if speech_level(wave) is None:
        notes.append(f"nothing in {speech.source} is louder than {SILENT:g} dB; nothing was levelled or silenced")
    else:
        wave = level(wave) if level_it else wave
        if gate_below is not None:
            wave, silent = gate(wave, gate_below)
            if silent > MOSTLY:
                notes.append(
                    f"the silence gate of {gate_below:g} dB silenced {silent:.0%} of {speech.source}; give a larger "
                    "number of dB"
                )
    return replace(speech, waveform=torch.from_numpy(wave), warnings=(*speech.warnings, *notes))


def check_gate(below: float | None) -> None:
    if below is not None and not GATES[0] <= below <= GATES[1]:  # NaN is not between either
        raise InputError(
            f"the silence gate is {below:g} dB below the speech; give a number from {GATES[0]:g} to {GATES[1]:g}, such "
            "as 35"
        )


def speech_level(wave: ndarray) -> float | None:
    """R 128's integrated loudness of [T], unweighted: dB of full scale; None: nothing is louder than -55 dB."""
    import numpy as np

    power = _blocks(wave, BLOCK, HOP)
    power = power[power > _power(SILENT)]
    if not len(power):
        return None
    return float(_decibel(power[power >= power.mean() / _power(GATE)].mean(dtype=np.float64)))


def level(wave: ndarray) -> ndarray:
    """[T] with the level of each 3 s brought to that of the whole, by 15 dB at most; pauses go with the speech beside
    them. Its peak stays within full scale. InputError never; silence comes back as it is."""
    import numpy as np

    whole, power = speech_level(wave), _blocks(wave, BLOCK, HOP)
    if whole is None:
        return wave
    spoken = power > max(_power(SILENT), _power(whole - PAUSE))

    def mean_near(chosen: ndarray) -> ndarray:
        return _around(power * chosen, NEAR) / np.maximum(_around(chosen, NEAR), 1)

    spoken &= power >= mean_near(spoken) / _power(GATE)
    near = mean_near(spoken)
    known = np.flatnonzero(spoken)
    gains = np.clip(whole - _decibel(near[known]), -MOST, MOST)
    middles = (known * HOP + BLOCK / 2) * SAMPLE_RATE
    made = _multiplied(wave, middles, gains, decibel=True)
    return made / max(1.0, float(np.abs(made).max()))


def gate(wave: ndarray, below: float) -> tuple[ndarray, float]:
    """([T] with nothing where it is more than `below` dB quieter than the speech, the share of the time that this is).

    150 ms around everything louder stay, then it fades in 30 ms. Silence is what the bundled model's noise floor makes
    of zeros (conditioning.NOISE_FLOOR), so that the mouth rests."""
    import numpy as np

    whole = speech_level(wave)
    if whole is None:
        return wave, 0.0
    heard = _blocks(wave, FINE, STEP) > _power(whole - below)
    hold, fade = round(HOLD / STEP), round(FADE / STEP)
    kept = _around(heard, hold + fade) > 0.5
    gains = _around(np.pad(kept, fade, "edge"), fade)[fade:-fade] / (2 * fade + 1)
    middles = (np.arange(len(gains)) * STEP + FINE / 2) * SAMPLE_RATE
    return _multiplied(wave, middles, gains), float(1 - kept.mean())


def _blocks(wave: ndarray, seconds: float, hop: float) -> ndarray:
    """Mean squares of blocks of `seconds`, one each `hop`, both multiples of 10 ms; of a shorter recording, one."""
    import numpy as np

    grain = round(STEP * SAMPLE_RATE)
    grains = np.pad(wave, (0, -len(wave) % grain)).reshape(-1, grain)
    power = np.einsum("ij,ij->i", grains, grains) / grain
    size = min(round(seconds / STEP), len(power))
    sums = np.concatenate([[0.0], np.cumsum(power, dtype=np.float64)])
    starts = np.arange(0, len(power) - size + 1, round(hop / STEP))
    return np.maximum(0.0, sums[starts + size] - sums[starts]) / size


def _around(values: ndarray, reach: int) -> ndarray:
    """Sums of each value and `reach` on both sides."""
    import numpy as np

    return np.convolve(values, np.ones(2 * reach + 1))[reach : reach + len(values)]


def _multiplied(wave: ndarray, places: ndarray, gains: ndarray, decibel: bool = False) -> ndarray:
    """`wave` times the gains at `places` (samples), straight lines between them; minute by minute, for float64 is
    twice as large."""
    import numpy as np

    made, part = np.empty(len(wave), np.float32), 60 * SAMPLE_RATE
    for start in range(0, len(wave), part):
        stop = min(start + part, len(wave))
        gain = np.interp(np.arange(start, stop), places, gains)
        made[start:stop] = wave[start:stop] * (10 ** (gain / 20) if decibel else gain)
    return made


def _power(decibel: float) -> float:
    return 10 ** (decibel / 10)


def _decibel(power):
    import numpy as np

    return 10 * np.log10(power)
