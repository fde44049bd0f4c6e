"""The action units of FACS as data: what each is called, which muscles pull, what the face then does.

Numbers, names and muscles are facts (FACS, edition of 2002: no 41, 42 and 44 beside 43 and 7); every phrase
is ours. Face units 1-28, 38, 39, 43, 45, 46; head turns and tilts 51-58; gaze 61-64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..flow import LEVELS, SIDES, ActionUnit


LEVEL_WORDS = {"A": "trace", "B": "slight", "C": "marked", "D": "severe", "E": "maximal"}
LEVEL_VALUES = {level: value for value, level in enumerate(LEVELS, start=1)}  # A 1 ... E 5; 0 is absent


@dataclass(frozen=True)
class UnitFacts:
    """One row of the table. `movement` and `one_side` are participle phrases that follow "with"."""

    name: str
    muscles: tuple[str, ...]  # the first one is the main one
    region: str  # upper | lower | neck | head | gaze
    movement: str
    one_side: str | None  # the same with {side}; None: the unit has no sides
    tissue: str = ""  # what skin and fat then do, a noun phrase; "" where nothing is worth saying


def _row(name, muscles, region, movement, one_side=None, tissue="") -> UnitFacts:
    return UnitFacts(name, tuple(muscles.split("; ")), region, movement, one_side, tissue)


# fmt: off
ACTION_UNITS: dict[int, UnitFacts] = {
    1: _row("inner brow raiser", "frontalis (medial part)", "upper",
            "the inner brows lifted", "the inner {side} brow lifted",
            "creasing in the middle of the forehead"),
    2: _row("outer brow raiser", "frontalis (lateral part)", "upper",
            "the outer brow ends arched high", "the outer end of the {side} brow arched",
            "wrinkling across the sides of the forehead"),
    4: _row("brow lowerer", "corrugator supercilii; depressor supercilii; procerus", "upper",
            "the brows lowered and drawn together", "the {side} brow lowered and drawn inward",
            "furrowing between the brows"),
    5: _row("upper lid raiser", "levator palpebrae superioris; superior tarsal muscle", "upper",
            "the upper eyelids raised", "the upper {side} eyelid raised",
            "baring of the white above the iris"),
    6: _row("cheek raiser", "orbicularis oculi (orbital part)", "upper",
            "the cheeks raised", "the {side} cheek raised",
            "bunching of the cheeks below crinkled eye corners"),
    7: _row("lid tightener", "orbicularis oculi (palpebral part)", "upper",
            "the eyelids tightened", "the {side} eyelids tightened",
            "bulging of the skin under the lower lids"),
    8: _row("lips toward each other", "orbicularis oris", "lower",
            "the lips drawn toward each other", "the lips drawn toward each other on the {side}"),
    9: _row("nose wrinkler", "levator labii superioris alaeque nasi", "lower",
            "the nose wrinkled and its wings drawn up", "the {side} side of the nose wrinkled",
            "creasing along the bridge of the nose"),
    10: _row("upper lip raiser", "levator labii superioris", "lower",
             "the upper lip raised", "the {side} half of the upper lip raised",
             "deepening of the fold beside the nostrils"),
    11: _row("nasolabial deepener", "zygomaticus minor", "lower",
             "the middle of the nose-to-mouth fold deepened",
             "the middle of the {side} nose-to-mouth fold deepened"),
    12: _row("lip corner puller", "zygomaticus major", "lower",
             "the corners of the mouth pulled up and back",
             "the {side} corner of the mouth pulled up and back",
             "forward swelling of the cheek fat pads"),
    13: _row("sharp lip puller", "levator anguli oris", "lower",
             "the mouth corners pulled sharply up", "the {side} mouth corner pulled sharply up",
             "puffing of the cheeks above the mouth corners"),
    14: _row("dimpler", "buccinator", "lower",
             "the mouth corners tightened inward", "the {side} mouth corner tightened inward",
             "dimpling beside the mouth"),
    15: _row("lip corner depressor", "depressor anguli oris", "lower",
             "the mouth corners drawn down", "the {side} mouth corner drawn down",
             "pouching of the skin below the mouth corners"),
    16: _row("lower lip depressor", "depressor labii inferioris", "lower",
             "the lower lip pulled down", "the {side} half of the lower lip pulled down"),
    17: _row("chin raiser", "mentalis", "lower",
             "the chin pushed up", "the {side} side of the chin pushed up",
             "dimpled wrinkling of the chin"),
    18: _row("lip pucker", "incisivus labii superioris; incisivus labii inferioris", "lower",
             "the lips puckered forward", "the lips puckered forward on the {side}"),
    19: _row("tongue show", "genioglossus", "lower", "the tongue shown"),
    20: _row("lip stretcher", "risorius; platysma", "lower",
             "the lips stretched sideways", "the lips stretched to the {side}",
             "flattening of the cheeks beside the mouth"),
    21: _row("neck tightener", "platysma", "neck",
             "the neck tightened", "the {side} side of the neck tightened",
             "cording of the skin of the neck"),
    22: _row("lip funneler", "orbicularis oris", "lower",
             "the lips funnelled outward", "the lips funnelled outward on the {side}"),
    23: _row("lip tightener", "orbicularis oris", "lower",
             "the lips tightened and narrowed", "the lips tightened on the {side}",
             "thinning of the red of the lips"),
    24: _row("lip pressor", "orbicularis oris", "lower",
             "the lips pressed together", "the lips pressed together on the {side}",
             "bulging of the skin above and below the lips"),
    25: _row("lips part", "depressor labii inferioris", "lower",
             "the lips parted", "the lips parted on the {side}"),
    26: _row("jaw drop", "masseter (relaxed)", "lower", "the jaw dropped"),
    27: _row("mouth stretch", "lateral pterygoid; digastric", "lower", "the mouth stretched wide open"),
    28: _row("lip suck", "orbicularis oris", "lower", "the lips sucked in"),
    38: _row("nostril dilator", "nasalis (alar part)", "lower",
             "the nostrils flared", "the {side} nostril flared"),
    39: _row("nostril compressor", "nasalis (transverse part)", "lower",
             "the nostrils narrowed", "the {side} nostril narrowed"),
    43: _row("eye closure", "orbicularis oculi (palpebral part)", "upper",
             "the eyes closed", "the {side} eye closed"),
    45: _row("blink", "orbicularis oculi (palpebral part)", "upper",
             "the eyes blinking", "the {side} eye blinking"),
    46: _row("wink", "orbicularis oculi (palpebral part)", "upper",
             "one eye winking", "the {side} eye winking"),
    51: _row("head turn left", "sternocleidomastoid", "head", "the head turned left"),
    52: _row("head turn right", "sternocleidomastoid", "head", "the head turned right"),
    53: _row("head up", "splenius capitis", "head", "the head raised"),
    54: _row("head down", "longus capitis", "head", "the head lowered"),
    55: _row("head tilt left", "scalenus medius", "head", "the head tilted left"),
    56: _row("head tilt right", "scalenus medius", "head", "the head tilted right"),
    57: _row("head forward", "sternocleidomastoid", "head", "the head pushed forward"),
    58: _row("head back", "semispinalis capitis", "head", "the head drawn back"),
    61: _row("eyes turn left", "lateral rectus; medial rectus", "gaze", "the gaze turned left"),
    62: _row("eyes turn right", "lateral rectus; medial rectus", "gaze", "the gaze turned right"),
    63: _row("eyes up", "superior rectus; inferior oblique", "gaze", "the gaze raised"),
    64: _row("eyes down", "inferior rectus; superior oblique", "gaze", "the gaze lowered"),
}
# fmt: on

MIDLINE_MUSCLES = frozenset(  # one muscle, not a left and a right one
    {"orbicularis oris", "procerus", "mentalis", "genioglossus"}
)


def facts(number: int) -> UnitFacts:
    """The table's row of action unit `number`; InputError names the known numbers."""
    row = ACTION_UNITS.get(number)
    if row is None:
        known = ", ".join(map(str, ACTION_UNITS))
        raise InputError(f"there is no action unit {number!r}; choose one of {known}")
    return row


