"""Finished clips, kept until the video is whole, so that a run that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .files import atomic, write_error


DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def fingerprint(*arrays: Any) -> str:
    """SHA-256 of arrays or tensors (dtype, shape and values), for a PartStore's key."""
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class PartStore:
    """One folder of finished clips beside the output: `<output>.parts-<12 hex digits of the key's SHA-256>`.

    output  the video that is being made
    key     everything that determines the picture (fingerprints of portrait and speech, prompts, model, seed,
            steps ...), JSON-serialisable; another key is another folder, which is left alone
    """

    def __init__(self, output: str | Path, key: dict) -> None:
        output = Path(output)
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.folder = output.with_name(f"{output.name}.parts-{digest[:12]}")

    def save(self, index: int, frames: np.ndarray, tail: np.ndarray) -> None:
        """Keeps clip `index`: its frames, uint8 [F, H, W, 3], and the latents that the next clip begins from.

        Either the whole part is there afterwards or none of it. Raises InputError when it cannot be written.
        """
        final = self._part(index)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic(final) as part:
                np.savez_compressed(part, frames=frames, tail=tail)
        except OSError as error:
            raise write_error(final, error) from error

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """(frames, tail latents) of clip `index`; None when there is none or it is damaged: draw it again."""
        try:
            with np.load(self._part(index), allow_pickle=False) as part:
                return part["frames"], part["tail"]
        except DAMAGED:
            return None

    def delete(self) -> None:
        """Removes this key's parts, when the video is whole."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _part(self, index: int) -> Path:
        return self.folder / f"clip_{index:05d}.npz"
