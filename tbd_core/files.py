"""Files that come in, files that go out, and the ffmpeg that imageio-ffmpeg brings along."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError, needed_packages


# ffmpeg must not hear Ctrl-C itself: it would die first, and its broken pipe would look like a full disk.
OWN_SESSION = True
SHOWN = 100  # bytes of a file's name that its temporary names repeat; most file systems allow 255 in all


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


def local_path(text: str, folder: Path) -> Path:
    """`text` as a path, below `folder` unless it is absolute; ~ is the user's own folder. InputError for one on another
    machine (\\\\host\\share): Windows would introduce its user there, at the mere look."""
    if text.startswith(("\\\\", "//")):
        raise InputError(f"{text} is on another machine; copy it to this one, or give it a drive letter")
    return folder / Path(text).expanduser()


def check_new_file(path: str | Path, suffix: str) -> Path:
    """`path`, which a file can be written to: it ends in `suffix` (".mp4"), is no folder, and its folder takes files
    (it is made when writing begins). Leaves nothing behind. Raises InputError."""
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"output {path} is a folder; give a file name such as {path / f'talking{suffix}'}")
        if path.suffix.lower() != suffix:
            raise InputError(
                f"output {path.name} ends in {path.suffix or 'nothing'!r}; give a name that ends in {suffix}"
            )
        *missing, folder = _up_to_what_exists(path.absolute().parent)
        for entry in (*missing, path):  # to look for a name that is too long is an error of its own
            with suppress(FileNotFoundError):
                os.lstat(folder / entry.name)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=beside(path, ".parts-").name, suffix=suffix):
            return path
    except OSError as error:
        raise InputError(f"output {path} cannot be written ({error.strerror}); choose another place") from error


def _up_to_what_exists(folder: Path) -> Iterator[Path]:
    """The folder and those above it, up to the first that exists."""
    while not folder.exists():
        if folder.is_symlink():
            raise InputError(f"{folder} is a link to {os.readlink(folder)}, which does not exist; choose another place")
        yield folder
        folder = folder.parent
    yield folder


def beside(path: Path, ending: str) -> Path:
    """A name beside `path` which begins like it and ends in `ending`; short, however long the name of `path` is."""
    return path.with_name(path.name.encode("utf-8", "ignore")[:SHOWN].decode("utf-8", "ignore") + ending)


@contextmanager
def atomic(final: Path) -> Iterator[Path]:
    """Yields a name beside `final` to write to; it becomes `final` in one move, or goes if anything fails.

    The temporary name keeps the suffix, because libraries choose the format by it.
    """
    part = beside(final, f".part-{uuid.uuid4().hex[:8]}{final.suffix}")
    try:
        yield part
        put_in_place(part, final)
    except BaseException:  # also KeyboardInterrupt: nothing half-written stays
        part.unlink(missing_ok=True)
        raise


def put_in_place(part: Path, final: Path) -> None:
    """Makes a finished file, which lies on the same file system, `final` in one move, once the disk holds it."""
    handle = os.open(part, os.O_RDWR)  # Windows flushes only what is open for writing
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(part, final)


def write_error(path: Path, reason: object) -> InputError:
    """The one line for a file that could not be written, e.g. because the disk is full."""
    text = getattr(reason, "strerror", None) or str(reason)
    return InputError(f"{path} could not be written ({text}); free some space or choose another output")


def ffmpeg_command(*arguments: object) -> list[str]:
    """A command line for the bundled ffmpeg: silent but for errors, local files only, never asking."""
    with needed_packages():
        import imageio_ffmpeg
    return [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", *map(str, arguments)]


def input_arguments(path: Path) -> list[str]:
    """ffmpeg's arguments for a local input; `file:` and the white list keep playlists off the network."""
    return ["-protocol_whitelist", "file,pipe", "-i", f"file:{path}"]


def output_argument(path: Path) -> str:
    """ffmpeg's name for a local output: never an option ("-x.mp4") nor a protocol ("12:30.mp4")."""
    return f"file:{path.absolute()}"


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


def metadata_text(tags: dict[str, str]) -> str:
    """An ffmetadata file. Unlike a command line, it may be of any length."""
    lines = ["=".join(re.sub(r"([=;#\\\n])", r"\\\1", text) for text in tag) for tag in tags.items()]
    return "\n".join([";FFMETADATA1", *lines, ""])


def metadata_tags(text: str) -> dict[str, str]:
    """The tags of an ffmetadata file: one key=value per line; = ; # \\ and line ends stand behind a backslash."""
    entries = re.findall(r"^((?:\\.|[^=;#\\\n])+)=((?:\\.|[^\\\n])*)$", text, re.MULTILINE | re.DOTALL)
    plain = [[re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL) for text in tag] for tag in entries]
    return dict(plain)
