"""Files that come in, files that go out, and the ffmpeg that imageio-ffmpeg brings along."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


# ffmpeg must not hear Ctrl-C itself: it would die first, and its broken pipe would look like a full disk.
OWN_SESSION = True


def require_file(path: str | Path, wanted: str) -> Path:
    """`path`, which must be a readable, non-empty file; `wanted` names the way out ("a PNG picture")."""
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; give {wanted}")
        if not path.exists():
            raise InputError(f"{path} does not exist; give {wanted}")
        if not path.is_file():
            raise InputError(f"{path} is not an ordinary file; give {wanted}")
        if path.stat().st_size == 0:
            raise InputError(f"{path.name} is empty (0 bytes); give {wanted}")
        with path.open("rb"):
            return path
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); give {wanted}") from error


@contextmanager
def atomic(final: Path) -> Iterator[Path]:
    """Yields a name beside `final` to write to; it becomes `final` in one move, or goes if anything fails.

    The temporary name keeps the suffix, because libraries choose the format by it.
    """
    part = final.with_name(f"{final.stem}.part-{uuid.uuid4().hex[:8]}{final.suffix}")
    try:
        yield part
        _flush_to_disk(part)
        os.replace(part, final)
    except BaseException:  # also KeyboardInterrupt: nothing half-written stays
        part.unlink(missing_ok=True)
        raise


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)  # Windows flushes only what is open for writing
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_error(path: Path, reason: object) -> InputError:
    """The one line for a file that could not be written, e.g. because the disk is full."""
    text = getattr(reason, "strerror", None) or str(reason)
    return InputError(f"{path} could not be written ({text}); free some space or choose another output")


def ffmpeg_command(*arguments: object) -> list[str]:
    """A command line for the bundled ffmpeg: silent but for errors, local files only, never asking."""
    import imageio_ffmpeg

    return [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", *map(str, arguments)]


def input_arguments(path: Path) -> list[str]:
    """ffmpeg's arguments for a local input; `file:` and the white list keep playlists off the network."""
    return ["-protocol_whitelist", "file,pipe", "-i", f"file:{path}"]


def run_ffmpeg(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Runs the bundled ffmpeg to its end; the caller looks at `returncode` and `last_line(stderr)`."""
    return subprocess.run(
        ffmpeg_command("-nostdin", *arguments),
        capture_output=True,
        check=False,
        start_new_session=OWN_SESSION,
    )


def last_line(stderr: bytes) -> str:
    """What ffmpeg said last."""
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return re.sub(r"^(\[[^\]]*\]\s*)+", "", lines[-1].strip()) if lines else "ffmpeg gave no reason"
