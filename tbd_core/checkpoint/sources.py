"""Public weight files, in any of their layouts → names, shapes, and one tensor at a time.

A source is a .safetensors, a .ckpt/.pth/.bin/.pt, or a folder: diffusers' (unet/, vae/, text_encoder/), transformers',
or Hallo's parts (denoising_unet.pth, …). To open it reads headers only. Keys of a folder's parts begin with the part's
name ("unet."). Pickles are read with `weights_only=True`: what a file would run is refused.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError
from ..files import require_file
from .store import read_header


if TYPE_CHECKING:
    import torch

# safetensors' names of the types that public weights have → torch's.
DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
    "BOOL": "bool",
}  # fmt: skip
PICKLES = (".ckpt", ".pth", ".pt", ".bin")
COMPONENTS = ("unet", "vae", "text_encoder")  # subfolders of a diffusers folder
HALLO_PARTS = ("reference_unet", "denoising_unet", "face_locator", "imageproj", "audioproj")
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")  # as diffusers and transformers call weights
WANTED = "a .safetensors, .ckpt, .pth or .bin file, or a diffusers or transformers folder"
AGAIN = "copy or download it again"


class Entry(NamedTuple):
    """One tensor of a source: `name` is its key inside `file`."""

    shape: tuple[int, ...]
    file: SafetensorsFile | PickleFile
    name: str


class SafetensorsFile:
    """Read with plain reads: pages of a memory map would count as the process's memory until they are taken back."""

    def __init__(self, path: Path):
        self.path = path
        header = read_header(path, f"{path.name} anew: {AGAIN}")
        tensors = {key: value for key, value in header.items() if key != "__metadata__"}
        start = path.stat().st_size - max((value["data_offsets"][1] for value in tensors.values()), default=0)
        self.metadata = header.get("__metadata__", {})
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._places: dict[str, tuple[str, int, int]] = {}
        for key, value in tensors.items():
            shape, (begin, end) = tuple(value["shape"]), value["data_offsets"]
            self.shapes[key] = shape
            self._places[key] = (value.get("dtype", ""), start + begin, end - begin)

    def read(self, key: str) -> torch.Tensor:
        import torch

        kind, begin, length = self._places[key]
        shape = self.shapes[key]
        dtype = getattr(torch, DTYPES.get(kind, ""), None)
        if dtype is None:
            raise InputError(
                f"{self.path}: {key} is stored as {kind}, known are {', '.join(DTYPES)}; give an fp16 file"
            )
        if math.prod(shape) * dtype.itemsize != length:
            raise InputError(f"{self.path}: {key} has {length} bytes for the shape {list(shape)} of {kind}; {AGAIN}")
        if not length:
            return torch.empty(shape, dtype=dtype)
        data = bytearray(length)
        try:
            with open(self.path, "rb") as file:
                file.seek(begin)
                got = file.readinto(data)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({error.strerror}); {AGAIN}") from error
        if got != length:
            raise InputError(f"{self.path}: {key} has {got} of {length} bytes; {AGAIN}")
        return torch.frombuffer(data, dtype=dtype).reshape(shape)

    def close(self) -> None:
        """Nothing is held open."""


class PickleFile:
    """torch.save's file, mapped: a tensor's bytes are read when it is used. Only torch's form before 1.6, which cannot
    be mapped, lies in memory as a whole."""

    def __init__(self, path: Path):
        self.path = path
        self.metadata: dict[str, str] = {}
        self._tensors = {}
        for key, value in _tensors(_load(path), path):
            self._tensors[key] = value
        if not self._tensors:
            raise InputError(f"{path} holds no tensors by name; give {WANTED}")
        # Lightning's wrapping, and that of DataParallel (AnimateDiff).
        if any(key.startswith("state_dict.") for key in self._tensors):
            inside = {key: value for key, value in self._tensors.items() if key.startswith("state_dict.")}
            self._tensors = {key.removeprefix("state_dict."): value for key, value in inside.items()}
        if all(key.startswith("module.") for key in self._tensors):
            self._tensors = {key.removeprefix("module."): value for key, value in self._tensors.items()}
        self.shapes = {key: tuple(value.shape) for key, value in self._tensors.items()}

    def read(self, key: str) -> torch.Tensor:
        return self._tensors[key]

    def close(self) -> None:
        self._tensors = {}


def _tensors(value: Any, path: Path, before: str = "", depth: int = 3) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of nested dicts, by dotted names."""
    import torch

    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}, not tensors by name; give {WANTED}")
    for key, inner in value.items():
        if isinstance(inner, torch.Tensor):
            if inner.layout == torch.strided and not inner.is_quantized:
                yield f"{before}{key}", inner.detach()
        elif isinstance(inner, dict) and depth:
            yield from _tensors(inner, path, f"{before}{key}.", depth - 1)


class _ModelCheckpoint:
    """Stands where SD 1.x's own .ckpt names Lightning's class of this name; nothing of Lightning's runs."""


def _load(path: Path) -> Any:
    import torch

    size = path.stat().st_size
    with open(path, "rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if zipped and not zipfile.is_zipfile(path):
        raise InputError(f"{path} ends too early ({size} bytes, its table of contents is missing); {AGAIN}")
    allowed = getattr(torch.serialization, "safe_globals", None)  # torch 2.5
    name = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    try:
        with allowed([(_ModelCheckpoint, name)]) if allowed else nullcontext():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found:
            raise InputError(
                f"{path} holds code or objects ({found[1]}), which are never run; give a file of tensors only, best a "
                ".safetensors"
            ) from error
        raise InputError(f"{path} ({size} bytes) is no sound PyTorch file; {AGAIN}") from error
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(f"{path} ({size} bytes) is no sound PyTorch file ({type(error).__name__}); {AGAIN}") from error


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
        else:
            raise InputError(f"{self.path} is a folder without weights; give {WANTED}")

    def _add(self, prefix: str, paths: list[Path], folder: Path | None = None) -> None:
        for path in paths:
            file = _open(path)
            self.files.append(file)
            for key, shape in file.shapes.items():
                self.entries[prefix + key] = Entry(shape, file, key)
        config = folder and folder / "config.json"
        if config and config.is_file():
            try:
                self.configs[prefix.rstrip(".")] = dict(json.loads(config.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
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


def _open(path: Path) -> SafetensorsFile | PickleFile:
    require_file(path, WANTED)
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise InputError(
            f"{path} is Git LFS's stand-in of {path.stat().st_size} bytes, not the file; run `git lfs pull`"
        )
    ending = path.suffix.lower()
    if ending == ".safetensors":
        return SafetensorsFile(path)
    if ending in PICKLES:
        return PickleFile(path)
    raise InputError(f"{path} ends in {ending or 'nothing'!r}; give {WANTED}")


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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
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
