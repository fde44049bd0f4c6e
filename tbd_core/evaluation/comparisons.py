"""What each idea is worth: the same people, plans and noise, guided in different ways, judged by the same readings.

Two numbers a picture: how far its action units lie from the plan (RMS in levels), and whether its emotion is read back.
Intervals are bootstrapped over pictures; differences are paired, because every way draws the same pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..facs.emotions import EMOTIONS, INTENSITIES
from . import judge, scores
from .cases import Case
from .draw import MIDDLE, Way
from .evaluate import Evaluation, read_stills, unit_range


COARSE_FINE, FINE = ("coarse", "fine"), ("fine",)

# Each table of the proof: name → the ways beside each other.
TABLES: dict[str, dict[str, Way]] = {
    "blends": {
        "paper": Way(COARSE_FINE, "paper"),
        "smooth": Way(COARSE_FINE, "smooth"),
        "hard": Way(COARSE_FINE, "hard"),
    },
    "thinking": {
        "label only": Way(("label",)),
        "CoT-FA": Way(FINE),
        "CoT-FA + progressive": Way(COARSE_FINE),
    },
    "stages": {
        "k = 1": Way(FINE),
        "k = 2": Way(COARSE_FINE),
        "k = 3": Way(("label", "coarse", "fine")),
    },
}
BASES = {"blends": "hard", "thinking": "CoT-FA + progressive", "stages": "k = 2"}  # what the others are compared with


@dataclass(frozen=True)
class Outcome:
    """One way over all compared cases, in their order."""

    errors: list[float]  # levels
    hits: list[bool]
    pictures: Tensor  # uint8 [n, 3, H, W], middle frames

    def row(self, other: Outcome) -> dict:
        """Numbers for the proof; `other` is what it is compared with."""
        differences = [a - b for a, b in zip(self.errors, other.errors, strict=True)]
        return {
            "au_error": scores.mean(self.errors),
            "au_error_interval": scores.interval(self.errors),
            "emotion_accuracy": scores.mean(self.hits),
            "emotion_accuracy_interval": scores.interval(self.hits),
            "au_error_difference": scores.mean(differences),
            "au_error_difference_interval": scores.interval(differences),
            "cases": len(self.errors),
        }


def compared(cases: Iterable[Case]) -> list[int]:
    """Which of `cases` are compared: emotions at Intense."""
    return [i for i, case in enumerate(cases) if case.kind == "emotion" and case.plan.intensity == INTENSITIES[-1]]


def resolve(way: Way, blend: str) -> Way:
    """With the bundle's own `blend` filled in; with one stage all blends are the same."""
    return Way(way.stages, "hard" if len(way.stages) == 1 else way.blend or blend)


def ways(blend: str) -> list[Way]:
    """Every way of the tables once, without the bundle's own, which the evaluation drew already."""
    wanted = [resolve(way, blend) for table in TABLES.values() for way in table.values()]
    return [way for way in dict.fromkeys(wanted) if way != resolve(Way(), blend)]


def count_clips(cases: list[Case], blend: str) -> int:
    return len(compared(cases)) * len(ways(blend))


def compare(made: Evaluation) -> dict[Way, Outcome]:
    """Draw every way of `TABLES`; what the evaluation drew already is taken from it."""
    readers, read = made.setup.readers, made.read
    assert readers is not None and read is not None
    rows = compared(made.cases)
    cases = [made.cases[i] for i in rows]
    blend = made.studio.config.defaults.blend
    outcomes = {resolve(Way(), blend): outcome(cases, judge.select(read, rows), made.drawn[rows])}
    portraits = made.portraits[[case.person for case in cases]]
    seed = made.setup.options.seed
    for way in ways(blend):
        seen = [made.studio.still(made.sitters[c.person], c, seed + c.person, way) for c in cases]
        pictures = torch.stack([frames[MIDDLE] for frames in seen])
        outcomes[way] = outcome(cases, read_stills(readers, seen, portraits), pictures)
    return outcomes


def outcome(cases: list[Case], read: judge.Readings, pictures: Tensor) -> Outcome:
    errors = [judge.unit_error(case, units) for case, units in zip(cases, read.units, strict=True)]
    hits = [EMOTIONS[int(row.argmax())] == case.plan.emotion for case, row in zip(cases, read.emotions, strict=True)]
    return Outcome(errors, hits, pictures)


def truth(made: Evaluation) -> dict:
    """What the same readings find in the true pictures after a trip through the autoencoder: a perfect model's row in
    every table."""
    readers = made.setup.readers
    assert readers is not None
    rows = compared(made.cases)
    cases = [made.cases[i] for i in rows]
    pictures = torch.stack([made.studio.round_trip(unit_range(made.truth[i])) for i in rows])
    read = readers.read(unit_range(pictures), made.portraits[[case.person for case in cases]])
    perfect = outcome(cases, read, pictures)
    return perfect.row(perfect)


def tables(outcomes: dict[Way, Outcome], blend: str) -> dict[str, dict[str, dict]]:
    """Table → way → numbers."""
    made = {}
    for title, table in TABLES.items():
        found = {name: outcomes[resolve(way, blend)] for name, way in table.items()}
        base = found[BASES[title]]
        made[title] = {name: one.row(base) for name, one in found.items()}
    return made


__all__ = ["BASES", "TABLES", "Outcome", "compare", "compared", "count_clips", "resolve", "tables", "truth", "ways"]
