"""Random expression plans and the words for them: what the bundled model is taught to obey (ours).

Half are an emotion at an intensity as the rules plan it. Three in ten vary it (units dropped, added, another level, one
side only), so that what the fine prompt says decides, not what the emotion usually looks like. Two in ten are one unit
alone, said to be neutral, so that each unit is learnt by itself.
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
from ..synthetic import face
from ..synthetic.face import AU_NUMBERS, SIDED_UNITS


SINGLE = 0.2  # share of plans that are one action unit alone
PURE = 0.5  # share of plans that are exactly an emotion's
ONE_SIDED = 0.5  # share of the units with sides that act on one
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
    side = rng.choice(SIDES[1:]) if number in SIDED_UNITS and rng.random() < ONE_SIDED else "both"
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


def single_unit_plan(rng: random.Random) -> Plan:
    """One action unit at any level, every second one with sides on one side, and no emotion."""
    return make_plan("neutral", rng.choice(INTENSITIES), (random_unit(rng),), pure=False, rng=rng)


def random_plan(rng: random.Random) -> Plan:
    kind = rng.random()
    if kind < SINGLE:
        return single_unit_plan(rng)
    emotion, intensity = rng.choice(EMOTIONS), rng.choice(INTENSITIES)
    units, pure = units_for(emotion, intensity), kind < SINGLE + PURE
    return make_plan(emotion, intensity, units if pure else vary(units, rng), pure, rng)


def make_plan(emotion: str, intensity: str, units: tuple[ActionUnit, ...], pure: bool, rng: random.Random) -> Plan:
    """The plan with its words, about a subject drawn from `rng`."""
    thought = think(emotion, intensity, subject=rng.choice(SUBJECTS) or None, units=units)
    prompts = thought.prompts
    return Plan(emotion, intensity, units, pure, prompts.coarse, prompts.fine, label_prompt(emotion, intensity))


def random_plans(count: int, seed: int) -> list[Plan]:
    rng = random.Random(seed)
    return [random_plan(rng) for _ in range(count)]


def unit_levels(plans: Sequence[Plan]) -> Tensor:
    """What the renderer and the text encoder's teacher need: [n, units, 2] in [0, 1], last axis left, right."""
    rows = [face.unit_levels(plan.units) for plan in plans]
    return torch.stack(rows) if rows else torch.zeros(0, len(AU_NUMBERS), 2)
