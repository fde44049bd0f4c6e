"""Progressive guidance (paper section 3.4): which prompt leads at which step, as one weight table [S, K].

Position u runs from 0 (pure noise) to 1 (finished picture); stage j covers bounds[j] <= u < bounds[j + 1],
where bounds = (0, *split, 1). Three blends:
    hard    one prompt at a time (Fig. 6)
    paper   Algorithms 1 and 2 to the letter; for k != 2 carried on in the same way (ours)
    smooth  a continuous crossfade, half and half at every boundary (ours)
"""

from __future__ import annotations

from collections.abc import Sequence

from .errors import InputError
from .flow import Schedule


MAX_STEPS = 1000  # one for each timestep of training
PAPER_SPLIT = (0.4,)  # Fig. 6: the coarse prompt leads for 0.4 of the steps
PROGRESS = ("denoise", "literal")


def alpha(t: float, t_start: float, t_end: float, alpha_max: float = 1.0, alpha_min: float = 0.5) -> float:
    """Algorithm 1: the leading prompt's weight, falling from `alpha_max` to `alpha_min` over its stage."""
    position = (t - t_start) / (t_end - t_start)
    return alpha_max - position * (alpha_max - alpha_min)


def _hard(u: float, bounds: Sequence[float]) -> list[float]:
    weights = [0.0] * (len(bounds) - 1)
    weights[_stage(u, bounds)] = 1.0
    return weights


def _paper(u: float, bounds: Sequence[float]) -> list[float]:
    """Algorithm 2 for two stages; for more (ours) the rest goes to the next, in the last one backwards."""
    stage, last = _stage(u, bounds), len(bounds) - 2
    if last == 0:
        return [1.0]
    weights = [0.0] * (last + 1)
    lead = alpha(u, bounds[stage], bounds[stage + 1])
    weights[stage] = lead
    weights[stage + 1 if stage < last else stage - 1] = 1.0 - lead
    return weights


def _smooth(u: float, bounds: Sequence[float]) -> list[float]:
    """Piecewise linear (ours): each stage is alone at its peak, and shares half and half at each boundary."""
    last = len(bounds) - 2
    weights = [0.0] * (last + 1)
    peaks = [0.0, *((bounds[j] + bounds[j + 1]) / 2 for j in range(1, last)), 1.0]
    for j in range(last):
        start, boundary, end = peaks[j], bounds[j + 1], peaks[j + 1]
        if start <= u <= end:
            half = (u - start) / (boundary - start) if u < boundary else 1 + (u - boundary) / (end - boundary)
            weights[j], weights[j + 1] = 1.0 - half / 2, half / 2
            return weights
    return [1.0]  # a single stage


BLENDS = {"hard": _hard, "paper": _paper, "smooth": _smooth}


def weights_at(
    u: float, stages: int = 2, split: Sequence[float] | None = None, blend: str = "hard"
) -> tuple[float, ...]:
    """One row of the table: the K weights at position `u` in [0, 1]. Training asks for random ones.

    Raises InputError as `make_schedule` does.
    """
    _check_stages_and_blend(stages, blend)
    bounds = (0.0, *resolve_split(stages, split), 1.0)
    if not 0.0 <= u <= 1.0:
        raise InputError(f"progress is {u:g}; it runs from 0 (pure noise) to 1 (finished picture)")
    return tuple(BLENDS[blend](u, bounds))


def make_schedule(
    steps: int,
    stages: int = 2,
    split: Sequence[float] | None = None,
    blend: str = "hard",
    progress: str = "denoise",
) -> Schedule:
    """The whole table, weights [S, K].

    steps     S, denoising steps, at least `stages`
    stages    K, prompts from coarse to fine
    split     K - 1 rising boundaries in (0, 1); None: 0.4 for two stages, equal stages otherwise
    blend     hard | paper | smooth
    progress  denoise: row i stands at u = i / S, so the coarse prompt comes first (Fig. 6 and the text).
              literal: Algorithm 2's t read as the DDPM timestep, which falls from T while denoising;
              row i stands at u = t / T = (S - i) / S, so the fine prompt comes first.
    Raises InputError.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}; at least 1 is needed")
    if steps > MAX_STEPS:
        raise InputError(f"steps is {steps}; at most {MAX_STEPS} are possible, the timesteps of training")
    _check_stages_and_blend(stages, blend)
    if stages > steps:
        raise InputError(f"{stages} stages do not fit into {steps} steps; use at least {stages} steps or fewer stages")
    if progress not in PROGRESS:
        raise InputError(f"progress is {progress!r}; choose {' or '.join(PROGRESS)}")
    boundaries = resolve_split(stages, split)
    # The quotient is taken of whole numbers, so that 16 / 40 is exactly the 0.4 of the split.
    positions = [(i if progress == "denoise" else steps - i) / steps for i in range(steps)]
    weights = tuple(weights_at(u, stages, boundaries, blend) for u in positions)
    return Schedule(weights=weights, split=boundaries, blend=blend)


def resolve_split(stages: int, split: Sequence[float] | None = None) -> tuple[float, ...]:
    """The K - 1 boundaries asked for, checked; or the default ones. Raises InputError."""
    if split is None:
        return PAPER_SPLIT if stages == 2 else tuple(j / stages for j in range(1, stages))
    shown = ",".join(f"{s:g}" for s in split) or "empty"
    if len(split) != stages - 1:
        wanted = f"{stages} {'stage needs' if stages == 1 else 'stages need'} {stages - 1}"
        raise InputError(f"split {shown} has {len(split)} boundaries; {wanted}, one fewer than stages")
    for boundary in split:
        if not 0.0 < boundary < 1.0:  # also refuses NaN
            raise InputError(f"split {shown} contains {boundary:g}; each boundary lies between 0 and 1, ends excluded")
    for before, after in zip(split, split[1:], strict=False):
        if not before < after:
            raise InputError(
                f"split {shown} does not rise ({before:g} is followed by {after:g}); put it in rising order"
            )
    return tuple(float(s) for s in split)


def _check_stages_and_blend(stages: int, blend: str) -> None:
    if stages < 1:
        raise InputError(f"stages is {stages}; at least 1 is needed")
    if blend not in BLENDS:
        raise InputError(f"blend is {blend!r}; choose {', '.join(BLENDS)}")


def _stage(u: float, bounds: Sequence[float]) -> int:
    """The stage `u` lies in; a boundary belongs to the stage that begins there (Algorithm 2: t < t_end)."""
    return sum(boundary <= u for boundary in bounds[1:-1])
