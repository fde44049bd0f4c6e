"""Clips drawn by whoever can → a video that can be gone on with: finished clips are kept until it is whole."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from enum import Enum
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from .checkpoint import store
from .errors import InputError
from .host import tbd_parts, write_wave
from .parts import PartStore, fingerprint
from .units import FPS, num_clips
from .video import VideoWriter, read_metadata


if TYPE_CHECKING:
    from numpy import ndarray

# (first clip, tail of the clip before or None) -> of each clip its frames, uint8 [F, H, W, 3], and its last latents.
Draw = Callable[[int, "ndarray | None"], Generator[tuple["ndarray", "ndarray"], None, None]]

PATCHES = ("patches", "object_patches", "model_options", "wrappers")  # what a host's handle of a model adds to it
PASSING = ("_curr", "curr_", "start_t")  # so begins what ComfyUI's hooks note while they are sampled
EMPTY = CellType()


def describe(value: Any, known: dict[int, Any] | None = None) -> Any:
    """`value` as JSON that is equal in every process when the contents are, and else is not, as far as Python can see:
    tensors and arrays by fingerprint, functions by their code and all they close over, objects by their classes and
    attributes. What changes by itself makes the key another one, never an old one.

    known   what stands for an object in place of its contents, by its id; what is met is added
    """
    import torch

    known, said = {} if known is None else known, (Enum, PurePath, bytes, complex, torch.dtype, torch.device)
    if isinstance(value, said):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):  # bfloat16 is unknown to numpy, and fp32 holds all of it
        value = value.detach().cpu()
        return fingerprint(value.float() if value.is_floating_point() else value)
    if hasattr(type(value), "__array__"):
        return fingerprint(value)
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, type):
        return _name(value)
    if id(value) in known:
        return known[id(value)]
    known[id(value)] = "again"  # a circle ends here
    if isinstance(value, dict):
        found = {str(key): describe(value[key], known) for key in sorted(value, key=str)}
    elif isinstance(value, list | tuple):
        found = [describe(item, known) for item in value]
    elif isinstance(value, set | frozenset):
        found = sorted(json.dumps(describe(item, known), sort_keys=True) for item in value)
    else:  # an object: short, for it may be met many times
        known[id(value)] = found = [*map(_name, type(value).__mro__), digest(describe(_contents(value), known))]
        return found
    del known[id(value)]
    return found


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _contents(value: Any) -> Any:
    """What an object is beside its type."""
    if isinstance(value, FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        closed = {name: cell.cell_contents for name, cell in cells if cell != EMPTY}
        return [value.__module__, value.__qualname__, value.__code__, value.__defaults__, value.__kwdefaults__, closed]
    if isinstance(value, CodeType):
        return [value.co_code, value.co_consts, value.co_names]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, BuiltinFunctionType):
        return [value.__qualname__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if hasattr(type(value), "get_attachment"):  # a model in a host's keeping
        return {name: getattr(value, name) for name in (*PATCHES, "model")}
    slots = [name for kind in type(value).__mro__ for name in vars(kind).get("__slots__", ()) if name[:2] != "__"]
    own = {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})
    return {name: own[name] for name in own if not name.startswith(PASSING)}


def model_key(model: Any, vae: Any) -> dict[str, Any]:
    """Everything about a host's MODEL and VAE that determines a picture, alike in every process (ComfyUI's own id of a
    patched model is random)."""
    parts = tbd_parts(model)
    known = {id(one): "the model" for one in (model.model, getattr(model.model, "diffusion_model", None), parts)}
    return {
        "bundle": store.identity(parts.bundle),
        "dtypes": [str(parts.dtype), str(vae.vae_dtype), model.load_device.type],
        "sigmas": describe(model.get_model_object("model_sampling").sigmas),
        "vae": {} if getattr(vae, "bundle", None) == parts.bundle else describe(dict(vae.get_sd())),
        **{name: describe(getattr(model, name), known) for name in PATCHES},
    }


def digest(key: Any) -> str:
    """SHA-256 of a described key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def is_finished(output: Path, key: dict[str, Any]) -> bool:
    """Whether `output` is a whole video that `render` made of the same `key`."""
    try:
        return output.is_file() and read_metadata(output).get("key") == digest(key)
    except InputError:
        return False


def render(
    output: Path,
    key: dict[str, Any],
    num_frames: int,
    size: tuple[int, int],
    draw: Draw,
    sound: tuple[Any, int] | Any,
    metadata: dict[str, Any],
) -> None:
    """Draw what is missing and write the video; `is_finished` then holds.

    key         everything that determines the picture (`describe`)
    num_frames  of the video; the last clip is cut
    size        W, H pixels
    draw        is asked once, for the first missing clip and all behind it; whatever it raises passes through, and what
                was finished by then is kept for the next call
    sound       (samples [C, T], rate), or a waveform [T] at 16 kHz
    """
    clips = num_clips(num_frames)
    with PartStore(output, key) as parts:
        done, tail = 0, None
        while done < clips and (part := parts.load(done)) is not None:
            done, tail = done + 1, part[1]
        if done < clips:
            with closing(draw(done, tail)) as drawn:
                for frames, tail in drawn:
                    parts.save(done, frames, tail)
                    done += 1
        if isinstance(sound, tuple):
            write_wave(parts.folder / "sound.wav", *sound)
            sound = parts.folder / "sound.wav"
        write_video(parts, num_frames, size, sound, {**metadata, "key": digest(key)})


def write_video(
    parts: PartStore,
    num_frames: int,
    size: tuple[int, int],
    sound: Any,
    metadata: dict[str, Any],
    finish: Callable[[ndarray], Iterable[ndarray]] | None = None,
) -> None:
    """All clips of `parts` → the first `num_frames` frames as its output; the clips go then. `sound` and `metadata`
    as VideoWriter's. `finish` makes of a clip's frames those of the video, as many, of `size`, a few at a time.
    InputError when a clip vanished."""
    with VideoWriter(parts.output, *size, FPS, sound, metadata, parts.folder) as video:
        left = num_frames
        for index in range(num_clips(num_frames)):
            part = parts.load(index)
            if part is None:
                raise InputError(f"clip {index} of {parts.folder} vanished; start the same run again")
            frames = part[0][:left]
            for shown in (frames,) if finish is None else finish(frames):
                video.write(shown)
            left -= len(part[0])
    parts.delete()
