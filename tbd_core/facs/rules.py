"""Which action units exclude, disturb or call for one another.

The lists summarise anatomy and FACS practice (*ours*); they say what they find and change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from ..flow import ActionUnit
from .action_units import facts, sides_overlap, value


@dataclass(frozen=True)
class Finding:
    """One thing found in a plan: the units' numbers, and a sentence for the user."""

    units: tuple[int, ...]
    text: str


# (a, b): why they cannot stand together on one side of the face
HARD_EXCLUSIONS: dict[tuple[int, int], str] = {
    (51, 52): "the head cannot turn both ways",
    (53, 54): "the head cannot be both up and down",
    (55, 56): "the head cannot tilt both ways",
    (57, 58): "the head cannot be both forward and back",
    (61, 62): "the gaze cannot go both ways",
    (63, 64): "the gaze cannot go both up and down",
    (5, 43): "an eye cannot be both wide and closed",
    (5, 45): "an eye cannot be both wide and blinking",
    (5, 46): "an eye cannot be both wide and winking",
    (43, 45): "a closed eye cannot blink",
    (43, 46): "a closed eye cannot wink",
    (45, 46): "a blink and a wink are not one movement",
    (25, 26): "the mouth has one degree of opening, 25 < 26 < 27",
    (25, 27): "the mouth has one degree of opening, 25 < 26 < 27",
    (26, 27): "the mouth has one degree of opening, 25 < 26 < 27",
    (24, 25): "pressed lips are not parted",
    (24, 26): "pressed lips do not open with the jaw",
    (24, 27): "pressed lips do not open wide",
    (24, 28): "lips sucked in are not pressed on each other",
}

WINK = 46  # one eye only

# (a, b): why the lesser of them is hardly seen
SOFT_CONFLICTS: dict[tuple[int, int], str] = {
    (12, 15): "the mouth corners are pulled up and down at once",
    (12, 14): "the dimpler flattens the smile on the same side",
    (18, 20): "the lips are puckered and stretched at once",
    (20, 22): "the lips are stretched and funnelled at once",
    (22, 28): "the lips are turned out and sucked in at once",
    (16, 17): "the lower lip is pulled down and pushed up at once",
    (9, 10): "the nose wrinkler already raises the upper lip",
    (23, 24): "tightening and pressing share one muscle",
}

# (emotion, unit): what makes the unit unusual there
EMOTION_CONFLICTS: dict[tuple[str, int], str] = {
    ("angry", 1): "raised inner brows soften an angry look",
    ("surprised", 4): "lowered brows turn surprise into fear",
}

# (unit, from level value, calls for, unless one of these is there, why); 27 already contains parted lips, and
# 9 draws brows and upper lip by itself, so neither needs a second unit
IMPLICATIONS: tuple[tuple[int, int, tuple[int, ...], tuple[int, ...], str], ...] = (
    (12, 4, (6,), (), "a strong smile raises the cheeks"),
    (1, 4, (2,), (4,), "strongly raised inner brows take the outer ends along"),
    (8, 1, (25, 26, 27), (), "lips move toward each other from an open mouth"),
    (16, 1, (25, 26, 27), (), "a lowered lower lip parts the lips"),
    (22, 1, (25, 26, 27), (), "funnelled lips part"),
    (28, 1, (26,), (), "lips are sucked in over a lowered jaw"),
)


def _name(unit: ActionUnit) -> str:
    side = "" if unit.side == "both" else f"{unit.side} "
    return f"AU{unit.number} ({side}{facts(unit.number).name})"


Pair = tuple[ActionUnit, ActionUnit, str]  # two units and why they disagree


def _pairs(units: Sequence[ActionUnit], table: dict[tuple[int, int], str]) -> list[Pair]:
    found = []
    for first, second in combinations(sorted(units, key=lambda u: u.number), 2):
        reason = table.get((first.number, second.number))
        if reason and sides_overlap(first, second):
            found.append((first, second, reason))
    return found


def hard_conflicts(units: Sequence[ActionUnit]) -> tuple[Finding, ...]:
    """What no face can do: opposite positions of one part, a unit twice on a side, a wink of both eyes."""
    found = [
        Finding((a.number, b.number), f"{_name(a)} and {_name(b)} exclude each other: {reason}; remove one")
        for a, b, reason in _pairs(units, HARD_EXCLUSIONS)
    ]
    for a, b in combinations(units, 2):
        if a.number == b.number and sides_overlap(a, b):
            text = f"AU{a.number} stands twice, at {a.level} and {b.level}; keep one or give each its own side"
            found.append(Finding((a.number, b.number), text))
    for unit in units:
        if unit.number == WINK and unit.side == "both":
            text = "AU46 (wink) has side both; make it left or right, or use AU45 (blink) for both eyes"
            found.append(Finding((WINK,), text))
    return tuple(found)


def soft_conflicts(units: Sequence[ActionUnit], emotion: str | None = None) -> tuple[Finding, ...]:
    """What a face can do but seldom does; with `emotion` (canonical) also what is unusual there."""
    found = []
    for a, b, reason in _pairs(units, SOFT_CONFLICTS):
        lesser = b if value(b) <= value(a) else a
        text = f"{_name(a)} works against {_name(b)}: {reason}; AU{lesser.number} will show less than it says"
        found.append(Finding((a.number, b.number), text))
    for unit in units:
        reason = EMOTION_CONFLICTS.get((emotion or "", unit.number))
        if reason:
            found.append(Finding((unit.number,), f"{_name(unit)} is unusual with {emotion}: {reason}"))
    return tuple(found)


def missing_implications(units: Sequence[ActionUnit]) -> tuple[Finding, ...]:
    """Units that the plan's units usually bring along, but that it lacks."""
    present = {u.number for u in units}
    found = []
    for unit in units:
        for number, least, wanted, unless, reason in IMPLICATIONS:
            if unit.number == number and value(unit) >= least and not present.intersection(wanted + unless):
                names = " or ".join(f"AU{n} ({facts(n).name})" for n in wanted)
                text = f"{_name(unit)} usually comes with {names}: {reason}"
                found.append(Finding((number, *wanted), text))
    return tuple(found)
