"""The video: frames and sound into one MP4 by the bundled ffmpeg, and back out for looking at it.

Frames are streamed, so memory does not grow with the length. The file appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .files import (
    OWN_SESSION,
    atomic,
    beside,
    check_new_file,
    ffmpeg_command,
    input_arguments,
    last_line,
    metadata_tags,
    metadata_text,
    output_argument,
    put_in_place,
    require_file,
    run_ffmpeg,
    write_error,
)
from .units import FPS, SAMPLE_RATE


if TYPE_CHECKING:
    from numpy import ndarray

SUFFIX = ".mp4"
SOUND_RATE = 48_000  # Hz, of the sound track; one AAC packet (1024 samples) then stays below one frame
TITLE = "Talking portrait (synthetic)"
TILE = 256  # pixels, the longer side of one picture on a contact sheet, at most

WANTED = "an MP4 video"
RAW = ("-f", "rawvideo", "-pix_fmt", "rgb24")
BT709 = "-vf scale=out_color_matrix=bt709:out_range=tv -colorspace bt709 -color_primaries bt709 -color_trc bt709"
H264 = f"-c:v libx264 -crf 18 -pix_fmt yuv420p {BT709}".split()
AAC = ("-map", "2:a:0", "-c:a", "aac", "-b:a", "160k")
OWN_TAGS = "-map_metadata 1 -map_metadata:s -1 -map_chapters -1"  # those of the second input
# Timestamps are counted anew: a track that begins late in its container would not be cut right.
FIT_SOUND = f"aresample={SOUND_RATE},asetpts=N/SR/TB,apad,atrim=end_sample=%d,aformat=channel_layouts=mono|stereo"


def check_output(path: str | Path) -> Path:
    """`path`, which a video can be written to (`check_new_file`). Raises InputError."""
    return check_new_file(path, SUFFIX)


class VideoWriter:
    """Streams frames into an MP4 (H.264, AAC) whose sound is exactly as long as its picture.

        with VideoWriter("out.mp4", 128, 128, 25, "speech.wav", {"seed": 0}) as video:
            video.write(frames)  # uint8 [F, H, W, 3], as often as wanted

    path           the final name; it appears when the video is whole
    width, height  pixels, even
    fps            frames per second
    speech         a sound file (used as it is, mono or stereo), a waveform [T] in [-1, 1] at 16 kHz,
                   or None for a silent film; cut or padded with silence to the picture's length
    metadata       JSON-serialisable; stored as the comment, with `synthetic: true` added (`read_metadata`)
    folder         where the work lies until the end, on the file system of `path`; made if it is missing. None: beside
                   `path`. Only a run that is killed leaves anything in it, `video-...`

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
        folder: Path | None = None,
    ) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"{width} x {height} px cannot be stored as yuv420p; both must be even")
        self.path = Path(path)
        self.width, self.height, self.fps = width, height, fps
        self.frames = 0
        self._speech = speech
        self._metadata = {**(metadata or {}), "synthetic": True}
        self._folder = folder
        self._cleanup = ExitStack()

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            place = self._folder / "video-" if self._folder else beside(self.path, ".part-")
            try:
                for needed in (self.path.parent, place.parent):
                    needed.mkdir(parents=True, exist_ok=True)
                work = tempfile.TemporaryDirectory(prefix=place.name, dir=place.parent, ignore_cleanup_errors=True)
                self._work = Path(stack.enter_context(work)).absolute()
            except OSError as error:
                raise write_error(self.path, error) from error
            # The sound's length is known with the last frame, so it is added in a second, copying pass.
            self._silent = self._work / f"silent{SUFFIX}"
            self._stderr = stack.enter_context(tempfile.TemporaryFile())
            size = ("-s", f"{self.width}x{self.height}", "-r", self.fps)
            self._process = subprocess.Popen(
                ffmpeg_command(*RAW, *size, "-i", "pipe:0", *H264, output_argument(self._silent)),
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

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._cleanup:
            if error is None:
                try:
                    self._finish()
                except OSError as failed:
                    raise write_error(self.path, failed) from failed

    def _finish(self) -> None:
        """Ends the picture, copies it into another file beside the sound, and puts that in place."""
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
        sound = self._sound()
        track = (*AAC, "-af", FIT_SOUND % round(self.frames * SOUND_RATE / self.fps)) if sound else ()
        whole = self._work / f"whole{SUFFIX}"
        done = run_ffmpeg(
            *input_arguments(self._silent), *self._tags(), *sound, "-map", "0:v:0", "-c:v", "copy", *track,
            *OWN_TAGS.split(), "-movflags", "+faststart", output_argument(whole),
        )  # fmt: skip
        if done.returncode:
            raise write_error(self.path, last_line(done.stderr))
        put_in_place(whole, self.path)

    def _tags(self) -> list[str]:
        """ffmpeg's arguments for the comment and the title."""
        # Half of a surrogate pair has no UTF-8; its \u escape is JSON, too.
        comment = json.dumps(self._metadata, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
        tags = {"comment": comment, "title": str(self._metadata.get("title", TITLE))}
        file = self._work / "metadata.txt"
        file.write_bytes(metadata_text(tags).encode("utf-8", "replace"))
        return ["-f", "ffmetadata", *input_arguments(file)]

    def _sound(self) -> list[str]:
        """ffmpeg's arguments for the sound: none, the recording itself, or a waveform [T]."""
        if self._speech is None:
            return []
        if isinstance(self._speech, str | Path):
            return input_arguments(Path(self._speech))
        import numpy as np

        samples = self._work / "waveform.f32"
        samples.write_bytes(np.asarray(self._speech, dtype="<f4").tobytes())
        return ["-f", "f32le", "-ar", str(SAMPLE_RATE), "-ac", "1", *input_arguments(samples)]

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


def _unreadable(path: Path, stderr: bytes) -> InputError:
    return InputError(f"{path.name} is not a video that can be read ({last_line(stderr)}); give {WANTED}")


def read_metadata(path: str | Path) -> dict:
    """What VideoWriter stored: its `metadata`, `synthetic` and the title. Of any other video: its tags."""
    path = require_file(path, WANTED)
    done = run_ffmpeg(*input_arguments(path), "-f", "ffmetadata", "-")
    if done.returncode:
        raise _unreadable(path, done.stderr)
    tags = metadata_tags(done.stdout.decode("utf-8", "replace"))
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

    output = check_new_file(output, ".png")
    video = require_file(video, WANTED)
    if output.exists() and os.path.samefile(output, video):
        raise InputError(f"output {output} is also the video; give another output")
    facts = probe(video)
    count = min(columns * rows, facts["frames"])
    wanted = {round(i * (facts["frames"] - 1) / max(1, count - 1)) for i in range(count)}
    tiles = []
    for frame in _frames(video, facts["width"], facts["height"], wanted):
        tile = Image.fromarray(frame)
        tile.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
        tiles.append(tile)
    if not tiles:
        raise InputError(f"{video.name} has 0 frames; give {WANTED}")
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
