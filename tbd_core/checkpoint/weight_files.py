"""One file of weights → names, shapes, and one tensor at a time.

To open it reads headers only. Pickles are read with `weights_only=True`: what a file would run is refused.
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
WANTED = "a .safetensors, .ckpt, .pth or .bin file, or a diffusers or transformers folder"
AGAIN = "copy or download it again"
# What SD 1.x's .ckpt of Lightning hold beside the weights: a class's name, and numpy's way to write a number.
INERT = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "_codecs.encode",
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
)  # fmt: skip


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
            self._places[key] = (value["dtype"], start + begin, end - begin)

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
            if inner.is_meta:
                raise InputError(f"{path} has no values for {before}{key}: it was saved from the meta device; {AGAIN}")
            if inner.layout == torch.strided and not inner.is_quantized:
                yield f"{before}{key}", inner.detach()
        elif isinstance(inner, dict) and depth:
            yield from _tensors(inner, path, f"{before}{key}.", depth - 1)


class _Nothing:
    """Takes whatever a pickle gives it, and forgets it."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass


@cache
def stand_ins() -> tuple[type, ...]:
    """For each of `INERT` a class of that name which does nothing: neither Lightning's nor numpy's code runs. (torch
    before 2.6 takes no pairs of class and name.)"""
    places = [name.rpartition(".") for name in INERT]
    return tuple(type(name, (_Nothing,), {"__module__": module}) for module, _, name in places)


@contextmanager
def _only_inert() -> Iterator[None]:
    """torch's list of what a pickle may name holds `stand_ins` alone; what a host has put there is put back. (torch 2.4
    knows no `safe_globals`; and of two classes of one name, a host's and ours, either might be taken.)"""
    from torch import serialization

    before = list(serialization.get_safe_globals())
    serialization.clear_safe_globals()
    serialization.add_safe_globals(list(stand_ins()))
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def _load(path: Path) -> Any:
    import torch

    size = path.stat().st_size
    with open(path, "rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if zipped and not zipfile.is_zipfile(path):
        raise InputError(f"{path} ends too early ({size} bytes, its table of contents is missing); {AGAIN}")
    try:
        with _only_inert():
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


def open_file(path: Path) -> SafetensorsFile | PickleFile:
    """InputError: it is none of ours, cut short, Git LFS's stand-in, or holds code."""
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


def check_values(value: torch.Tensor, where: str, floats: bool = True) -> None:
    """InputError: a value is not finite, or they are not of the sort that a network has there (`floats`, or whole
    numbers). Quantised weights are whole numbers whose scale stands elsewhere; of complex ones half would be lost."""
    import torch

    if value.is_floating_point() != floats:
        kind, wanted = str(value.dtype).removeprefix("torch."), "floating" if floats else "whole"
        raise InputError(f"{where} is stored as {kind}, must be {wanted} numbers; give the weights as fp16 or fp32")
    if floats:
        finite = torch.isfinite(value.float() if value.dtype.itemsize == 1 else value)  # fp8 knows no isfinite
        bad = value.numel() - int(finite.sum())
        if bad:
            raise InputError(
                f"{where} has {bad} of {value.numel()} values that are NaN or infinite; the file is damaged: download "
                "it again"
            )
