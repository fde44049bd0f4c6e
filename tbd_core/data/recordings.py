"""Recordings to train and to judge on: espeak-ng reads sentences aloud, then rooms and microphones are put between.

Whole voices, whole timbres (espeak-ng's variants) and whole sentences are held out: no part of a recording of
`HELD_OUT` is ever in one of `TRAIN`. espeak-ng (a Debian package) is wanted for training alone.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..synthetic.speech import babble
from ..units import SAMPLE_RATE
from .sentences import FOREIGN, HELD_OUT_FOREIGN, HELD_OUT_SENTENCES, SENTENCES


PROGRAM = "espeak-ng"
RATES = (120, 220)  # words a minute
PITCHES = (20, 80)  # espeak-ng's scale of 0 to 99
PAUSE, LONG_PAUSE, LONG_SHARE = (0.1, 0.8), (1.0, 2.0), 0.15  # seconds of silence between sentences; share of long
PEAK_DB = (-18.0, -1.0)  # of the loudest sample
ROOM_DB = (-90.0, -65.0)  # of the room in the pauses, when it is not digitally silent
DIGITAL_SILENCE = 0.5  # share of recordings
FOREIGN_SHARE = 0.15
BABBLE_SHARE, SILENT_SHARE = 0.25, 0.03  # of the recordings to train on; never of those held out


@dataclass(frozen=True)
class Cast:
    """Who speaks (espeak-ng's voices and their variants, combined freely) and what is said, by language."""

    english: tuple[str, ...]
    foreign: tuple[str, ...]
    variants: tuple[str, ...]
    sentences: dict[str, tuple[str, ...]]


TRAIN = Cast(
    english=("en-us", "en-us-nyc", "en-gb", "en-gb-x-rp", "en-gb-x-gbclan"),
    foreign=("de", "fr-fr", "es"),
    variants=(
        "", "m1", "m3", "m4", "m6", "m7", "f1", "f2", "f4", "croak", "klatt", "klatt3", "klatt4", "adam", "Alex",
        "Alicia", "Andy", "antonio", "belinda", "boris", "caleb", "Denis", "edward", "Gene", "grandpa", "Hugo", "john",
        "linda", "Marco", "max", "miguel", "pedro", "rob", "steph", "travis", "zac",
    ),
    sentences={"en": SENTENCES, **FOREIGN},
)  # fmt: skip
HELD_OUT = Cast(
    english=("en-gb-scotland", "en-029", "en-gb-x-gbcwmd"),
    foreign=("it",),
    variants=("m2", "m5", "m8", "f3", "f5", "klatt2", "anika", "Andrea", "david", "grandma", "paul", "quincy"),
    sentences={"en": HELD_OUT_SENTENCES, **HELD_OUT_FOREIGN},
)


def check_voices() -> None:
    """Raises InputError unless espeak-ng has every voice and variant of both casts: a variant it lacks it would leave
    out without a word."""
    casts = (TRAIN, HELD_OUT)
    listed = {row[-1] for row in _voices("--voices=variant")}
    lacks = [name for cast in casts for name in cast.variants if name and f"!v/{name}" not in listed]
    languages = {word for row in _voices("--voices") for word in row}
    lacks += [name for cast in casts for name in (*cast.english, *cast.foreign) if name not in languages]
    if lacks:
        raise InputError(
            f"{PROGRAM} lacks {len(lacks)} voices ({', '.join(lacks[:5])}); install a whole {PROGRAM}, 1.51 or newer"
        )


def _voices(option: str) -> list[list[str]]:
    """Rows of espeak-ng's list; a variant's file name is the last word."""
    lines = _run(option).decode("utf-8", "replace").splitlines()[1:]
    return [line.split() for line in lines if line.strip()]


def _program() -> str:
    program = shutil.which(PROGRAM)
    if program is None:
        raise InputError(
            f"{PROGRAM} was not found; training's speech is made with it; "
            f"install it (Debian: apt-get install {PROGRAM})"
        )
    return program


def _run(*arguments: str) -> bytes:
    return subprocess.run([_program(), *arguments], capture_output=True, check=False).stdout


def speak(sentence: str, voice: str, rate: int, pitch: int) -> Tensor:
    """`sentence` read aloud: [T] in [-1, 1] at 16 kHz.

    `voice` as espeak-ng names it ("en-us", "en-gb+f2"), `rate` in words a minute, `pitch` in [0, 99]. The same
    arguments give the same sound. Raises InputError when espeak-ng is missing or cannot do it.
    """
    command = [_program(), "-v", voice, "-s", str(rate), "-p", str(pitch), "-b", "1", "--stdin", "--stdout"]
    done = subprocess.run(command, input=sentence.encode(), capture_output=True, check=False)
    sound = _samples(done.stdout) if done.returncode == 0 else torch.zeros(0)
    if len(sound) == 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = said[-1] if said else f"exit status {done.returncode}, no sound"
        raise InputError(f"{PROGRAM} could not speak with the voice {voice!r} ({reason}); install a whole {PROGRAM}")
    return sound


def _samples(wav: bytes) -> Tensor:
    """A mono 16-bit WAV from a pipe, whose header does not know its length → [T] at 16 kHz."""
    import soxr

    try:
        with wave.open(io.BytesIO(wav)) as file:
            data, rate = bytearray(file.readframes(file.getnframes())), file.getframerate()
    except (wave.Error, EOFError):
        return torch.zeros(0)
    if len(data) < 2:
        return torch.zeros(0)
    sound = torch.frombuffer(data, dtype=torch.int16, count=len(data) // 2).float() / 32768
    return torch.from_numpy(soxr.resample(sound.numpy(), rate, SAMPLE_RATE)).clamp(-1, 1)


def recording(generator: torch.Generator, seconds: float, held_out: bool = False) -> Tensor:
    """One voice reads sentences, with pauses, for `seconds`: clean sound [T] in [-1, 1] at 16 kHz.

    Pauses are digitally silent or a faint room. Of the recordings to train on a quarter is babble instead, and now
    and then nobody speaks at all.
    """
    samples = round(seconds * SAMPLE_RATE)

    def draw(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    def choose(items: tuple[str, ...]) -> str:
        return items[int(torch.randint(len(items), (1,), generator=generator))]

    room = 10 ** (draw(*ROOM_DB) / 20) if draw() >= DIGITAL_SILENCE else 0.0
    kind = 1.0 if held_out else draw()
    if kind < BABBLE_SHARE:
        return babble(generator, seconds)
    if kind < BABBLE_SHARE + SILENT_SHARE:
        return room * torch.randn(samples, generator=generator)
    cast = HELD_OUT if held_out else TRAIN
    base = choose(cast.foreign if draw() < FOREIGN_SHARE else cast.english)
    variant = choose(cast.variants)
    voice = f"{base}+{variant}" if variant else base
    rate, pitch = draw(*RATES), draw(*PITCHES)

    parts, length = [torch.zeros(int(draw(0, 0.5) * SAMPLE_RATE))], 0
    while length < samples:
        sentence = choose(cast.sentences[base[:2]])
        parts.append(speak(sentence, voice, round(rate * draw(0.93, 1.07)), round(pitch * draw(0.9, 1.1))))
        pause = draw(*(LONG_PAUSE if draw() < LONG_SHARE else PAUSE))
        parts.append(torch.zeros(int(pause * SAMPLE_RATE)))
        length = sum(map(len, parts))
    sound = torch.cat(parts)[:samples]
    sound = sound / sound.abs().max().clamp(min=1e-6) * 10 ** (draw(*PEAK_DB) / 20)
    return (sound + room * torch.randn(samples, generator=generator)).clamp(-1, 1)


# What rooms, microphones and recorders do to a sound without moving it in time. Each draws anew for every sound of
# [B, T]; where the draw says no, the sound passes as it is.
ROUGH_SHARE = 0.85  # of the sounds; the rest stays as it was
REVERB_SHARE, EQUAL_SHARE, NOISE_SHARE = 0.4, 0.6, 0.7  # of the rough ones
RT60 = (0.1, 0.5)  # seconds until the room is 60 dB quieter
DIRECT_DB = (3.0, 18.0)  # the direct path over all that comes later
TILT_DB = (-4.0, 4.0)  # per octave around 1 kHz, at most 15 dB
LOW_PASS = (3000.0, 12_000.0)  # Hz; a telephone or a muffled microphone, or none
HIGH_PASS = (20.0, 300.0)  # Hz
SNR_DB = (12.0, 50.0)  # speech over noise
GAIN_DB = (-20.0, 6.0)


def roughen(sound: Tensor, generator: torch.Generator) -> Tensor:
    """`sound` [T] or [B, T] as another microphone in another room hears it: the mouth is the same.

    Reverberation, equaliser, noise, gain; nothing is delayed (the direct path stays where it was, the equaliser has
    no phase). The result is clipped to [-1, 1].
    """
    if sound.dim() == 1:
        return roughen(sound[None], generator)[0]
    count = len(sound)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, generator=generator)

    rough = draw(0, 1) < ROUGH_SHARE
    quiet = sound.abs().amax(1, keepdim=True) < 10 ** (-50 / 20)
    out = torch.where(draw(0, 1) < REVERB_SHARE, reverberate(sound, draw(*RT60), draw(*DIRECT_DB), generator), sound)
    out = torch.where(draw(0, 1) < EQUAL_SHARE, equalise(out, draw(*TILT_DB), draw(*LOW_PASS), draw(*HIGH_PASS)), out)
    loudness = out.square().mean(1, keepdim=True).sqrt()
    loudness = torch.where(quiet, torch.full_like(loudness, 0.1), loudness)  # no speech: noise of any strength
    noise = coloured_noise(sound.shape, generator, draw(0, 1)) * loudness * 10 ** (-draw(*SNR_DB) / 20)
    out = (out + noise * (draw(0, 1) < NOISE_SHARE)) * 10 ** (draw(*GAIN_DB) / 20)
    return torch.where(rough, out, sound).clamp(-1, 1)


def reverberate(sound: Tensor, seconds: Tensor, direct: Tensor, generator: torch.Generator) -> Tensor:
    """A synthetic room after the direct sound: noise that decays by 60 dB in `seconds` [B, 1], `direct` dB [B, 1]
    below it in all."""
    length = int(RT60[1] * SAMPLE_RATE)
    time = torch.arange(1, length + 1) / SAMPLE_RATE
    tail = torch.randn(len(sound), length, generator=generator) * 10 ** (-3 * time / seconds)
    tail = tail / tail.square().sum(1, keepdim=True).sqrt() * 10 ** (-direct / 20)
    impulse = torch.cat([torch.ones(len(sound), 1), tail], 1)
    size = sound.shape[1] + length
    heard = torch.fft.irfft(torch.fft.rfft(sound, size) * torch.fft.rfft(impulse, size), size)
    return heard[:, : sound.shape[1]]


def equalise(sound: Tensor, tilt: Tensor, low_pass: Tensor, high_pass: Tensor) -> Tensor:
    """`tilt` dB per octave around 1 kHz, then 24 dB per octave beyond the two corners in Hz; each [B, 1]; without
    phase, so that nothing moves."""
    hertz = torch.linspace(0, SAMPLE_RATE / 2, sound.shape[1] // 2 + 1).clamp(min=1.0)
    tilted = 10 ** ((tilt * (hertz / 1000).log2()).clamp(-15, 15) / 20)
    passed = 1 / (1 + (hertz / low_pass) ** 8).sqrt() / (1 + (high_pass / hertz) ** 8).sqrt()
    return torch.fft.irfft(torch.fft.rfft(sound) * tilted * passed, sound.shape[1])


def coloured_noise(shape: torch.Size, generator: torch.Generator, colour: Tensor) -> Tensor:
    """Noise of mean square 1, [B, T]: from white (`colour` [B, 1] = 0) to pink (1: 3 dB less per octave)."""
    spectrum = torch.fft.rfft(torch.randn(shape, generator=generator))
    hertz = torch.linspace(0, SAMPLE_RATE / 2, spectrum.shape[1]).clamp(min=50.0)
    noise = torch.fft.irfft(spectrum * hertz ** (-colour / 2), shape[1])
    return noise / noise.square().mean(1, keepdim=True).sqrt().clamp(min=1e-9)
