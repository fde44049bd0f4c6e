"""The video: frames and sound into one MP4 by the bundled ffmpeg, and back out for looking at it.

Frames are streamed, so memory does not grow with the length. The file appears whole or not at all.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .files import (
    OWN_SESSION,
    atomic,
    ffmpeg_command,
    input_arguments,
    last_line,
    require_file,
    run_ffmpeg,
    write_error,
)
from .units import FPS, SAMPLE_RATE


if TYPE_CHECKING:
    from types import TracebackType

    from numpy import ndarray

SUFFIX = ".mp4"
SOUND_RATE = 48_000  # Hz, of the sound track; one AAC packet (1024 samples) then stays below one frame
TITLE = "Talking portrait (synthetic)"
TILE = 256  # pixels, the longer side of one picture on a contact sheet, at most

WANTED = "an MP4 video"
RAW = ("-f", "rawvideo", "-pix_fmt", "rgb24")
BT709 = "-vf scale=out_color_matrix=bt709:out_range=tv -colorspace bt709 -color_primaries bt709 -color_trc bt709"
H264 = f"-c:v libx264 -crf 18 -pix_fmt yuv420p {BT709}".split()
AAC = ("-map", "1:a:0", "-c:a", "aac", "-b:a", "160k")
# Timestamps are counted anew: a track that begins late in its container would not be cut right.
FIT_SOUND = f"aresample={SOUND_RATE},asetpts=N/SR/TB,apad,atrim=end_sample=%d,aformat=channel_layouts=mono|stereo"


def check_output(path: str | Path) -> Path:
    """`path`, which a video can be written to: ends in .mp4, is no folder, and its folder takes files (it is
    made when writing begins). Leaves nothing behind. Raises InputError."""
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"output {path} is a folder; give a file name such as {path / 'talking.mp4'}")
        if path.suffix.lower() != SUFFIX:
            raise InputError(
                f"output {path.name} ends in {path.suffix or 'nothing'!r}; give a name that ends in {SUFFIX}"
            )
        folder = path.absolute().parent
        while not folder.exists():
            folder = folder.parent
        # As long as the longest name that will stand beside the output.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{path.name}.parts-"):
            return path
    except OSError as error:
        raise InputError(f"output {path} cannot be written ({error.strerror}); choose another place") from error


class VideoWriter:
    """Streams frames into an MP4 (H.264, AAC) whose sound is exactly as long as its picture.

        with VideoWriter("out.mp4", 128, 128, 25, "speech.wav", {"seed": 0}) as video:
            video.write(frames)  # uint8 [F, H, W, 3], as often as wanted

    path           the final name; until the end the work goes on beside it in `<stem>.part-...mp4`
    width, height  pixels, even
    fps            frames per second
    speech         a sound file (used as it is, mono or stereo), a waveform [T] in [-1, 1] at 16 kHz,
                   or None for a silent film; cut or padded with silence to the picture's length
    metadata       JSON-serialisable; stored as the comment, with `synthetic: true` added (`read_metadata`)

    Any exception inside the block, KeyboardInterrupt too, removes what was written. Raises InputError when
    ffmpeg fails, with the reason it gave (a full disk, say).
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: int = FPS,
        speech: Any = None,
        metadata: dict | None = None,
    ) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"{width} x {height} px cannot be stored as yuv420p; both must be even")
        self.path = Path(path)
        self.width, self.height, self.fps = width, height, fps
        self.frames = 0
        self._speech = speech
        self._metadata = {**(metadata or {}), "synthetic": True}
        self._cleanup = ExitStack()

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise write_error(self.path, error) from error
            # The sound's length is known with the last frame, so it is added in a second, copying pass.
            self._final = stack.enter_context(atomic(self.path))
            self._silent = self._final.with_suffix(f".silent{SUFFIX}")
            stack.callback(self._silent.unlink, missing_ok=True)
            self._stderr = stack.enter_context(tempfile.TemporaryFile())
            size = ("-s", f"{self.width}x{self.height}", "-r", self.fps)
            self._process = subprocess.Popen(
                ffmpeg_command(*RAW, *size, "-i", "pipe:0", *H264, self._silent),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                start_new_session=OWN_SESSION,
            )
            stack.callback(_stop, self._process)
            self._cleanup = stack.pop_all()
        return self

    def write(self, frames: ndarray) -> None:
        """Appends frames, uint8 [F, H, W, 3] RGB. Raises InputError when ffmpeg cannot write on."""
        if frames.dtype != "uint8" or frames.shape[1:] != (self.height, self.width, 3):
            raise ValueError(
                f"frames are {frames.dtype} {frames.shape}; wanted uint8 (F, {self.height}, {self.width}, 3)"
            )
        assert self._process.stdin
        try:
            for frame in frames:
                self._process.stdin.write(frame.tobytes())
        except BrokenPipeError as error:
            self._process.wait()
            raise self._failure() from error
        self.frames += len(frames)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._cleanup:
                if error is not None:
                    raise error  # so that `atomic` sees it and removes the part
                self._finish()
        except OSError as failed:
            if failed is error:
                raise
            raise write_error(self.path, failed) from failed

    def _finish(self) -> None:
        """Ends the picture, then copies it into the final file beside the sound."""
        if not self.frames:
            raise ValueError("no frames were written")
        assert self._process.stdin
        try:
            self._process.stdin.close()
        except BrokenPipeError as error:
            self._process.wait()
            raise self._failure() from error
        if self._process.wait():
            raise self._failure()
        with _sound_input(self._speech) as sound:
            track = (*AAC, "-af", FIT_SOUND % round(self.frames * SOUND_RATE / self.fps)) if sound else ()
            tags = ("-metadata", f"title={self._metadata.get('title', TITLE)}")
            tags += ("-metadata", f"comment={json.dumps(self._metadata)}")
            done = run_ffmpeg(
                *input_arguments(self._silent), *sound, "-map", "0:v:0", "-c:v", "copy",
                *track, "-map_metadata", -1, *tags, "-movflags", "+faststart", self._final,
            )  # fmt: skip
        if done.returncode:
            raise write_error(self.path, last_line(done.stderr))

    def _failure(self) -> InputError:
        self._stderr.seek(0)
        return write_error(self.path, last_line(self._stderr.read()))


