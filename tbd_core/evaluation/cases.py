"""What is drawn to be judged: people and voices that no training saw; plans and words are those it was taught.

The number of people N sets everything (`tbd evaluate --cases N`):
    every person once at rest (level 0 of every unit, and the neutral face)
    every action unit max(2, N) times, one at a time, on different people: levels spread over A to E; a unit that has
        sides once on the left and once on the right alone, at levels B and D, the others of its samples on both
    half of the people (rounded up) with seven emotions at three intensities
All in silence; the recordings are spoken besides (`speeches`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..cot_fa.prompts import label_prompt
from ..cot_fa.think import think
from ..data.plans import Plan, unit_levels
from ..facs.action_units import make_unit
from ..facs.emotions import EMOTIONS, INTENSITIES
from ..flow import LEVELS, ActionUnit
from ..synthetic.face import AU_NUMBERS, SIDED_UNITS, Face, random_gaze, random_identity, random_pose
from ..synthetic.portrait import render
from ..units import FPS, num_clips


ASSETS = Path(__file__).resolve().parent.parent / "assets"
VOICES = tuple(sorted((ASSETS / "evaluation").glob("*.wav")))  # never trained on
SPOKEN_WITH = ("neutral", "happy", "sad")  # at Moderate, one recording after the other
PEOPLE_SEED = 7_310_000_000  # the corpora count theirs from their own small seeds
SIDE_LEVELS = ("B", "D")  # of the left and the right alone; the other way round for every second unit


@dataclass(frozen=True)
class CaseSizes:
    """How much is drawn. The default, the bundled model and two recordings take two cores under 7 minutes."""

    people: int = 3
    units: tuple[int, ...] = AU_NUMBERS
    emotions: tuple[str, ...] = tuple(name for name in EMOTIONS if name != "neutral")
    voices: tuple[Path, ...] = VOICES
    seconds: float = 8.0  # of every recording; what is longer is cut

    @property
    def frames(self) -> int:
        return int(self.seconds * FPS)


@dataclass(frozen=True)
class Case:
    """One face to draw in silence."""

    kind: str  # rest | unit | emotion
    person: int
    plan: Plan
    negative: str

    @property
    def unit(self) -> ActionUnit:
        """Of a case of kind `unit`: the one that acts."""
        return self.plan.units[0]


def make_case(
    kind: str, person: int, emotion: str = "neutral", intensity: str = "Moderate", units: Sequence | None = None
) -> Case:
    """Thought out as in `generate`; `units` in place of the emotion's own."""
    thought = think(emotion, intensity, units=units)
    words = thought.prompts
    plan = Plan(
        emotion=thought.emotion,
        intensity=thought.intensity,
        units=thought.action_units,
        pure=units is None,
        coarse=words.coarse,
        fine=words.fine,
        label=label_prompt(emotion, intensity),
    )
    return Case(kind, person, plan, words.negative)


def spread(count: int) -> list[str]:
    """`count` levels from A to E, evenly: 1 → E, 2 → A E, 3 → A C E, 5 → all, 6 → all and one twice."""
    if count == 1:
        return [LEVELS[-1]]
    last = len(LEVELS) - 1
    return [LEVELS[round(i * last / (count - 1))] for i in range(count)]


def unit_samples(number: int, count: int) -> list[tuple[str, str]]:
    """(level, side) of each sample of a unit."""
    if number not in SIDED_UNITS:
        return [(level, "both") for level in spread(count)]
    both = spread(count - 2) if count > 2 else []
    left, right = SIDE_LEVELS[:: 1 if SIDED_UNITS.index(number) % 2 else -1]
    return [(level, "both") for level in both] + [(left, "left"), (right, "right")]


def silent_cases(sizes: CaseSizes) -> list[Case]:
    """All that is drawn in silence: rests, units, emotions."""
    return [*rests(sizes), *single_units(sizes), *emotions(sizes)]


def rests(sizes: CaseSizes) -> Iterator[Case]:
    for person in range(sizes.people):
        yield make_case("rest", person)


def single_units(sizes: CaseSizes) -> Iterator[Case]:
    for row, number in enumerate(sizes.units):
        for i, (level, side) in enumerate(unit_samples(number, max(2, sizes.people))):
            unit = make_unit(number, level, side)
            yield make_case("unit", (row + i) % sizes.people, units=(unit,))


def emotions(sizes: CaseSizes) -> Iterator[Case]:
    for person in range((sizes.people + 1) // 2):
        for emotion in sizes.emotions:
            for intensity in INTENSITIES:
                yield make_case("emotion", person, emotion, intensity)


def people(sizes: CaseSizes, seed: int) -> Face:
    """All persons at rest, each with a pose and a gaze of their own, which their pictures share."""
    generator, count = torch.Generator().manual_seed(PEOPLE_SEED + seed), sizes.people
    identity, pose = random_identity(generator, count), random_pose(generator, count)
    rest = torch.zeros(count, len(AU_NUMBERS), 2)
    return Face(identity, rest, torch.zeros(count, 3), torch.zeros(count), pose, random_gaze(generator, count))


def true_pictures(cast: Face, cases: Sequence[Case], pixels: int) -> Tensor:
    """What the renderer draws for `cases`, mouths shut and eyes open: [len(cases), 3, pixels, pixels] in [0, 1]."""
    who = [case.person for case in cases]
    units = unit_levels([case.plan for case in cases])
    face = Face(cast.identity[who], units, cast.mouth[who], cast.blink[who], cast.pose[who], cast.gaze[who])
    return render(face, pixels)


__all__ = [
    "VOICES", "Case", "CaseSizes", "emotions", "make_case", "num_clips", "people", "rests", "silent_cases",
    "single_units", "spread", "true_pictures", "unit_samples",
]  # fmt: skip
