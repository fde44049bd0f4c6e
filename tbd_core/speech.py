"""The speech: any sound file to one mono waveform at 16 kHz, and the number of 25 fps frames it lasts.

Files are read, mixed down and resampled block by block, so that only the 16 kHz waveform (64 kB a second)
is ever held whole. What libsndfile cannot read (m4a, mp4, webm ...) the bundled ffmpeg first decodes into a
temporary WAV.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .errors import InputError
from .files import input_arguments, last_line, require_file, run_ffmpeg
from .flow import Speech
from .soundcheck import unlike_voice
from .units import AUDIO_WINDOW, SAMPLE_RATE, num_frames


if TYPE_CHECKING:
    from numpy import ndarray
    from soundfile import SoundFile
    from torch import Tensor

MIN_SECONDS = 0.2
BLOCK = 65_536  # samples per channel read at once
SILENCE_STD = 10 ** (-55 / 20)  # -55 dB of full scale: quieter than this is no speech

WANTED = "a WAV, FLAC, OGG, MP3 or M4A recording"
# Containers that declare their sound chunk's length: (begin, form type) -> byte order, name of that chunk.
CHUNKED: dict[tuple[bytes, bytes], tuple[Literal["little", "big"], bytes]] = {
    (b"RIFF", b"WAVE"): ("little", b"data"),
    (b"FORM", b"AIFF"): ("big", b"SSND"),
    (b"FORM", b"AIFC"): ("big", b"SSND"),
}
OGG_PAGE = 27 + 255 + 255 * 255  # bytes, the longest page


@dataclass(frozen=True)
class Recording:
    """What a sound file holds, mixed down and resampled."""

    waveform: ndarray  # [T] float32 in [-1, 1] at 16 kHz
    num_samples: int  # of the file, per channel
    sample_rate: int  # of the file, Hz
    peak: float  # of the file's samples; above 1 only in floating-point files

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate


def load_speech(path: str | Path) -> Speech:
    """The recording as flow.Speech: waveform [T] at 16 kHz; frames and seconds counted on the file itself.

    Silence works, and so does a clipped recording. Raises InputError when the file is missing, a folder,
    empty, truncated, not sound, shorter than 0.2 s, or has samples that are not numbers.
    """
    return _speech(Path(path).name, check_speech(path))


def speech_from_samples(samples: ndarray, rate: int, source: str) -> Speech:
    """As `load_speech`, of samples that are there already: [C, T] or [T] floats in [-1, 1] at `rate` Hz.

    `source` names them in warnings and errors. Raises InputError when they are too few or not numbers.
    """
    import numpy as np

    if rate < 1:
        raise InputError(f"{source} has a sample rate of {rate} Hz; give sound with its rate, such as {SAMPLE_RATE}")
    channels = np.atleast_2d(np.asarray(samples, dtype=np.float32))
    if not len(channels):
        raise InputError(f"{source} has 0 channels; give sound with at least 1")
    blocks = (channels[:, start : start + BLOCK].T for start in range(0, channels.shape[1], BLOCK))
    recording = _mix_down(source, int(rate), blocks)
    _check_seconds(source, recording)
    return _speech(source, recording)


def _speech(name: str, recording: Recording) -> Speech:
    import torch

    notes = []
    if recording.peak > 1.0:
        notes.append(f"{name} peaks at {recording.peak:.2f}, beyond full scale 1; clipped")
    if recording.peak == 0.0:
        notes.append(f"{name} is silent; the mouth will stay shut")
    if found := unlike_voice(recording.waveform):
        notes.append(f"{name} {found}")
    return Speech(
        waveform=torch.from_numpy(recording.waveform),
        num_frames=num_frames(recording.num_samples, recording.sample_rate),
        seconds=recording.seconds,
        source=name,
        warnings=tuple(notes),
    )


def check_speech(path: str | Path) -> Recording:
    """Everything that can be wrong with the file, without a network (and without torch): reads all of it."""
    path = require_file(path, WANTED)
    _check_declared_length(path)
    with _open(path) as file:
        recording = _read(path.name, file)
    _check_seconds(path.name, recording)
    return recording


def _check_seconds(name: str, recording: Recording) -> None:
    if recording.seconds < MIN_SECONDS:
        rounded_down = recording.num_samples * 100 // recording.sample_rate / 100  # never shows 0.199 s as 0.20
        raise InputError(f"{name} has {rounded_down:.2f} s of audio; at least {MIN_SECONDS} s are needed")


def normalise(waveform: Tensor) -> Tensor:
    """Waveform [T] as wav2vec2 expects it: zero mean, unit variance.

    Differs from transformers' Wav2Vec2FeatureExtractor in one point (ours): the divisor never falls below
    -55 dB of full scale, so that a silent recording's noise floor is not blown up to the loudness of speech.
    """
    centred = waveform - waveform.mean()
    return centred / centred.square().mean().sqrt().clamp_min(SILENCE_STD)


def window_frames(features: Tensor, frames: range | None = None, window: int = AUDIO_WINDOW) -> Tensor:
    """[F, L, C] -> [F, window, L, C]: frame i with its neighbours i-2 .. i+2, the ends repeated.

    `frames`: only these, so that the windows of a long speech never stand in memory at once.
    """
    import torch

    if window % 2 == 0:
        raise ValueError(f"window is {window}; it needs a middle, so it must be odd")
    wanted = torch.tensor(frames or range(len(features)), device=features.device)
    offsets = torch.arange(window, device=features.device) - window // 2
    return features[(wanted[:, None] + offsets).clamp(0, len(features) - 1)]


@contextmanager
def _open(path: Path) -> Iterator[SoundFile]:
    """libsndfile's view of the file, by way of ffmpeg for the formats it does not know."""
    import soundfile

    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: headerless .raw, whose rate nobody knows
        with (
            tempfile.TemporaryDirectory(prefix="tbd_speech_") as folder,
            soundfile.SoundFile(_decode(path, Path(folder) / "decoded.wav")) as decoded,
        ):
            yield decoded
    else:
        with file:
            yield file


