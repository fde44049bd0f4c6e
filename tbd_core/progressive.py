"""Progressive guidance (paper section 3.4): which prompt leads at which step, as one weight table [S, K].

Position u runs from 0 (pure noise) to 1 (finished picture); stage j covers bounds[j] <= u < bounds[j + 1],
where bounds = (0, *split, 1). Three blends:
    hard    one prompt at a time (Fig. 6)
    paper   Algorithms 1 and 2 to the letter; for k != 2 carried on in the same way (ours)
    smooth  a continuous crossfade, half and half at every boundary (ours)

`slices` and the two boundary functions say the same table to a host that knows timed prompts only (ours).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Slice:
    """A run of steps with the same weights."""

    first: int  # 0-based
    last: int  # itself included
    weights: tuple[float, ...]  # [K]


def slices(schedule: Schedule) -> tuple[Slice, ...]:
    """The table as slices, in the order of the steps; equal neighbouring rows are one slice."""
    found: list[Slice] = []
    for step, row in enumerate(schedule.weights):
        if found and found[-1].weights == row:
            found[-1] = Slice(found[-1].first, step, row)
        else:
            found.append(Slice(step, step, row))
    return tuple(found)


def boundary_percent(first: int, steps: int, split: float | None = None) -> float:
    """Where the slice that begins at step `first` (1 .. S - 1) of S steps begins, as ComfyUI's `start_percent`.

    It lies strictly between two steps of the `simple` schedule, for every kind of model. After n thousandths of
    the schedule, r = 1000 - n remain: the step that stands there is at a fraction r/1000 of the noise levels of
    flow matching and at (r - 1)/999 of those of a discrete model, any step before it at (r + 1)/1000 or r/999 at
    least. The mean of r/1000 and r/999 lies between, for every r; a shift of the levels is monotone and moves no
    step across it. On a boundary itself ComfyUI would take both slices, in a gap none (a black picture).

    split  a hard switch's own position, which then holds for runs of other step counts too, but for a step that lies
           less than a thousandth before it. It is not used where it would part these S steps wrongly.
    """
    n = _thousandths(first, steps)
    if split is not None:
        asked = math.floor(1000 * split + 1e-6)
        if _thousandths(first - 1, steps) < asked <= n:
            n = asked
    return 1 - (1000 - n) * (1 / 1000 + 1 / 999) / 2


def _thousandths(step: int, steps: int) -> int:
    """How much of 1000 noise levels lies before `step`, rounded as ComfyUI rounds (step 19 of 38: 499)."""
    return int(step * (1000 / steps))


def boundary_sigma(before: float, after: float) -> float:
    """A noise level between those of two steps, `before` > `after`.

    Neither the arithmetic nor the geometric mean: second-order samplers evaluate there.
    """
    return after + 0.382 * (before - after)


def boundary_percents(schedule: Schedule) -> tuple[float, ...]:
    """Between each two slices of the table, in their order: where the later one begins, as `boundary_percent`."""
    bounds, parts = [], slices(schedule)
    for before, here in zip(parts, parts[1:], strict=False):
        split = None
        if schedule.blend == "hard":
            old, new = before.weights.index(1.0), here.weights.index(1.0)
            split = schedule.split[new - 1] if old < new else None  # backwards (literal) a stage's split ends it
        bounds.append(boundary_percent(here.first, schedule.steps, split))
    return tuple(bounds)


def boundary_sigmas(schedule: Schedule, sigmas: Sequence[float]) -> tuple[float, ...]:
    """The same for one known run: noise levels between its steps, exact for every model, scheduler and shift.

    sigmas  S + 1 falling noise levels, as the sampler gets them; InputError if they do not fall
    """
    parts = slices(schedule)
    for i, (before, after) in enumerate(zip(sigmas, sigmas[1:], strict=False), start=1):
        if not before > after and len(parts) > 1:  # also refuses NaN
            raise InputError(
                f"sigmas do not fall: step {i} has {before:g} and the next level is {after:g}; "
                "choose another scheduler or fewer steps"
            )
    return tuple(boundary_sigma(sigmas[part.first - 1], sigmas[part.first]) for part in parts[1:])


def parse_split(text: str) -> tuple[float, ...] | None:
    """Boundaries written with commas, "0.4" or "0.3, 0.6"; blank is None, the default. InputError."""
    if not text.strip():
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"split {text!r} is not made of numbers; write the boundaries with commas, e.g. 0.4 or 0.3,0.6"
        ) from None


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
