"""Finished clips, kept until the video is whole, so that a run that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .files import atomic, beside, write_error
from .locks import lock


DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
LOCK = "lock"  # holds the process number of the run that has the folder
TRIES = 100  # to lock a folder that other runs are just removing


def fingerprint(*arrays: Any) -> str:
    """SHA-256 of arrays or tensors (dtype, shape and values), for a PartStore's key."""
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class PartStore:
    """One folder of finished clips beside the output: `<output>.parts-<12 hex digits of the SHA-256 of name and key>`.

        with PartStore("out.mp4", key) as parts:  # the folder is there and no other run has it
            parts.save(0, frames, tail)

    output  the video that is being made
    key     everything that determines the picture (fingerprints of portrait and speech, prompts, model, seed,
            steps ...), JSON-serialisable; another key is another folder, which is left alone

    Inside the block another run with the same output and key is refused (InputError). The operating system ends
    the lock with the process, so a killed run locks nobody out. What a killed run left half done is removed.
    """

    def __init__(self, output: str | Path, key: dict) -> None:
        self.output = Path(output)
        # The name belongs to it because the folder shows only the beginning of a long one.
        digest = hashlib.sha256(json.dumps([self.output.name, key], sort_keys=True).encode()).hexdigest()
        self.folder = beside(self.output, f".parts-{digest[:12]}")
        self._lock: int | None = None

    def __enter__(self) -> PartStore:
        path = self.folder / LOCK
        try:
            self._lock = handle = self._acquire(path)
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
            self._sweep(kept=r"clip_\d+\.npz")
        except BlockingIOError:
            raise self._taken() from None
        except OSError as error:
            if self._lock is not None:
                self.__exit__()
            raise write_error(path, error) from error
        return self

    def _acquire(self, path: Path) -> int:
        """The lock, in a folder that is made for it."""
        for _ in range(TRIES):
            with suppress(FileNotFoundError):
                self.folder.mkdir(parents=True, exist_ok=True)
                return lock(path)
        return lock(path)

    def __exit__(self, *error: object) -> None:
        """Gives the folder back; it goes when nothing is kept in it."""
        handle, self._lock = self._lock, None
        assert handle is not None
        if sys.platform == "win32":  # which removes no open file
            os.close(handle)
            handle = None
        with suppress(OSError):
            (self.folder / LOCK).unlink()
        if handle is not None:
            os.close(handle)
        with suppress(OSError):
            self.folder.rmdir()

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
        """Removes all that lies in this key's folder, when the video is whole; inside the block the lock stays."""
        self._sweep(kept="")
        with suppress(OSError):
            self.folder.rmdir()

    def _sweep(self, kept: str) -> None:
        """Removes all but a lock that is held and the files whose whole names match the expression `kept`."""
        for path in list(self.folder.glob("*")):
            if re.fullmatch(kept, path.name):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK or self._lock is None:
                with suppress(OSError):
                    path.unlink()

    def _taken(self) -> InputError:
        owner = ""
        with suppress(OSError):
            owner = (self.folder / LOCK).read_text()
        return InputError(
            f"{self.output} is being drawn by another run (process {owner or 'unknown'}); "
            "wait for it or choose another output"
        )

    def _part(self, index: int) -> Path:
        return self.folder / f"clip_{index:05d}.npz"
