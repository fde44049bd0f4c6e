"""Whose face it is: ArcFace's 512 numbers, from a file or by insightface from the portrait itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .detectors import Face, InsightFace, optional
from .errors import InputError
from .files import require_file


if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

EMBEDDING = 512  # numbers
NUMBERS = f"an embedding of {EMBEDDING} numbers (.npy, .safetensors)"
WANTED = f"{NUMBERS}, or insightface's recognition model (.onnx)"
RECOGNITION = ".onnx"


def read_embedding(path: str | Path, picture: Image.Image | None = None, face: Face | None = None) -> Tensor:
    """[512], as insightface gives it (`embedding`, not normalised: Hallo's weights know that one).

    `picture` and the `face` found in it are looked at when the file is a recognition model, such as glintr100.onnx.
    InputError when the file holds something else, or when the face has no five points to align it by.
    """
    path = require_file(path, WANTED)
    if path.suffix.lower() == RECOGNITION:
        return _checked(path, recognise(path, picture, face))
    return _checked(path, _stored(path, WANTED))


def read_numbers(path: str | Path) -> Tensor:
    """[512] of a file that holds them, for a host in which nobody is recognised. Raises InputError."""
    path = require_file(path, NUMBERS)
    if path.suffix.lower() == RECOGNITION:
        raise InputError(
            f"{path.name} is a recognition model, not its {EMBEDDING} numbers; give {NUMBERS}: only the command line, "
            "tbd generate --face-embedding, recognises a face by such a model"
        )
    return _checked(path, _stored(path, NUMBERS))


def _checked(path: Path, found: Tensor) -> Tensor:
    values = found.flatten()
    if not bool(values.isfinite().all()):
        bad = int((~values.isfinite()).sum())
        raise InputError(f"{path} has {bad} of {EMBEDDING} numbers that are NaN or infinite; make it again")
    if not bool(values.any()):
        raise InputError(f"{path} holds {EMBEDDING} zeros, which is nobody's face; leave it out, or make it again")
    return values


def _stored(path: Path, wanted: str) -> Tensor:
    import numpy as np
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix.lower() == ".safetensors":
            found = list(load_file(str(path)).values())
        else:
            stored = np.load(path, allow_pickle=False)
            found = [torch.from_numpy(stored if np.iscomplexobj(stored) else np.asarray(stored, dtype=np.float32))]
    except (OSError, ValueError, TypeError, EOFError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({_short(error)}); give {wanted}") from error
    if len(found) != 1 or found[0].numel() != EMBEDDING:
        raise InputError(f"{path} holds {[list(value.shape) for value in found]}; give {wanted}, of one face")
    if found[0].is_complex():
        raise InputError(f"{path} holds {EMBEDDING} complex numbers; give {wanted}, which are real")
    return found[0].float()


def recognise(path: Path, picture: Image.Image | None, face: Face | None) -> Tensor:
    """What insightface's recognition model in `path` makes of `face` in an upright RGB `picture`: [512]."""
    import numpy as np
    import torch

    if picture is None or face is None or face.points is None:
        whose = "no face was looked for" if face is None else f"the face is {face.detector}'s, without them"
        raise InputError(
            f"{path} is a recognition model, which needs 5 points of the face, and {whose}; set --face auto and "
            f"--face-detector {InsightFace.name}, or give {EMBEDDING} numbers"
        )
    zoo: Any = optional("insightface.model_zoo", InsightFace.packages, InsightFace.name)
    align: Any = optional("insightface.utils.face_align", InsightFace.packages, InsightFace.name)
    bgr = np.asarray(picture)[:, :, ::-1].copy()
    try:
        network = zoo.get_model(str(path))
        network.prepare(ctx_id=-1)
        aligned = align.norm_crop(bgr, landmark=np.asarray(face.points, dtype=np.float32))
        values = np.asarray(network.get_feat(aligned), dtype=np.float32)
    except Exception as error:  # onnxruntime's errors share no other base; a wrong model gives None
        raise InputError(f"{path} cannot be used as a recognition model ({_short(error)}); give {WANTED}") from error
    if values.size != EMBEDDING:
        raise InputError(f"{path} gives {values.size} numbers; give {WANTED}")
    return torch.from_numpy(values.reshape(-1))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


__all__ = ["EMBEDDING", "NUMBERS", "read_embedding", "read_numbers"]
