"""Many videos from few words: portraits × speeches × emotions × intensities, or the lines of a CSV, case by case.

Nothing but the CSV is opened. The order is fixed: an index means the same case as long as the same files are there.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError
from .facs.emotions import EMOTIONS, INTENSITIES, parse_emotion, parse_intensity
from .files import require_file
from .host import SAMPLE


SAMPLE_PORTRAIT, SAMPLE_SPEECH = SAMPLE / "portrait.png", SAMPLE / "speech.wav"

# What is taken from a folder; a file that is named itself may end in anything.
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
RECORDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".mp4", ".mov", ".mkv", ".webm")
COLUMNS = ("portrait", "speech", "emotion", "intensity")
PLAIN = "Moderate"  # of neutral, which has no intensity: any would do

FILE, FOLDER = "is a file", "is a folder, no file"
SHOWN_BYTES = 60  # of a file's name inside a case's name
SHOWN_FAULTS = 8  # in one message


@dataclass(frozen=True)
class Case:
    """One video to draw."""

    index: int  # 0-based
    total: int
    portrait: Path
    speech: Path
    emotion: str  # canonical
    intensity: str  # canonical

    @property
    def feeling(self) -> tuple[str, ...]:
        return (self.emotion,) if self.emotion == "neutral" else (self.emotion, self.intensity)

    @property
    def name(self) -> str:
        """For a file, without suffix: `0003_anna_hello_happy_Mild`. Unlike every other case's, by its number."""
        words = (f"{self.index:04d}", _plain(self.portrait.stem), _plain(self.speech.stem), *self.feeling)
        return "_".join(words)

    def __str__(self) -> str:
        words = ", ".join((self.portrait.name, self.speech.name, *self.feeling))
        return f"{self.index + 1} of {self.total}: {words}"


@dataclass(frozen=True)
class Cases:
    """All cases, never as one list: `axes` are multiplied, the last counts fastest. Each holds the parts that it gives
    to a case: portrait | speech | emotion and intensity, or (a CSV) all four at once."""

    axes: tuple[tuple[tuple[Any, ...], ...], ...]

    def __len__(self) -> int:
        return math.prod(map(len, self.axes))

    def case(self, index: int) -> Case:
        """InputError behind the last one."""
        if index >= len(self):
            raise InputError(f"all {len(self)} cases done; set index to 0 to begin again")
        if index < 0:
            raise InputError(f"index is {index}; the first case is 0, the last {len(self) - 1}")
        rest, parts = index, ()
        for axis in reversed(self.axes):
            rest, at = divmod(rest, len(axis))
            parts = (*axis[at], *parts)
        return Case(index, len(self), *parts)

    @classmethod
    def from_lists(
        cls, portraits: Iterable[Path], speeches: Iterable[Path], emotions: Iterable[str], intensities: Sequence[str]
    ) -> Cases:
        """Everything with everything; neutral once only. What is given twice counts once. Raises InputError."""
        known = dict.fromkeys(map(parse_emotion, emotions))
        levels = tuple(dict.fromkeys(map(parse_intensity, intensities)))
        feelings = [(e, i) for e in known for i in ((PLAIN,) if e == "neutral" else levels)]
        files = (tuple((path,) for path in dict.fromkeys(paths)) for paths in (portraits, speeches))
        axes = (*files, tuple(feelings))
        for name, axis in zip(("portraits", "speeches", "emotions with intensities"), axes, strict=True):
            if not axis:
                raise InputError(f"there are 0 {name}; give at least 1")
        return cls(axes)

    @classmethod
    def from_csv(cls, path: str | Path) -> Cases:
        """One case per line under the header `portrait,speech,emotion,intensity` (any order; commas, semicolons or
        tabs). Files are looked for beside the CSV. Blank lines are skipped, further columns too; neutral may leave its
        intensity blank. Raises InputError with all that is wrong, each with its line."""
        path = require_file(path, f"a CSV with the columns {', '.join(COLUMNS)}")
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                first = file.readline()
                file.seek(0)
                lines = csv.reader(file, delimiter=max(",;\t", key=first.count))
                table = [(lines.line_num, [cell.strip() for cell in line]) for line in lines]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path.name} cannot be read as CSV ({error}); save it as CSV in UTF-8") from error
        header = [name.lower() for name in table[0][1]] if table else []
        if lacking := [name for name in COLUMNS if name not in header]:
            raise InputError(
                f"{path.name} line 1 lacks {len(lacking)} of 4 columns: {', '.join(lacking)}; begin with the line "
                f"{','.join(COLUMNS)}"
            )
        places = [header.index(name) for name in COLUMNS]
        rows, faults = [], []
        for number, cells in table[1:]:
            if any(cells):
                cells = [cells[at] if at < len(cells) else "" for at in places]
                row, wrong = _row(path.parent, *cells)
                rows.append(row)
                faults += [f"line {number}: {fault}" for fault in wrong]
        _refuse(path.name, faults)
        if not rows:
            raise InputError(f"{path.name} has a header and 0 cases; give each its own line")
        return cls((tuple(rows),))


