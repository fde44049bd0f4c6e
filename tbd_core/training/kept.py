"""What training keeps on the disk: finished parts, and the one line for a file that cannot be written or used."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..errors import InputError
from ..files import atomic


# What reading a damaged or foreign file raises: no file, no zip, no pickle, other entries, other shapes.
UNREADABLE = (
    OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, pickle.UnpicklingError,
    SafetensorError,
)  # fmt: skip


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """InputError when the disk does not take `path`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} could not be written ({reason}); free some space in {path.parent}, then give the same command "
            "again: it goes on from the last checkpoint"
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """InputError when `path` is damaged or not what its name says."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise  # a RuntimeError, but not the file's fault
    except UNREADABLE as error:
        said = getattr(error, "strerror", None) or str(error) or "it ends too early"
        reason = said.splitlines()[0].split(". ")[0]
        raise InputError(
            f"{path} cannot be used ({type(error).__name__}: {reason}); delete it, and this part is trained anew"
        ) from error


def save_modules(path: Path, modules: Mapping[str, nn.Module], about: dict) -> None:
    """One finished part with what it cost, whole or not at all."""
    tensors = {f"{k}.{n}": v.contiguous() for k, module in modules.items() for n, v in module.state_dict().items()}
    with writing(path), atomic(path) as partial:
        save_file(tensors, partial, {"about": json.dumps(about)})


def read_about(path: Path) -> dict:
    """Key, recipe, seconds and losses of a finished part."""
    with reading(path), safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
        return {name: about[name] for name in ("key", "recipe", "seconds", "losses")}


def load_finished(path: Path, modules: Mapping[str, nn.Module], key: str) -> bool:
    """Fill `modules` from a finished part of the same key."""
    if not path.exists() or read_about(path)["key"] != key:
        return False
    with reading(path):
        tensors = load_file(path)
        for label, module in modules.items():
            prefix = f"{label}."
            module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
            module.eval()
    return True
