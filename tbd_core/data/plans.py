"""Random expression plans and the words for them: what the bundled model is taught to obey (ours).

Some are an emotion at an intensity as the rules plan it. Some vary it (units dropped, added, another level, one side
only), so that what the fine prompt says decides, not what the emotion usually looks like. Some are one unit alone, said
to be neutral, so that each unit is learnt by itself. How many of each is a corpus's `Mix`.
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


SUBJECTS = (
    "", "", "", "a young woman with long dark hair", "a man with short hair", "an old man with glasses",
    "a woman in her mid-30s with curly hair", "a bearded man", "a child with red hair", "a person with grey hair",
)  # fmt: skip


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of plans. An emotion's own plans hardly ever act on one side: a model taught half with them
    left one-sided units out."""

    single: float = 0.35  # of plans that are one action unit alone
    pure: float = 0.35  # of plans that are exactly an emotion's; the rest vary one
    one_sided: float = 0.65  # of the units with sides, where they are drawn by lot, those that act on one


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


def random_unit(rng: random.Random, one_sided: float) -> ActionUnit:
    number = rng.choice(AU_NUMBERS)
    side = rng.choice(SIDES[1:]) if number in SIDED_UNITS and rng.random() < one_sided else "both"
    return make_unit(number, rng.choice(LEVELS), side)


def vary(units: Sequence[ActionUnit], rng: random.Random, one_sided: float) -> tuple[ActionUnit, ...]:
    """Another plan near `units` without hard conflicts: some units dropped, changed, added."""
    kept = {u.number: u for u in units if rng.random() < 0.7}
    for number, unit in kept.items():
        if rng.random() < 0.4:
            kept[number] = make_unit(number, rng.choice(LEVELS), unit.side)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        unit = random_unit(rng, one_sided)
        if unit.number not in kept and not hard_conflicts([*kept.values(), unit]):
            kept[unit.number] = unit
    return tuple(kept[number] for number in sorted(kept))


def single_unit_plan(rng: random.Random, one_sided: float) -> Plan:
    """One action unit at any level, and no emotion."""
    return make_plan("neutral", rng.choice(INTENSITIES), (random_unit(rng, one_sided),), pure=False, rng=rng)


def random_plan(rng: random.Random, mix: Mix) -> Plan:
    kind = rng.random()
    if kind < mix.single:
        return single_unit_plan(rng, mix.one_sided)
    emotion, intensity = rng.choice(EMOTIONS), rng.choice(INTENSITIES)
    units, pure = units_for(emotion, intensity), kind < mix.single + mix.pure
    return make_plan(emotion, intensity, units if pure else vary(units, rng, mix.one_sided), pure, rng)


def make_plan(emotion: str, intensity: str, units: tuple[ActionUnit, ...], pure: bool, rng: random.Random) -> Plan:
    """The plan with its words, about a subject drawn from `rng`."""
    thought = think(emotion, intensity, subject=rng.choice(SUBJECTS) or None, units=units)
    prompts = thought.prompts
    return Plan(emotion, intensity, units, pure, prompts.coarse, prompts.fine, label_prompt(emotion, intensity))


def random_plans(count: int, seed: int, mix: Mix = Mix()) -> list[Plan]:
    rng = random.Random(seed)
    return [random_plan(rng, mix) for _ in range(count)]


def unit_levels(plans: Sequence[Plan]) -> Tensor:
    """What the renderer and the text encoder's teacher need: [n, units, 2] in [0, 1], last axis left, right."""
    rows = [face.unit_levels(plan.units) for plan in plans]
    return torch.stack(rows) if rows else torch.zeros(0, len(AU_NUMBERS), 2)
