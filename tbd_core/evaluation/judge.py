"""Cases and what was read from their pictures → scores, with the number of cases each rests on.

The same functions judge the model's drawings and the true renders, so that what the readers themselves cost is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..data.plans import unit_levels
from ..facs.action_units import value
from ..facs.emotions import EMOTIONS, INTENSITIES
from ..flow import LEVELS
from ..synthetic.face import AU_NUMBERS, IDENTITY
from . import scores
from .cases import Case
from .readers import Readers, Readings


TOP = len(LEVELS)  # levels count 0 (absent) to 5 (E)
BLOCK = 8  # pixels a side of the blocks whose mean colours are compared
READABLE = 0.5  # R² on true renders from which on an identity number is judged


@dataclass
class Scores:
    """Score by name, what it rests on, and what else was found on the way."""

    values: dict[str, float | None] = field(default_factory=dict)
    cases: dict[str, int] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: float | None, cases: int) -> None:
        self.values[name] = None if value is None else round(float(value), 4)
        self.cases[name] = cases if value is not None else 0

    def update(self, other: Scores) -> None:
        self.values.update(other.values)
        self.cases.update(other.cases)
        self.detail.update(other.detail)


def expressions(cases: Sequence[Case], read: Readings) -> Scores:
    """Action units, their sides, emotions and intensities. `read` has one row for each of `cases`."""
    made = Scores()
    for judge in (unit_scores, side_scores, emotion_scores, intensity_scores):
        made.update(judge(cases, read))
    return made


def unit_scores(cases: Sequence[Case], read: Readings) -> Scores:
    """Pearson's r of asked against read level (0 to 5) for each unit alone over its samples and everybody at rest, who
    is level 0. Where one side was asked, it is read on that side."""
    made, response, count = Scores(), {}, {}
    rest = [i for i, case in enumerate(cases) if case.kind == "rest"]
    for number in dict.fromkeys(case.unit.number for case in cases if case.kind == "unit"):
        column = AU_NUMBERS.index(number)
        both = TOP * read.units[:, column].mean(1)
        asked, seen = [0.0] * len(rest), both[rest].tolist()
        for i, case in enumerate(cases):
            if case.kind != "unit" or case.unit.number != number:
                continue
            side = {"both": both[i], "left": TOP * read.units[i, column, 0], "right": TOP * read.units[i, column, 1]}
            asked.append(float(value(case.unit)))
            seen.append(float(side[case.unit.side]))
        r = scores.pearson(asked, seen)
        if r is not None:
            response[number], count[number] = r, len(asked)
        made.detail.setdefault("au_levels", {})[f"AU{number}"] = {"asked": asked, "read": [round(x, 2) for x in seen]}
    worst = min(response, key=lambda n: response[n], default=None)
    units = sum(case.kind == "unit" for case in cases)
    made.add("au_response_mean", fmean(response.values()) if response else None, units + len(rest))
    made.add("au_response_worst", None if worst is None else response[worst], 0 if worst is None else count[worst])
    made.detail["au_response"] = {f"AU{number}": round(r, 3) for number, r in response.items()}
    return made


def side_scores(cases: Sequence[Case], read: Readings) -> Scores:
    """How often the asked side of a one-sided unit reads higher than the other."""
    made, right, by_unit = Scores(), [], {}
    for i, case in enumerate(cases):
        if case.kind == "unit" and case.unit.side != "both":
            left, other = read.units[i, AU_NUMBERS.index(case.unit.number)].tolist()
            right.append(left > other if case.unit.side == "left" else other > left)
            by_unit.setdefault(f"AU{case.unit.number}", []).append(bool(right[-1]))
    made.add("side_accuracy", scores.mean(right), len(right))
    made.detail["sides"] = by_unit
    return made


def emotion_scores(cases: Sequence[Case], read: Readings) -> Scores:
    """How often the emotion is read back among eight: neutral, and the others at Moderate and Intense."""
    made, hits = Scores(), []
    confusion: dict[str, dict[str, int]] = {}
    for i, case in enumerate(cases):
        if case.kind == "rest" or (case.kind == "emotion" and case.plan.intensity in INTENSITIES[1:]):
            seen = EMOTIONS[int(read.emotions[i].argmax())]
            hits.append(seen == case.plan.emotion)
            row = confusion.setdefault(case.plan.emotion, {})
            row[seen] = row.get(seen, 0) + 1
    made.add("emotion_accuracy", scores.mean(hits), len(hits))
    made.detail["emotion_confusion"] = confusion
    return made


def intensity_scores(cases: Sequence[Case], read: Readings) -> Scores:
    """Share of (person, emotion) whose reading rises strictly from Mild to Intense along the emotion's own Intense
    plan."""
    made, found = Scores(), {}
    intense = {c.plan.emotion: c.plan for c in cases if c.kind == "emotion" and c.plan.intensity == INTENSITIES[-1]}
    for i, case in enumerate(cases):
        if case.kind == "emotion" and case.plan.emotion in intense:
            along = unit_levels([intense[case.plan.emotion]])[0]
            line = found.setdefault((case.person, case.plan.emotion), {})
            line[case.plan.intensity] = scores.projection(read.units[i], along)
    lines = {key: [line[name] for name in INTENSITIES] for key, line in found.items() if len(line) == len(INTENSITIES)}
    made.add("intensity_monotone", scores.mean([scores.rises(line) for line in lines.values()]), len(lines))
    made.detail["intensity"] = {
        f"person {who}, {name}": [round(x, 3) for x in line] for (who, name), line in lines.items()
    }
    return made


def unit_error(case: Case, units: Tensor) -> float:
    """Root mean square over units and sides of read minus asked, in levels 0-5. `units` [NUM_UNITS, 2] in 0..1."""
    return scores.rms(TOP * (units - unit_levels([case.plan])[0]))


def blocks(pictures: Tensor) -> Tensor:
    """[B, 3, H, W] in [0, 1] → mean colours of blocks of 8 x 8 pixels."""
    return avg_pool2d(pictures, BLOCK)


def identity_scores(
    readers: Readers, identity: Tensor, truth: Tensor, drawn: Tensor, round_trip: Tensor
) -> Scores:  # fmt: skip
    """Who is drawn and in which colours, against what the autoencoder alone makes of the true picture.

    `identity` [n, NUM_IDENTITY]; pictures [n, 3, H, W] in [0, 1]. Identity: RMS over the numbers that the reader reads
    with R² of at least 0.5 on true renders. Colour: mean absolute difference of block means to the true render.
    `identity_ratio` is the mean of the two ratios.
    """
    made, r2 = Scores(), readers.about["errors"]["identity_r2"]
    readable = [i for i, name in enumerate(IDENTITY) if (r2.get(name) or 0) >= READABLE]
    errors: dict[str, float] = {}
    for ending, pictures in (("", drawn), ("_vae", round_trip)):
        if readable:
            errors["identity_error" + ending] = scores.rms((readers.who(pictures) - identity)[:, readable])
        errors["colour_error" + ending] = float((blocks(pictures) - blocks(truth)).abs().mean())
    names = ("identity_error", "colour_error")
    ratios = [errors[name] / errors[f"{name}_vae"] for name in names if errors.get(f"{name}_vae")]
    made.add("identity_ratio", fmean(ratios) if len(ratios) == 2 else None, len(drawn))
    for name in ("identity_error", "identity_error_vae", "colour_error", "colour_error_vae"):
        made.add(name, errors.get(name), len(drawn))
    made.detail["identity_numbers"] = [IDENTITY[i] for i in readable]
    return made


@dataclass(frozen=True)
class Spoken:
    """A recording as it was drawn."""

    name: str
    asked: list[float]  # mouth opening of the sound itself, one number a frame
    read: list[float] | None  # that of the drawn frames
    changes: list[float]  # mean absolute change from each frame to the next, in [0, 1]
    seams: list[int]  # which of the changes lie between two clips


def lip_scores(unseen: Sequence[Spoken], real: Sequence[Spoken]) -> Scores:
    """Opening drawn against the opening of the sound: r at lag 0 (mean over recordings) and the lag of the best r."""
    made = Scores()
    for ending, spoken in (("unseen", unseen), ("real", real)):
        # Two files may have one name, in two folders.
        curves = [(s.name, scores.lag_curve(s.asked, s.read)) for s in spoken if s.read is not None]
        at_once = [(name, r) for name, curve in curves if (r := curve[0]) is not None]
        made.add(f"lip_r_{ending}", scores.mean([r for _, r in at_once]), len(at_once))
        lag = scores.best_lag([curve for _, curve in curves])
        if ending == "unseen":
            made.add("lip_lag_frames", lag, len(at_once))
        made.detail[f"lips_{ending}"] = [{"recording": name, "r": round(r, 3)} for name, r in at_once]
        made.detail[f"lip_lag_{ending}"] = lag
    return made


def seam_scores(spoken: Sequence[Spoken], least_clips: int = 5) -> Scores:
    """Change at clip seams over change within clips, medians over all recordings of at least `least_clips` clips."""
    made, changes, seams = Scores(), [], []
    for one in spoken:
        if len(one.seams) + 1 >= least_clips:
            seams += [len(changes) + i for i in one.seams]
            changes += one.changes
    made.add("seam_ratio", scores.seam_ratio(changes, seams), len(seams))
    return made


def select(read: Readings, rows: Any) -> Readings:
    return Readings(*(getattr(read, name)[rows] for name in Readings.__dataclass_fields__))


def median(read: Readings, per: int) -> Readings:
    """Readings of `per` frames a case, one case after the other → the median of each case."""

    def middle(values: Tensor) -> Tensor:
        return values.unflatten(0, (-1, per)).median(1).values

    return Readings(*(middle(getattr(read, name)) for name in Readings.__dataclass_fields__))


__all__ = [
    "Scores", "Spoken", "blocks", "emotion_scores", "expressions", "identity_scores", "intensity_scores", "lip_scores",
    "median", "seam_scores", "select", "side_scores", "unit_error", "unit_scores",
]  # fmt: skip
