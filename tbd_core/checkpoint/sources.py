"""Public weight files, in any of their layouts → names, shapes, and one tensor at a time.

A source is a .safetensors, a .ckpt/.pth/.bin/.pt, or a folder: diffusers' (unet/, vae/, text_encoder/), transformers',
or Hallo's (net.pth, or its parts: denoising_unet.pth, …). Keys of a folder's parts begin with the part's name: "unet.".
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InputError
from ..files import require_file
from .weight_files import AGAIN, PICKLES, WANTED, PickleFile, SafetensorsFile, open_file


if TYPE_CHECKING:
    import torch

COMPONENTS = ("unet", "vae", "text_encoder")  # subfolders of a diffusers folder
HALLO_PARTS = ("reference_unet", "denoising_unet", "face_locator", "imageproj", "audioproj")
HALLO_WHOLE = "net.pth"
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")  # as diffusers and transformers call weights


class Entry(NamedTuple):
    """One tensor of a source: `name` is its key inside `file`."""

    shape: tuple[int, ...]
    file: SafetensorsFile | PickleFile
    name: str


class Source:
    """What one `--source NAME=PATH` gives: `entries` {key: Entry}, `configs` {part or "": its config.json}."""

    def __init__(self, name: str, path: str | Path):
        self.name, self.path = name, Path(path)
        self.entries: dict[str, Entry] = {}
        self.configs: dict[str, dict] = {}
        self.files: list[SafetensorsFile | PickleFile] = []
        if self.path.is_dir():
            self._open_folder()
        else:
            self._add("", [require_file(self.path, WANTED)])

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: entry.shape for key, entry in self.entries.items()}

    def read(self, key: str) -> torch.Tensor:
        """The tensor as it is stored; on the CPU. InputError when its bytes are not there."""
        entry = self.entries[key]
        return entry.file.read(entry.name)

    def close(self) -> None:
        """Gives back what was mapped; `entries` stay."""
        for file in self.files:
            file.close()

    def _open_folder(self) -> None:
        folders = {part: self.path / part for part in COMPONENTS if _weights(self.path / part)}
        parts = {part: file for part in HALLO_PARTS if (file := _hallo_part(self.path, part))}
        if folders:
            for part, folder in folders.items():
                self._add(f"{part}.", _weights(folder), folder)
        elif parts:
            for part, file in parts.items():
                self._add(f"{part}.", [file])
        elif files := _weights(self.path):
            self._add("", files, self.path)
        elif (whole := self.path / HALLO_WHOLE).is_file():
            self._add("", [whole])
        else:
            raise InputError(f"{self.path} is a folder without weights; give {WANTED}")

    def _add(self, prefix: str, paths: list[Path], folder: Path | None = None) -> None:
        for path in paths:
            file = open_file(path)
            self.files.append(file)
            for key, shape in file.shapes.items():
                self.entries[prefix + key] = Entry(shape, file, key)
        config = folder and folder / "config.json"
        if config and config.is_file():
            try:
                self.configs[prefix.rstrip(".")] = dict(json.loads(config.read_text(encoding="utf-8")))
            except (ValueError, TypeError, RecursionError, OSError) as error:
                raise InputError(f"{config} is no JSON object ({error}); {AGAIN}") from error


def state(path: Path) -> tuple[str, int, int]:
    """A file's name, bytes, and time of the last change in ns."""
    found = path.stat()
    return path.name, found.st_size, found.st_mtime_ns


def watch(path: Path) -> list[tuple[str, int, int]]:
    """The `state` of a source's files, without opening them; [] when it cannot be looked at."""
    try:
        if not path.is_dir():
            return [state(path)]
        folders = [path, *(path / part for part in COMPONENTS if (path / part).is_dir())]
        return [state(file) for folder in folders for file in sorted(folder.iterdir()) if file.is_file()]
    except OSError:
        return []


def _weights(folder: Path) -> list[Path]:
    """The weight files of one part: safetensors before pickles, plain ones before fp16's; [] when there are none."""
    for ending in ("safetensors", "bin"):
        for stem in STEMS:
            whole, index = folder / f"{stem}.{ending}", folder / f"{stem}.{ending}.index.json"
            if whole.is_file():
                return [whole]
            if index.is_file():
                return _shards(index)
    halves = (folder / f"{stem}.fp16.{ending}" for ending in ("safetensors", "bin") for stem in STEMS)
    return next(([half] for half in halves if half.is_file()), [])


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a file's name is no text")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise InputError(f"{index} is no index of weights ({error!r}); {AGAIN}") from error
    missing = [name for name in names if Path(name).name != name or not (index.parent / name).is_file()]
    if missing:
        raise InputError(f"{index.parent} lacks {len(missing)} of {len(names)} files ({missing[0]} …); download them")
    return [index.parent / name for name in names]


def _hallo_part(folder: Path, part: str) -> Path | None:
    """`denoising_unet.pth`, or the newest `denoising_unet-30000.pth` as Hallo's training writes it."""
    named = re.compile(rf"{part}(?:-(\d+))?\.(?:safetensors|{'|'.join(e[1:] for e in PICKLES)})")
    found = [(int(match[1] or -1), path) for path in sorted(folder.iterdir()) if (match := named.fullmatch(path.name))]
    return max(found)[1] if found else None