def _stop(process: subprocess.Popen) -> None:
    """Ends ffmpeg if it still runs, and its pipe."""
    if process.poll() is None:
        process.kill()
        process.wait()
    if process.stdin:
        with suppress(BrokenPipeError):  # bytes still in the buffer that nobody wants any more
            process.stdin.close()


@contextmanager
def _sound_input(speech: Any) -> Iterator[list[str]]:
    """ffmpeg's arguments for the sound: none, the recording itself, or a waveform [T] in a temporary file."""
    if speech is None or isinstance(speech, str | Path):
        yield [] if speech is None else input_arguments(Path(speech))
        return
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="tbd_sound_") as folder:
        samples = Path(folder) / "waveform.f32"
        samples.write_bytes(np.asarray(speech, dtype="<f4").tobytes())
        yield ["-f", "f32le", "-ar", str(SAMPLE_RATE), "-ac", "1", *input_arguments(samples)]


def _unreadable(path: Path, stderr: bytes) -> InputError:
    return InputError(f"{path.name} is not a video that can be read ({last_line(stderr)}); give {WANTED}")


def read_metadata(path: str | Path) -> dict:
    """What VideoWriter stored: its `metadata`, `synthetic` and the title. Of any other video: its tags."""
    path = require_file(path, WANTED)
    done = run_ffmpeg(*input_arguments(path), "-f", "ffmetadata", "-")
    if done.returncode:
        raise _unreadable(path, done.stderr)
    text = done.stdout.decode("utf-8", "replace")
    # ffmetadata: one key=value per line; = ; # \ and line ends inside a value stand behind a backslash.
    entries = re.findall(r"^((?:\\.|[^=;#\\\n])+)=((?:\\.|[^\\\n])*)$", text, re.MULTILINE | re.DOTALL)
    tags = {key: re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL) for key, value in entries}
    try:
        stored = json.loads(tags.get("comment", ""))
    except json.JSONDecodeError:
        return tags
    return {"title": tags.get("title", ""), **stored} if isinstance(stored, dict) else tags


def probe(path: str | Path) -> dict:
    """What the file really holds, found by decoding all of it: width height fps frames seconds has_audio
    audio_seconds. Raises InputError."""
    path = require_file(path, WANTED)
    # framecrc prints time bases and sizes, then one line for each decoded frame or block of samples.
    done = run_ffmpeg(*input_arguments(path), "-map", "0:v:0", "-map", "0:a:0?", "-f", "framecrc", "-")
    text = done.stdout.decode("ascii", "replace")
    size = re.search(r"^#dimensions 0: (\d+)x(\d+)", text, re.MULTILINE)
    if done.returncode or not size:
        raise _unreadable(path, done.stderr)
    bases = {int(stream): Fraction(base) for stream, base in re.findall(r"^#tb (\d): (\S+)", text, re.MULTILINE)}
    durations: dict[int, list[int]] = {0: [], 1: []}
    for stream, duration in re.findall(r"^(\d),[^,]+,[^,]+,\s*(\d+),", text, re.MULTILINE):
        durations[int(stream)].append(int(duration))
    seconds = float(sum(durations[0]) * bases[0])
    frames = len(durations[0])
    return {
        "width": int(size[1]),
        "height": int(size[2]),
        "fps": round(frames / seconds, 3) if seconds else 0.0,
        "frames": frames,
        "seconds": seconds,
        "has_audio": 1 in bases,
        "audio_seconds": float(sum(durations[1]) * bases[1]) if 1 in bases else 0.0,
    }


def contact_sheet(video: str | Path, output: str | Path, columns: int = 6, rows: int = 2) -> Path:
    """A PNG of `columns` x `rows` frames at even distances, first and last among them. Raises InputError."""
    from PIL import Image

    output = Path(output)
    facts = probe(video)
    count = min(columns * rows, facts["frames"])
    wanted = {round(i * (facts["frames"] - 1) / max(1, count - 1)) for i in range(count)}
    tiles = []
    for frame in _frames(Path(video), facts["width"], facts["height"], wanted):
        tile = Image.fromarray(frame)
        tile.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
        tiles.append(tile)
    if not tiles:
        raise InputError(f"{Path(video).name} has 0 frames; give {WANTED}")
    width, height = tiles[0].size
    columns = min(columns, len(tiles))
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * width, i // columns * height))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic(output) as part:
            sheet.save(part, format="PNG")
    except OSError as error:
        raise write_error(output, error) from error
    return output


def _frames(video: Path, width: int, height: int, wanted: set[int]) -> Iterator[ndarray]:
    """The frames [H, W, 3] uint8 with the wanted numbers, one at a time."""
    import numpy as np

    command = ffmpeg_command("-nostdin", *input_arguments(video), "-map", "0:v:0", *RAW, "pipe:1")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    try:
        for index in range(max(wanted) + 1):
            data = process.stdout.read(width * height * 3)
            if index in wanted and len(data) == width * height * 3:
                yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