def _decode(path: Path, wav: Path) -> Path:
    """ffmpeg's decoding of the first sound track, at its own rate, one channel. Raises InputError."""
    unreadable = InputError(f"{path.name} is not a sound recording that can be read; give {WANTED}")
    if run_ffmpeg(*input_arguments(path), "-map", "0:a:0", "-t", "0", "-f", "null", "-").returncode:
        raise unreadable
    done = run_ffmpeg("-xerror", *input_arguments(path), "-map", "0:a:0", "-ac", 1, "-c:a", "pcm_f32le", wav)
    if done.returncode or b"ended prematurely" in done.stderr:  # Matroska's cut files end with a sigh and success
        reason = last_line(done.stderr)
        raise InputError(f"{path.name} is damaged or truncated ({reason}); give a whole recording")
    return wav


def _read(name: str, file: SoundFile) -> Recording:
    """All blocks of an open file, mixed down. Raises InputError."""
    import soundfile

    def blocks() -> Iterator[ndarray]:
        # Not `file.blocks`, which hands out uninitialised memory where a cut file ends early.
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            yield block

    try:
        recording = _mix_down(name, file.samplerate, blocks())
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name} is damaged or truncated ({error.error_string}); give a whole recording") from error
    if recording.num_samples < file.frames < 2**62:  # a stream of unknown length claims 2^63 - 1
        raise _truncated(name, recording.seconds, file.frames / file.samplerate)
    return recording


def _mix_down(name: str, rate: int, blocks: Iterable[ndarray]) -> Recording:
    """Blocks [t, C] float32 at `rate` Hz: mixed down, looked through, resampled. Raises InputError."""
    import numpy as np

    resample, parts = _resampler(rate), []
    count, not_numbers, peak = 0, 0, 0.0
    for block in blocks:
        finite = np.isfinite(block).all(axis=1)
        not_numbers += len(block) - int(finite.sum())
        peak = max(peak, float(np.abs(block[finite]).max(initial=0.0)))
        count += len(block)
        mono = np.clip(block, -1.0, 1.0).mean(axis=1)
        parts.append(resample(mono, last=False))
    if not_numbers:
        raise InputError(f"{name} has {not_numbers} samples that are NaN or infinite; export the recording again")
    parts.append(resample(np.zeros(0, np.float32), last=True))
    waveform = np.concatenate(parts)
    # The resampler's length may be off by one or two samples.
    length = round(count * SAMPLE_RATE / rate)
    waveform = np.pad(waveform[:length], (0, max(0, length - len(waveform))))
    return Recording(np.clip(waveform, -1.0, 1.0), count, rate, peak)


def _resampler(rate: int):
    """A function (block [t] float32, last) -> block at 16 kHz, to be called block after block."""
    if rate == SAMPLE_RATE:
        return lambda block, last: block
    try:
        import soxr
    except ImportError:  # inside ComfyUI, which brings scipy only
        return _whole_resampler(rate)
    return soxr.ResampleStream(rate, SAMPLE_RATE, num_channels=1, dtype="float32", quality="HQ").resample_chunk


def _whole_resampler(rate: int):
    """As `_resampler`, by scipy, which wants the whole recording at once: all comes with the last block."""
    import numpy as np
    from scipy.signal import resample_poly

    shared, blocks = gcd(rate, SAMPLE_RATE), []

    def resample(block: ndarray, last: bool) -> ndarray:
        blocks.append(block)
        if not last:
            return block[:0]
        whole = np.concatenate(blocks)
        return resample_poly(whole, SAMPLE_RATE // shared, rate // shared) if len(whole) else whole

    return resample


def _check_declared_length(path: Path) -> None:
    """libsndfile silently reads what is left of a cut WAV, AIFF or Ogg; their headers tell it is cut."""
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(12)
        if magic[:4] == b"OggS":
            file.seek(max(0, size - OGG_PAGE))
            _check_last_ogg_page(path.name, file.read())
        if (magic[:4], magic[8:]) not in CHUNKED:
            return
        order, sound = CHUNKED[magic[:4], magic[8:]]
        while len(header := file.read(8)) == 8:
            declared = int.from_bytes(header[4:], order)
            if header[:4] == sound:
                there = size - file.tell()
                # 0 and the largest number stand for "unknown": a program that wrote into a pipe.
                if declared < 0xFFFFFFFF - 0xFFFF and there < declared:
                    raise InputError(
                        f"{path.name} is truncated: {there} of the {declared} bytes of sound in its header; "
                        "give a whole recording"
                    )
                return
            file.seek(declared + declared % 2, 1)
    raise InputError(f"{path.name} is truncated: it ends before its sound begins; give a whole recording")


def _check_last_ogg_page(name: str, tail: bytes) -> None:
    """A page is 27 bytes, a table of n segment lengths, and the segments; n is the 27th byte."""
    page = tail[tail.rfind(b"OggS") :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    declared = 27 + len(segments) + sum(segments)
    if len(page) < declared or len(page) < 27 + page[26]:
        raise InputError(f"{name} is truncated: {len(page)} of the {declared} bytes of its last page; give all of it")


def _truncated(name: str, there: float, declared: float) -> InputError:
    return InputError(
        f"{name} is truncated: {there:.2f} of the {declared:.2f} s that it declares; give a whole recording"
    )
