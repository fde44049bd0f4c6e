"""Measured numbers → `proof.md`. Every sentence that a number could make false is chosen by that number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..facs.emotions import EMOTIONS
from .comparisons import BASES


@dataclass(frozen=True)
class Goal:
    """A score's row: what it is, and what it should be."""

    score: str
    title: str
    least: float | None = None
    most: float | None = None
    form: str = ".2f"
    magnitude: bool = False  # of the value, without its sign

    def met(self, value: float) -> bool:
        value = abs(value) if self.magnitude else value
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def shown(self, value: float) -> str:
        """`value` with as many digits as it takes for the shown number to miss the goal where the value does."""
        texts = [format(value, f".{digits}f") for digits in range(int(self.form[1]), 5)]
        return next((text for text in texts if self.met(float(text)) == self.met(value)), texts[-1])

    @property
    def text(self) -> str:
        if self.magnitude:
            return f"within ±{self.most:g}"
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"


GOALS = (
    Goal("vae_psnr", "the autoencoder alone, held-out renders (dB)", least=33, form=".1f"),
    Goal("au_response_mean", "action units: r of asked and read level, mean", least=0.85),
    Goal("au_response_worst", "action units: the worst one", least=0.5),
    Goal("emotion_accuracy", "emotion read back among eight, Moderate and Intense", least=0.9),
    Goal("intensity_monotone", "Mild < Moderate < Intense", least=0.95),
    Goal("side_accuracy", "one-sided units on the asked side", least=0.9),
    Goal("lip_r_unseen", "mouth opening with the sound's own: r, unseen voices", least=0.8),
    Goal("lip_lag_frames", "lag of the best r (frames)", most=1, form=".0f", magnitude=True),
    Goal("lip_r_real", "the same r on the recordings given", least=0.65),
    Goal("identity_ratio", "identity and colour error over the autoencoder's own", most=1.3),
    Goal("seam_ratio", "change at clip seams over change within clips", most=1.3),
)

TABLE_TITLES = {
    "blends": "How one prompt gives way to the next",
    "thinking": "The bare label, CoT-FA, and CoT-FA guided progressively",
    "stages": "One, two or three stages",
}
TABLE_NOTES = {
    "blends": "Coarse and fine prompt, the bundle's split.",
    "thinking": "The label alone (as in the paper's baseline); the fine prompt alone; coarse then fine. The negative "
    "prompt is the same in all.",
    "stages": "k = 1 is the fine prompt alone, k = 2 coarse and fine, k = 3 label, coarse and fine in equal stages.",
}
GIVEN = "Recordings and portraits that the command names are not part of the project: give your own."
CAPTIONS = {
    "units.jpg": "**Action units**, one at a time: the person at rest, the renderer's truth and the model's drawing, "
    "for each sample that was judged (A to E: level; L, R: the subject's left or right alone).",
    "emotions.jpg": "**Emotions**: of each pair of rows the upper is the truth, the lower is drawn.",
    "lips.png": "**Lips**: grey the opening of the sound itself, red what is read from the drawn frames.",
    "seam.jpg": "**A seam**: four frames before and four after the first border between two clips.",
    "blends.jpg": "**Blends**: one person, Intense; the truth and each blend with the same noise.",
    "portraits.jpg": "**Real portraits**, at Intense: the bundle was trained on drawn faces alone, so this shows what "
    "it makes of pictures it was not made for. Nothing is measured here.",
}


def number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form)


def percent(share: float | None) -> str:
    return "(not measured)" if share is None else f"{100 * share:.0f} %"


def goal_rows(details: dict[str, Any]) -> list[str]:
    rows = []
    for goal in GOALS:
        value = details[goal.score]
        state = "not measured" if value is None else "met" if goal.met(value) else "**missed**"
        shown = "–" if value is None else goal.shown(value)
        ceiling = number(details["on_true_renders"].get(goal.score), goal.form)
        rows.append(
            f"| {goal.title} (`{goal.score}`) | {goal.text} | {shown} | {state} | "
            f"{details['cases'][goal.score]} | {ceiling} |"
        )
    return rows


def summary(details: dict[str, Any]) -> str:
    measured = [goal for goal in GOALS if details[goal.score] is not None]
    missed = [goal for goal in measured if not goal.met(details[goal.score])]
    text = f"{len(measured) - len(missed)} of the {len(measured)} goals that were measured are met."
    if missed:
        far = "; ".join(f"`{g.score}` is {g.shown(details[g.score])}, the goal {g.text}" for g in missed)
        text += f" Missed: {far}."
    return text


def interval_text(value: float | None, interval: Sequence[float] | None, form: str = ".2f") -> str:
    if value is None or interval is None:
        return "–"
    return f"{value:{form}} [{interval[0]:{form}}, {interval[1]:{form}}]"


def verdict(name: str, base: str, row: dict[str, Any]) -> str:
    """One sentence on a paired difference, as strong as its interval allows."""
    difference, interval = row["au_error_difference"], row["au_error_difference_interval"]
    if interval is None:
        return f"{name} was not compared."
    shown = f"{interval_text(difference, interval, '+.3f')} levels"
    if interval[0] <= 0 <= interval[1]:
        return f"{name} and {base} cannot be told apart by these pictures: difference in AU error {shown}."
    more = "more" if difference > 0 else "less"
    return f"{name} errs {more} than {base}: difference in AU error {shown}."


