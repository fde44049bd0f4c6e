"""One run at a time: a file that is locked until it is closed, by the process's end at the latest."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError


TRIES = 100  # to lock a file that another run is just removing


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold the lock `path`, which keeps this process's number. InputError when another run holds it; `what` is busy."""
    try:
        handle = _lock_soon(path)
    except BlockingIOError:
        owner = ""
        with suppress(OSError):
            owner = path.read_text()
        raise InputError(f"{what} is in use by another run (process {owner or 'unknown'}); wait for it") from None
    try:
        with suppress(OSError):  # a full disk: the lock holds without the number
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        if sys.platform == "win32":  # which removes no open file
            os.close(handle)
        with suppress(OSError):
            path.unlink()
        if sys.platform != "win32":
            os.close(handle)


def _lock_soon(path: Path) -> int:
    """`lock`, again when another run was just removing its own."""
    for _ in range(TRIES):
        with suppress(FileNotFoundError):
            return lock(path)
    return lock(path)


def lock(path: Path) -> int:
    """Opens and locks a file until it is closed, by the process's end at the latest.

    Raises BlockingIOError when another holds it, FileNotFoundError when its folder or it was removed meanwhile.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock_opened(handle)
        if not os.path.samestat(os.fstat(handle), path.stat()):
            raise FileNotFoundError(errno.ENOENT, "removed and made anew", str(path))
    except BaseException:
        os.close(handle)
        raise
    return handle


def _lock_opened(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, 1 << 20, os.SEEK_SET)  # Windows lets nobody read what is locked: not the process number
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from error
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks (some network shares): better unguarded than not at all
            return
