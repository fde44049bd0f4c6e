"""Clips drawn by whoever can → a video that can be gone on with: finished clips are kept until it is whole."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoint import store
from .errors import InputError
from .host import tbd_parts, write_wave
from .parts import PartStore, fingerprint
from .units import CLIP_FRAMES, FPS
from .video import VideoWriter, read_metadata


if TYPE_CHECKING:
    from numpy import ndarray

# (first clip, tail of the clip before or None) -> of each clip its frames, uint8 [F, H, W, 3], and its last latents.
Draw = Callable[[int, "ndarray | None"], Generator[tuple["ndarray", "ndarray"], None, None]]


def describe(value: Any) -> Any:
    """`value` as JSON that is equal in every process when the contents are: tensors and arrays by fingerprint, what
    holds `weights` (a LoRA's adapter) and dataclasses by their contents, functions and other objects by name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): describe(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if hasattr(value, "detach"):  # bfloat16 is unknown to numpy, and fp32 holds all of it
        value = value.detach().cpu()
        return fingerprint(value.float() if value.is_floating_point() else value)
    if hasattr(value, "__array__"):
        return fingerprint(value)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": name, **{f.name: describe(getattr(value, f.name)) for f in fields(value)}}
    weights = getattr(value, "weights", None)
    return {"type": name} if weights is None else {"type": name, "weights": describe(weights)}


def model_key(model: Any, vae: Any) -> dict[str, Any]:
    """Everything about a host's MODEL and VAE that determines a picture, alike in every process (ComfyUI's own id of a
    patched model is random)."""
    parts = tbd_parts(model)
    file = parts.bundle.stat()
    return {
        "bundle": [describe(store.read_header(parts.bundle)), file.st_size, file.st_mtime_ns],
        "dtypes": [str(parts.dtype), str(vae.vae_dtype), model.load_device.type],
        "sigmas": describe(model.get_model_object("model_sampling").sigmas),
        "vae": {} if getattr(vae, "bundle", None) == parts.bundle else describe(dict(vae.get_sd())),
        **{name: describe(getattr(model, name)) for name in ("patches", "object_patches", "model_options", "wrappers")},
    }


def digest(key: dict[str, Any]) -> str:
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
    clips = math.ceil(num_frames / CLIP_FRAMES)
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
        said = {**metadata, "key": digest(key)}
        with VideoWriter(output, *size, FPS, sound, said, parts.folder) as video:
            left = num_frames
            for index in range(clips):
                part = parts.load(index)
                if part is None:
                    raise InputError(f"clip {index} of {parts.folder} vanished; queue the same inputs again")
                video.write(part[0][:left])
                left -= len(part[0])
        parts.delete()