def comparison(title: str, rows: dict[str, dict[str, Any]], truth: dict[str, Any]) -> list[str]:
    base = BASES[title]
    lines = [
        f"### {TABLE_TITLES[title]}",
        TABLE_NOTES[title],
        "",
        "| | AU error (levels) | emotion read back |",
        "|---|---|---|",
    ]
    for name, row in (*rows.items(), ("*true renders*", truth)):
        error = interval_text(row["au_error"], row["au_error_interval"])
        hits = interval_text(row["emotion_accuracy"], row["emotion_accuracy_interval"])
        lines.append(f"| {name} | {error} | {hits} |")
    lines += ["", *(f"- {verdict(name, base, row)}" for name, row in rows.items() if name != base), ""]
    return lines


def unit_table(details: dict[str, Any]) -> list[str]:
    errors = details["reader"]["errors"]["au_rms"]
    response = sorted(details["detail"]["au_response"].items(), key=lambda item: item[1])
    points = {unit: len(both["asked"]) for unit, both in details["detail"]["au_levels"].items()}
    rows = [f"| {unit} | {r:.2f} | {points[unit]} | {errors[unit[2:]]:.2f} |" for unit, r in response]
    return ["| unit | r | points | the reader's own error (levels, RMS) |", "|---|---|---|---|", *rows]


def reader_text(details: dict[str, Any]) -> str:
    errors = details["reader"]["errors"]
    r2 = errors["identity_r2"]
    judged = details["detail"]["identity_numbers"]
    return (
        f"The readers are two small networks trained on true renders alone, never on drawings of the model. On "
        f"{errors['pictures']} true renders of {errors['people']} people held out they err by "
        f"{errors['au_rms_mean']:.2f} levels (RMS over all action units; a level is 1 of 5), read the mouth's opening "
        f"to {errors['mouth_rms'][0]:.2f} (of 1), the emotion right in {percent(errors['emotion_accuracy'])} "
        f"and the side in {percent(errors['side_accuracy'])}. Of {len(r2)} identity numbers "
        f"{len(judged)} are read well enough (R² ≥ 0.5) to be judged. The last column of the table, where it can "
        f"be said, is what the same readers find in the true renders after a trip through the autoencoder: a perfect "
        f"model would score that."
    )


def write_text(details: dict[str, Any], shown: Sequence[str], command: str) -> str:
    """`details` as in `proof.json`, `shown` the pictures there are."""
    voices, judged = len(details["detail"]["lips_unseen"]), (details["people"] + 1) // 2
    pair_count = next(iter(next(iter(details["comparisons"].values())).values()))["cases"]
    lines = [
        "# What the model does with what it is told",
        "",
        f"Model `{details['model']}`, {details['people']} people and {voices} voices it never met, seed "
        f"{details['seed']}; plans and words are those it was taught. "
        f"Made by `{command}`; the evaluation itself took {details['wall_seconds'] / 60:.0f} minutes. "
        "All numbers: [proof.json](proof.json).",
        "",
        summary(details),
        "",
        "| what | goal | measured | | cases | on true renders |",
        "|---|---|---|---|---|---|",
        *goal_rows(details),
        "",
        f"Identity error {number(details['identity_error'], '.3f')} (autoencoder alone "
        f"{number(details['identity_error_vae'], '.3f')}), colour error {number(details['colour_error'], '.4f')} "
        f"(autoencoder alone {number(details['colour_error_vae'], '.4f')}); `identity_ratio` is the mean of the two "
        "ratios.",
        "",
        "## How it is measured",
        reader_text(details),
        "",
        "Every face is drawn with the bundle's defaults through the same code as `tbd generate`: a silent clip, of "
        "which three frames are read and the median is taken (so that a blink does not count). Units are asked one at "
        "a time under a neutral emotion, emotions at three intensities: "
        f"{', '.join(e for e in EMOTIONS if e != 'neutral')}. "
        "Recordings are drawn clip after clip, their first 8 s at most, each by another person.",
        "",
        *([GIVEN, ""] if "--speech" in command or "--portraits" in command else []),
        *(f"- {note}" for note in details["notes"]),
        "",
        "## What it draws",
        "",
    ]
    for name in shown:
        lines += [CAPTIONS[name], "", f"![{name.split('.')[0]}](proof/{name})", ""]
    lines += ["## Each action unit", "", *unit_table(details), "", "## What each idea is worth", ""]
    lines += [
        f"{pair_count} pictures (every emotion at Intense; {judged} of the people, one noise for each), the same in "
        "every row; 95 % bootstrap intervals over these pictures, which say nothing about other people. Differences "
        "are paired. AU error: RMS over all units and sides of read minus planned; in true renders, after a trip "
        "through the autoencoder, it is the readers' own.",
        "",
    ]
    for title, rows in details["comparisons"].items():
        lines += comparison(title, rows, details["comparisons_on_true_renders"])
    return "\n".join(lines).rstrip() + "\n"


__all__ = ["GOALS", "Goal", "summary", "verdict", "write_text"]