def make_unit(number: int, level: str = "C", side: str = "both") -> ActionUnit:
    """Action unit `number` (FACS) at `level` A-E on `side` both, left or right (the subject's own)."""
    row = facts(number)
    if level not in LEVELS:
        words = ", ".join(f"{letter} ({word})" for letter, word in LEVEL_WORDS.items())
        raise InputError(f"action unit {number} has level {level!r}; choose one of {words}")
    if side not in SIDES:
        raise InputError(f"action unit {number} has side {side!r}; choose one of {', '.join(SIDES)}")
    if side != "both" and row.one_side is None:
        raise InputError(f"action unit {number} ({row.name}) has no {side} side; its side can only be both")
    return ActionUnit(number=number, name=row.name, level=level, side=side, muscles=row.muscles)


def movement(unit: ActionUnit) -> str:
    """What the face does, e.g. "the left mouth corner tightened inward"."""
    row = facts(unit.number)
    if unit.side == "both" or row.one_side is None:
        return row.movement
    return row.one_side.format(side=unit.side)


def value(unit: ActionUnit) -> int:
    """Level of `unit` as a number, A 1 ... E 5."""
    return LEVEL_VALUES[unit.level]


def sides_overlap(a: ActionUnit, b: ActionUnit) -> bool:
    """Whether both units pull on a common side of the face."""
    return a.side == b.side or "both" in (a.side, b.side)


def describe(unit: ActionUnit) -> str:
    """ "AU14 dimpler, marked (C), left" """
    side = "" if unit.side == "both" else f", {unit.side}"
    return f"AU{unit.number} {unit.name}, {LEVEL_WORDS[unit.level]} ({unit.level}){side}"


def describe_all(units: Sequence[ActionUnit]) -> str:
    """The plan in short: "6C + 12C + R14B", as FACS coders write it (the neutral face is 0)."""
    prefix = {"both": "", "left": "L", "right": "R"}
    return " + ".join(f"{prefix[u.side]}{u.number}{u.level}" for u in units) or "0"
