"""Random expression plans and the words for them: what the bundled model is taught to obey (ours).

Six in ten are an emotion at an intensity as the rules plan it; the others vary it (units dropped, added, another level,
one side only), so that what the fine prompt says decides, not what the emotion usually looks like.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cot_fa.prompts import label_prompt
from ..cot_fa.think import think
from ..facs.action_units import make_unit
from ..facs.emotions import EMOTIONS, INTENSITIES, units_for
from ..facs.rules import hard_conflicts
from ..flow import LEVELS, SIDES, ActionUnit
from ..synthetic.face import AU_NUMBERS, SIDED_UNITS


PURE = 0.6  # share of plans that are exactly an emotion's
SUBJECTS = (
    "", "", "", "a young woman with long dark hair", "a man with short hair", "an old man with glasses",
    "a woman in her mid-30s with curly hair", "a bearded man", "a child with red hair", "a person with grey hair",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One expression: what is drawn (`units`), and what is said about it."""

    emotion: str
    intensity: str
    units: tuple[ActionUnit, ...]
    pure: bool  # the units are exactly those of the emotion
    coarse: str
    fine: str
    label: str


def random_unit(rng: random.Random) -> ActionUnit:
    number = rng.choice(AU_NUMBERS)
    side = rng.choice(SIDES) if number in SIDED_UNITS and rng.random() < 0.4 else "both"
    return make_unit(number, rng.choice(LEVELS), side)


def vary(units: Sequence[ActionUnit], rng: random.Random) -> tuple[ActionUnit, ...]:
    """Another plan near `units` without hard conflicts: some units dropped, changed, added."""
    kept = {u.number: u for u in units if rng.random() < 0.7}
    for number, unit in kept.items():
        if rng.random() < 0.4:
            kept[number] = make_unit(number, rng.choice(LEVELS), unit.side)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        unit = random_unit(rng)
        if unit.number not in kept and not hard_conflicts([*kept.values(), unit]):
            kept[unit.number] = unit
    return tuple(kept[number] for number in sorted(kept))


def random_plan(rng: random.Random) -> Plan:
    emotion, intensity = rng.choice(EMOTIONS), rng.choice(INTENSITIES)
    units, pure = units_for(emotion, intensity), rng.random() < PURE
    if not pure:
        units = vary(units, rng)
    thought = think(emotion, intensity, subject=rng.choice(SUBJECTS) or None, units=units)
    prompts = thought.prompts
    return Plan(emotion, intensity, units, pure, prompts.coarse, prompts.fine, label_prompt(emotion, intensity))


def random_plans(count: int, seed: int) -> list[Plan]:
    rng = random.Random(seed)
    return [random_plan(rng) for _ in range(count)]


def unit_levels(plans: Sequence[Plan]) -> Tensor:
    """What the renderer and the text encoder's teacher need: [n, units, 2] in [0, 1], last axis left, right."""
    levels = torch.zeros(len(plans), len(AU_NUMBERS), 2)
    for row, plan in zip(levels, plans, strict=True):
        for unit in plan.units:
            if unit.number in AU_NUMBERS:
                value = (LEVELS.index(unit.level) + 1) / len(LEVELS)
                sides = {"both": [0, 1], "left": [0], "right": [1]}[unit.side]
                row[AU_NUMBERS.index(unit.number), sides] = value
    return levels