def read_cases(
    root: Path,
    portraits: str = "",
    speeches: str = "",
    emotions: str = "all",
    intensities: str = "all",
    csv: str = "",
) -> Cases:
    """Cases from what a person types.

    portraits, speeches   a folder or file per line; from a folder everything of the kind, in the order of the names.
                          Blank: the sample that ships with the pack
    emotions, intensities  "all", or names in any spelling, between commas or on lines of their own
    csv                   a file as `Cases.from_csv`; then the four others do not count
    Relative paths begin at `root`. Raises InputError with all that is wrong.
    """
    if csv.strip():
        return Cases.from_csv(root / _unquoted(csv))
    faults: list[str] = []
    pictures = _files("portraits", root, portraits, PICTURES, faults) or [SAMPLE_PORTRAIT]
    sounds = _files("speeches", root, speeches, RECORDINGS, faults) or [SAMPLE_SPEECH]
    named = _names("emotions", emotions, EMOTIONS, parse_emotion, faults)
    levels = _names("intensities", intensities, INTENSITIES, parse_intensity, faults)
    _refuse("the batch", faults)
    return Cases.from_lists(pictures, sounds, named, levels)


def watch(root: Path, index: int | None, **texts: str | None) -> str:
    """Changes when the case of `index` does: its place, its words, or (size and time) its files. None: not known yet.

    Never raises: what cannot be used is told apart by its message, and said when the case is asked for."""
    try:
        cases = read_cases(root, **{name: text for name, text in texts.items() if text is not None})
        if index is None:
            return repr(cases)
        case = cases.case(index)
        stamps = [(path.stat().st_size, path.stat().st_mtime_ns) for path in (case.portrait, case.speech)]
        return repr((case, stamps))
    except (InputError, OSError) as error:
        return str(error)


def _row(folder: Path, portrait: str, speech: str, emotion: str, intensity: str) -> tuple[tuple, list[str]]:
    """The four parts of a case, and what is wrong with them."""
    faults, parts = [], []
    for name, text in (("portrait", portrait), ("speech", speech)):
        parts.append(folder / _unquoted(text))
        if not text:
            faults.append(f"{name} is blank")
        elif (kind := _kind(parts[-1])) != FILE:
            faults.append(f"{name} {text} {kind}")
    for parse, text in ((parse_emotion, emotion), (parse_intensity, intensity)):
        if parse is parse_intensity and parts[-1] == "neutral":
            parts.append(PLAIN)
            continue
        try:
            parts.append(parse(text))
        except InputError as error:
            parts.append(text)
            faults.append(str(error))
    return tuple(parts), faults


def _files(name: str, root: Path, text: str, suffixes: tuple[str, ...], faults: list[str]) -> list[Path]:
    """The files that the lines of `text` name; adds to `faults`."""
    found: list[Path] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not (line := _unquoted(line)):
            continue
        path = root / line
        if (kind := _kind(path)) == FILE:
            found.append(path)
        elif kind != FOLDER:
            faults.append(f"{name} line {number}: {line} {kind}")
        else:
            inside = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
            fitting = [p for p in inside if p.suffix.lower() in suffixes]
            found += fitting
            if not fitting:
                kinds = " ".join(suffixes)
                faults.append(f"{name} line {number}: of {len(inside)} files in {line} none ends in {kinds}")
    return found


def _names(name: str, text: str, every: Sequence[str], parse, faults: list[str]) -> list[str]:
    """The names in `text`; adds to `faults`."""
    if text.strip().lower() == "all":
        return list(every)
    words, found = [word.strip() for word in re.split(r"[,;\n]", text) if word.strip()], []
    for word in words:
        try:
            found.append(parse(word))
        except InputError as error:
            faults.append(f"{name}: {error}")
    if not words:
        faults.append(f"{name} is blank; give all, or one or more of {', '.join(every)}")
    return found


def _kind(path: Path) -> str:
    """FILE, FOLDER, or why it is neither; each ends a sentence about the path."""
    try:
        if path.is_file():
            return FILE
        if path.is_dir():
            next(path.iterdir(), None)  # one that may not be listed says so here
            return FOLDER
        return "does not exist"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _refuse(where: str, faults: list[str]) -> None:
    if faults:
        count = f"{len(faults)} fault{'s' * (len(faults) > 1)}"
        more = f" | and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
        raise InputError(f"{count} in {where}: {' | '.join(faults[:SHOWN_FAULTS])}{more}")


def _unquoted(text: str) -> str:
    """A path as it was typed or pasted: some file managers put it in quotes."""
    return text.strip().strip("\"'")


def _plain(stem: str) -> str:
    """A file's name as part of another's: letters, digits, `_ . -`, and not too long."""
    safe = re.sub(r"[^\w.-]+", "-", stem)
    return safe.encode("utf-8", "ignore")[:SHOWN_BYTES].decode("utf-8", "ignore")
