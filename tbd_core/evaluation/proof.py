"""`tbd evaluate --proof FOLDER`: one evaluation and what else can be seen, as `proof.md`, `proof.json` and pictures.

Every sentence that could be true or false of a model is made from the numbers of the same run (`proof_text.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import InputError
from ..facs.emotions import INTENSITIES
from ..files import atomic, check_new_file, write_error
from ..portrait import load_portrait
from . import comparisons, pictures
from .account import write_scores
from .cases import make_case
from .draw import MIDDLE
from .evaluate import Bar, Evaluation, Setup, evaluate, to_bytes
from .proof_text import write_text


if TYPE_CHECKING:
    from PIL import Image

SIDE = {"both": "", "left": "L", "right": "R"}  # before a level, as in FACS
SHOWN_EMOTIONS = ("happy", "sad", "surprised")  # of a real portrait, at Intense
CELL = 88  # pixels of a face in the grids


@dataclass(frozen=True)
class ProofOptions:
    """What the proof adds to an evaluation."""

    folder: Path
    command: str  # that makes it, as the text shall quote it
    portraits: tuple[Path, ...] = ()  # real ones, shown and not judged


def check_proof(options: ProofOptions, setup: Setup) -> list[tuple[str, Tensor]]:
    """Name and picture [3, H, W] in [0, 1] of every real portrait. InputError when one cannot be used, when nothing can
    be written, or when the bundle's drawings cannot be read."""
    if setup.readers is None:
        raise InputError(f"{setup.options.model} cannot be proved: {setup.unread}; run without --proof")
    check_new_file(options.folder / "proof.md", ".md")
    check_new_file(options.folder / "proof" / "units.jpg", ".jpg")
    square = setup.config.defaults.size
    return [(path.name, (load_portrait(path, None, square).pixels[0] + 1) / 2) for path in options.portraits]


def prove(setup: Setup, options: ProofOptions, bar: Bar | None = None) -> dict[str, Any]:
    """Evaluate, compare, draw, write; returns what `evaluate --json` prints and where the proof lies."""
    portraits = check_proof(options, setup)
    compared = comparisons.count_clips(setup.silent, setup.config.defaults.blend)
    extra = compared + len(portraits) * len(SHOWN_EMOTIONS)
    made = evaluate(setup, bar, extra)
    outcomes = comparisons.compare(made)
    blend = setup.config.defaults.blend
    tables = comparisons.tables(outcomes, blend)
    shown = {
        "units.jpg": draw_units(made),
        "emotions.jpg": draw_emotions(made),
        "lips.png": draw_lips(made),
        "seam.jpg": draw_seam(made),
        "blends.jpg": draw_blends(made, outcomes, blend),
        "portraits.jpg": draw_portraits(made, portraits),
    }
    details = {
        **made.result,
        "reader": setup.readers.about if setup.readers else None,
        "detail": made.scores.detail,
        "on_true_renders": made.ceiling.values,
        "comparisons": tables,
        "comparisons_on_true_renders": comparisons.truth(made),
        "training": setup.about.get("training"),
    }
    write(options, {name: sheet for name, sheet in shown.items() if sheet}, details)
    write_scores(setup.options.model, details, options.command, shown["emotions.jpg"])
    return {**made.result, "proof": str(options.folder / "proof.md")}


def write(options: ProofOptions, shown: dict[str, Image.Image], details: dict[str, Any]) -> None:
    """Pictures, JSON and text; the text comes last. InputError when the disk does not take them."""
    folder = options.folder / "proof"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, sheet in shown.items():
            with atomic(folder / name) as partial:
                sheet.save(partial, optimize=True, quality=82)
        text = write_text(details, list(shown), options.command)
        for name, content in (("proof.json", json.dumps(details, indent=1) + "\n"), ("proof.md", text)):
            with atomic(options.folder / name) as partial:
                partial.write_text(content, encoding="utf-8")
    except OSError as error:
        raise write_error(options.folder, error) from error


# ---- pictures


def draw_units(made: Evaluation) -> Image.Image:
    """For each unit its samples: the person at rest, the truth, the drawing."""
    found: dict[int, list[int]] = {}
    for i, case in enumerate(made.cases):
        if case.kind == "unit":
            found.setdefault(case.unit.number, []).append(i)
    rows, titles = [], []
    for number, samples in found.items():
        asked = [SIDE[made.cases[i].unit.side] + made.cases[i].unit.level for i in samples]
        titles.append(f"AU{number}: {', '.join(asked)}")
        rows.append([])
        for i in samples:
            rows[-1] += [to_bytes(made.portraits[made.cases[i].person]), made.truth[i], made.drawn[i]]
    columns = ["at rest", "true", "drawn"] * max(map(len, found.values()))
    return pictures.grid(rows, titles, columns, CELL)


def draw_emotions(made: Evaluation) -> Image.Image:
    """Of the first two people: truth above, drawn below, for each intensity."""
    found = {(c.person, c.plan.intensity, c.plan.emotion): i for i, c in enumerate(made.cases) if c.kind == "emotion"}
    emotions = made.setup.sizes.emotions
    rows, titles = [], []
    for person in sorted({key[0] for key in found})[:2]:
        for intensity in INTENSITIES:
            cases = [found[person, intensity, emotion] for emotion in emotions]
            for title, sheet in (("true", made.truth), ("drawn", made.drawn)):
                rows.append([to_bytes(made.portraits[person]), *(sheet[i] for i in cases)])
                titles.append(f"{intensity}, {title}")
    return pictures.grid(rows, titles, ["portrait", *emotions], CELL)


def draw_lips(made: Evaluation) -> Image.Image:
    return pictures.curves([(one.name, one.asked, one.read) for one in made.spoken if one.read is not None])


def draw_seam(made: Evaluation) -> Image.Image | None:
    if made.seam is None:
        return None
    half = len(made.seam) // 2
    titles = [f"-{half - i}" if i < half else f"+{i - half + 1}" for i in range(len(made.seam))]
    return pictures.grid([list(made.seam)], [""], titles, CELL)


def draw_blends(made: Evaluation, outcomes: dict, blend: str) -> Image.Image:
    """The first person, Intense: the truth, and each blend below it."""
    compared = [made.cases[i] for i in comparisons.compared(made.cases)]
    rows_of = [i for i, c in enumerate(compared) if c.person == 0 and c.plan.intensity == INTENSITIES[-1]]
    truth = made.truth[comparisons.compared(made.cases)]
    rows, titles = [[truth[i] for i in rows_of]], ["true"]
    for name, way in sorted(comparisons.TABLES["blends"].items()):
        rows.append([outcomes[comparisons.resolve(way, blend)].pictures[i] for i in rows_of])
        titles.append(name)
    return pictures.grid(rows, titles, [compared[i].plan.emotion for i in rows_of], CELL)


def draw_portraits(made: Evaluation, portraits: Sequence[tuple[str, Tensor]]) -> Image.Image | None:
    rows = []
    for _, pixels in portraits:
        sitter = made.studio.seat(pixels)
        cases = [make_case("portrait", 0, emotion, INTENSITIES[-1]) for emotion in SHOWN_EMOTIONS]
        drawn = [made.studio.still(sitter, case, made.setup.options.seed)[MIDDLE] for case in cases]
        rows.append([to_bytes(pixels), *drawn])
    names = [name[:20] for name, _ in portraits]
    return pictures.grid(rows, names, ["portrait", *SHOWN_EMOTIONS], 128) if rows else None


__all__ = ["ProofOptions", "check_proof", "draw_emotions", "prove"]
