"""What the scores are, as pure functions of numbers: no picture, no network. One-dimensional arrays or tensors in, one
float out; None where a score is not defined (no cases, or nothing varies)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


MOST_LAG = 5  # frames, either way
DRAWS = 2000  # of a bootstrap


def array(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def mean(values: Any) -> float | None:
    values = array(values)
    return float(values.mean()) if values.size else None


def rms(errors: Any) -> float:
    """Root mean square, to four places."""
    return round(float(np.sqrt(np.square(array(errors)).mean())), 4)


def determination(truth: Any, read: Any) -> float:
    """R²: the share of the truth's variance that the reading explains; below 0 when the mean would read better, and 0
    when the truth does not vary."""
    truth, read = array(truth), array(read)
    spread = np.square(truth - truth.mean()).sum()
    return round(float(1 - np.square(truth - read).sum() / spread), 4) if spread else 0.0


def pearson(asked: Any, read: Any) -> float | None:
    """Pearson's r. None with fewer than two cases or when the asked does not vary; 0 when the read does not: who never
    moves obeys nothing."""
    asked, read = array(asked), array(read)
    if asked.size != read.size:
        raise ValueError(f"{asked.size} asked and {read.size} read values")
    if asked.size < 2 or np.ptp(asked) == 0:
        return None
    if np.ptp(read) == 0:
        return 0.0
    return float(np.clip(np.corrcoef(asked, read)[0, 1], -1, 1))


def shifted(asked: Any, read: Any, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """The overlapping parts when `read` comes `lag` frames after `asked` (negative: before)."""
    asked, read = array(asked), array(read)
    count = min(asked.size, read.size) - abs(lag)
    if count <= 0:
        return asked[:0], read[:0]
    return asked[max(0, -lag) :][:count], read[max(0, lag) :][:count]


def lag_curve(asked: Any, read: Any, most: int = MOST_LAG) -> dict[int, float | None]:
    """Pearson's r at each lag from -`most` to `most` frames; positive: the reading comes late."""
    return {lag: pearson(*shifted(asked, read, lag)) for lag in range(-most, most + 1)}


def best_lag(curves: Sequence[dict[int, float | None]]) -> int | None:
    """The lag with the highest r, averaged over several recordings; the smaller lag when two are equal."""
    if not curves:
        return None
    together = {}
    for lag in curves[0]:
        values = [value for curve in curves if (value := curve[lag]) is not None]
        if values:
            together[lag] = sum(values) / len(values)
    return max(together, key=lambda lag: (together[lag], -abs(lag))) if together else None


def rises(values: Sequence[float]) -> bool:
    """Whether each is above the one before."""
    return all(a < b for a, b in zip(values, values[1:], strict=False))


def projection(read: Any, plan: Any) -> float:
    """How far along `plan` the reading lies: 0 at rest, 1 at the plan itself (least squares)."""
    read, plan = array(read).ravel(), array(plan).ravel()
    return float(read @ plan / (plan @ plan))


def psnr(truth: Any, drawn: Any) -> float:
    """dB, of pictures in [0, 1]; 100 at most, so that a perfect copy is a number."""
    return min(100.0, -10 * math.log10(max(float(np.square(array(truth) - array(drawn)).mean()), 1e-10)))


def seam_ratio(changes: Any, seams: Sequence[int]) -> float | None:
    """Median change at `seams` over the median elsewhere. `changes`[i] is that from frame i to i + 1."""
    changes = array(changes)
    at = np.zeros(changes.size, dtype=bool)
    at[list(seams)] = True
    if not at.any() or at.all():
        return None
    within = float(np.median(changes[~at]))
    return float(np.median(changes[at])) / within if within > 0 else None


def interval(
    values: Any, statistic: Callable[[np.ndarray], float] = np.mean, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float] | None:
    """95 % bootstrap interval (percentiles) of a statistic over cases."""
    values = array(values)
    if not values.size:
        return None
    chosen = np.random.default_rng(seed).integers(0, values.size, (draws, values.size))
    low, high = np.percentile([statistic(values[rows]) for rows in chosen], (2.5, 97.5))
    return float(low), float(high)
