"""Where the face is: said by a person or found by a detector, one of them chosen, each answer told in one line.

A box that a person gives is taken as it is and never looked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .detectors import COMMAND_LINE, DETECTORS, Box, Detector, Face, Lbp, Words, load_detector
from .errors import InputError


if TYPE_CHECKING:
    from PIL import Image

Which = str | int | Box  # "whole", "largest", a number from 1, or a box

DEFAULT_MARGIN = 0.5
MOST_MARGIN = 4.0
MIN_FACE = 8  # pixels, each side of a box that is given: less is a slip of the pen
SHOWN = 8  # faces that a message lists


@dataclass(frozen=True)
class Choice:
    """What was found and taken. face  None: the whole picture"""

    face: Face | None
    said: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """What a user asks of the face; `request` checks what the command line says of it."""

    which: Which = "whole"
    margin: float = DEFAULT_MARGIN  # on each side of the face, as a share of its box
    detector: str = "lbp"
    model: Path | None = None
    words: Words = COMMAND_LINE


def request(
    face: str, margin: float | None = None, detector: str | None = None, model: str | Path | None = None
) -> Request:
    """The words of the options as a Request; None: the default. Raises InputError, also for what would be ignored."""
    which = parse_face(face)
    if margin is not None and not 0 <= margin <= MOST_MARGIN:  # NaN is not between either
        raise InputError(f"--face-margin is {margin:g}; give a number from 0 to {MOST_MARGIN:g}")
    if margin is not None and which == "whole":
        raise InputError(f"--face-margin is {margin:g}, but face is whole, which has no margin; set face to auto")
    searched = which != "whole" and not isinstance(which, tuple)
    for name, value in (("detector", detector), ("model", model)):
        if value is not None and not searched:
            raise InputError(f"--face-{name} is {value}, but face is {face}, and none is searched; set face to auto")
    if detector is not None and detector not in DETECTORS:
        raise InputError(f"unknown face detector {detector!r}; choose one of {', '.join(DETECTORS)}")
    detector = detector or Lbp.name
    if model is not None and detector == Lbp.name:
        others = " or ".join(name for name in DETECTORS if name != Lbp.name)
        raise InputError(f"--face-model is {model}, but lbp brings its own; set --face-detector to {others}")
    return Request(which, DEFAULT_MARGIN if margin is None else margin, detector, Path(model) if model else None)


def parse_face(text: str) -> Which:
    """auto (or largest) → "largest"; whole; "2" → 2; "10,20,30,40" → that box. Raises InputError."""
    word = text.strip().lower()
    if word in ("auto", "largest", "whole"):
        return "largest" if word == "auto" else word
    numbers = re.fullmatch(r"\s*(\d{1,6})\s*(?:,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*)?", text)
    if not numbers:
        raise InputError(f"face is {text!r}; give auto, whole, a number such as 2, or X,Y,W,H in pixels")
    if numbers[2] is not None:
        x, y, w, h = map(int, numbers.groups())
        return x, y, w, h
    if int(numbers[1]) < 1:
        raise InputError(f"face is {numbers[1]}; faces are numbered from 1, from left to right")
    return int(numbers[1])


def find_face(picture: Image.Image, asked: Request, source: str) -> Choice:
    """The face that is asked for of an upright RGB picture; a detector is loaded only where one is needed.

    source  the picture's name, for messages
    Raises InputError: no face or no such face, a box outside, a detector that is not installed.
    """
    if asked.which == "whole":
        return Choice(None, f"{source}: the whole picture")
    if isinstance(asked.which, tuple):
        face = Face(check_box(asked.which, picture.size, source))
        return Choice(face, f"{source}: the face by hand, {show(face)}")
    import numpy as np

    detector = load_detector(asked.detector, asked.model, asked.words)
    faces = sorted(detector.find(np.asarray(picture)), key=lambda face: face.box[0] + face.box[2] / 2)
    return choose(faces, asked.which, detector, source, picture.size, asked.words)


def check_box(box: Box, size: tuple[int, int], source: str) -> Box:
    """`box`, which has MIN_FACE pixels each way and lies inside a picture of `size` (W, H). Raises InputError."""
    x, y, w, h = box
    if min(w, h) < MIN_FACE:
        raise InputError(
            f"the face of {source} is {w} x {h} px, and each side has at least {MIN_FACE}; give X,Y,W,H in pixels"
        )
    if x < 0 or y < 0 or x + w > size[0] or y + h > size[1]:
        raise InputError(
            f"the face of {source} lies from {x},{y} to {x + w},{y + h}, outside the picture of {size[0]} x {size[1]} "
            "px; give X,Y,W,H inside it"
        )
    return box


def choose(
    faces: Sequence[Face], which: str | int, detector: Detector, source: str, size: tuple[int, int],
    words: Words = COMMAND_LINE,
) -> Choice:  # fmt: skip
    """One of `faces`, which stand from left to right: "largest", or a number from 1. Raises InputError."""
    found = f"{source}: {detector.name} found {len(faces)} face{'' if len(faces) == 1 else 's'}"
    if not faces:
        least = detector.least(size)
        looked = f" of {least} px or more" if least else ""
        raise InputError(f"{found}{looked} in {size[0]} x {size[1]} px ({detector.hint}); {words.by_hand}")
    listed = "; ".join(f"{number}: {show(face)}" for number, face in enumerate(faces[:SHOWN], start=1))
    if len(faces) > SHOWN:
        listed += "; ..."
    if isinstance(which, int):
        if which > len(faces):
            raise InputError(f"{found} ({listed}), and face {which} was asked for; choose 1 to {len(faces)}")
        return Choice(faces[which - 1], f"{found}; {which} is taken, {show(faces[which - 1])}")
    best = max(range(len(faces)), key=lambda i: faces[i].box[2] * faces[i].box[3])
    if len(faces) == 1:
        return Choice(faces[0], f"{found}, {show(faces[0])}")
    said = f"{found} ({listed}); the largest, {best + 1}, is taken"
    return Choice(faces[best], said, (f"{said}: {words.another} if another one is meant",))


def show(face: Face) -> str:
    x, y, w, h = face.box
    return f"{w} x {h} px at {x},{y}"


__all__ = [
    "DETECTORS", "Box", "Choice", "Detector", "Face", "Request", "Words", "choose", "find_face", "load_detector",
    "parse_face", "request",
]  # fmt: skip
