"""A bundle → scores: how far its drawings do what they are told, measured on people and voices it never saw.

Everything a user can get wrong is checked before a network is loaded; what cannot be judged is null, and `notes` says
why. `docs/proof.md` (`proof.py`) shows such a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import store
from ..config import TINY_BUNDLE, GenerateOptions, ModelConfig
from ..data.corpus import to_bytes
from ..errors import InputError
from ..flow import Speech
from ..planning import check_options
from ..speech import load_speech
from ..synthetic.clip import mouth_from_sound
from ..synthetic.face import Face
from ..units import CLIP_FRAMES, FPS, SAMPLES_PER_FRAME
from . import judge, scores
from .cases import SPOKEN_WITH, Case, CaseSizes, make_case, num_clips, people, silent_cases, true_pictures
from .draw import MIDDLE, SEEN, Sitter, Studio
from .readers import PIXELS, READER_FILE, Readers, Readings, load_readers


MOST_PEOPLE = 100
SCORES = (
    "vae_psnr", "au_response_mean", "au_response_worst", "emotion_accuracy", "intensity_monotone", "side_accuracy",
    "lip_r_unseen", "lip_lag_frames", "lip_r_real", "identity_ratio", "identity_error", "identity_error_vae",
    "colour_error", "colour_error_vae", "seam_ratio", "au_reader_error",
)  # fmt: skip

Bar = Callable[[int, int], None]  # (clips drawn, clips in all); may raise to interrupt


@dataclass(frozen=True)
class EvaluateOptions:
    """One evaluation, as the command line asks for it."""

    model: Path = TINY_BUNDLE
    speech: tuple[Path, ...] = ()  # real recordings, besides the unseen voices that ship
    cases: int | None = None  # people; None: as many as fit into 15 minutes
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"


@dataclass(frozen=True)
class Setup:
    """What is settled before a network is loaded."""

    options: EvaluateOptions
    sizes: CaseSizes
    about: dict[str, Any]
    config: ModelConfig
    readers: Readers | None  # None: nothing that is drawn can be read,
    unread: str | None  # and why
    unseen: tuple[Speech, ...]
    real: tuple[Speech, ...]
    notes: tuple[str, ...]

    @cached_property
    def silent(self) -> list[Case]:
        return silent_cases(self.sizes) if self.readers else []

    @property
    def clips(self) -> int:
        return len(self.silent) + sum(num_clips(speech.num_frames) for speech in (*self.unseen, *self.real))


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and what the proof shows of it. Pictures are uint8."""

    setup: Setup
    studio: Studio
    scores: judge.Scores
    ceiling: judge.Scores  # what the readers make of the true renders, through the autoencoder
    cases: list[Case]
    cast: Face  # everybody at rest
    portraits: Tensor  # [people, 3, H, W] in [0, 1], at rest
    sitters: list[Sitter]
    truth: Tensor  # [n, 3, H, W]
    drawn: Tensor  # [n, 3, H, W], the middle frames
    read: Readings | None  # of the drawn cases
    spoken: list[judge.Spoken]
    seam: Tensor | None  # [8, 3, H, W], the frames around the first seam of the first recording
    wall_seconds: float
    result: dict[str, Any] = field(default_factory=dict)  # what `evaluate --json` prints


def prepare(options: EvaluateOptions, sizes: CaseSizes | None = None, reader_file: Path = READER_FILE) -> Setup:
    """Check everything. InputError as in `generate`."""
    check_options(
        GenerateOptions(
            options.model, options.model, options.model, seed=options.seed, device=options.device, dtype=options.dtype
        )
    )
    sizes = sizes or CaseSizes()
    if options.cases is not None:
        if not 1 <= options.cases <= MOST_PEOPLE:
            raise InputError(f"--cases is {options.cases}; give a number of people from 1 to {MOST_PEOPLE}")
        sizes = replace(sizes, people=options.cases)
    about, config = store.read_about(options.model), store.read_drawable(options.model)
    notes: list[str] = []
    readers, unread = choose_readers(about, config, options.model, reader_file)
    spoken = [load_speech(path) for path in options.speech]
    real = tuple(cut(speech, sizes.frames, notes) for speech in spoken if unread is None)
    unseen = tuple(cut(load_speech(path), sizes.frames, []) for path in sizes.voices)
    if unread is not None:
        unseen = unseen[:1]
        clips = sum(num_clips(speech.num_frames) for speech in unseen)
        notes.append(
            f"{unread}; all scores that need readers are null (left: vae_psnr, and seam_ratio, for which {clips} clips "
            "of one voice are drawn)"
        )
    elif config.defaults.size != PIXELS:
        notes.append(f"pictures of {config.defaults.size} pixels are read at {PIXELS}, the readers' size")
    for speech in real:
        notes += speech.warnings
        opening = mouth_from_sound(speech.waveform, speech.num_frames)[:, 0]
        if opening.max() == opening.min():
            notes.append(f"{speech.source} moves no mouth: lip_r_real does not count it")
    if not options.speech:
        notes.append("lip_r_real is null: no recordings were given with --speech")
    return Setup(options, sizes, about, config, readers, unread, unseen, real, tuple(notes))


def choose_readers(
    about: dict[str, Any], config: ModelConfig, model: Path, path: Path
) -> tuple[Readers | None, str | None]:
    """The readers that judge a bundle: those trained with it, which lie beside it, else those at `path`; or None and
    why nothing can be read."""
    if "training" not in about:
        return None, (
            f"the bundle (preset {config.preset}, {config.defaults.size} pixels) was not trained by `tbd train`, and "
            "the readers know only its drawn faces"
        )
    beside = model.with_name(READER_FILE.name)
    try:
        return load_readers(beside if beside.exists() else path), None
    except InputError as error:
        return None, f"no readers: {error}"


def cut(speech: Speech, most: int, notes: list[str]) -> Speech:
    if speech.num_frames <= most:
        return speech
    notes.append(f"{speech.source} lasts {speech.seconds:.1f} s; its first {most / FPS:g} s are judged")
    return replace(speech, waveform=speech.waveform[: most * SAMPLES_PER_FRAME], num_frames=most)


def evaluate(setup: Setup, bar: Bar | None = None, extra: int = 0) -> Evaluation:
    """Draw and judge. `extra` clips are drawn by the caller afterwards with the same studio, and counted by `bar`."""
    began, done = time.monotonic(), 0

    def on_clip() -> None:
        nonlocal done
        done += 1
        if bar:
            bar(done, setup.clips + extra)

    options, readers = setup.options, setup.readers
    studio = Studio.open(options.model, options.device, options.dtype, on_clip)
    cast = people(setup.sizes, options.seed)
    resting = [make_case("rest", person) for person in range(setup.sizes.people)]
    portraits = true_pictures(cast, resting, studio.pixels)
    sitters = [studio.seat(portrait) for portrait in portraits]

    # The autoencoder alone, on renders it never saw.
    cases = setup.silent
    known = cases or resting
    truth = true_pictures(cast, known, studio.pixels)
    round_trip = torch.stack([studio.round_trip(picture) for picture in truth])
    made = judge.Scores(dict.fromkeys(SCORES), dict.fromkeys(SCORES, 0))
    decibels = [scores.psnr(a, b) for a, b in zip(truth, unit_range(round_trip), strict=True)]
    made.add("vae_psnr", scores.mean(decibels), len(decibels))

    # Faces in silence.
    ceiling, read, drawn = judge.Scores(), None, torch.zeros(0, *round_trip.shape[1:], dtype=torch.uint8)
    if readers and cases:
        seen = [studio.still(sitters[case.person], case, options.seed + case.person) for case in cases]
        drawn = torch.stack([pictures[MIDDLE] for pictures in seen])
        who = [case.person for case in cases]
        read = read_stills(readers, seen, portraits[who])
        made.update(judge.expressions(cases, read))
        ceiling = judge.expressions(cases, readers.read(unit_range(round_trip), portraits[who]))
        pictures = (truth, unit_range(drawn), unit_range(round_trip))
        made.update(judge.identity_scores(readers, cast.identity[who], *pictures))
        errors = readers.about["errors"]
        made.add("au_reader_error", errors["au_rms_mean"], errors["pictures"])

    # Recordings.
    spoken, seam = speak_all(setup, studio, sitters, portraits, setup.unseen)
    real, _ = speak_all(setup, studio, sitters, portraits, setup.real)
    made.update(judge.lip_scores(spoken, real))
    made.update(judge.seam_scores(spoken))

    wall = round(time.monotonic() - began, 1)
    made_of = Evaluation(
        setup, studio, made, ceiling, cases, cast, portraits, sitters, to_bytes(truth), drawn, read,
        [*spoken, *real], seam, wall,
    )  # fmt: skip
    return replace(made_of, result=flat(made_of))


def speak_all(
    setup: Setup, studio: Studio, sitters: list[Sitter], portraits: Tensor, speeches: Iterable[Speech]
) -> tuple[list[judge.Spoken], Tensor | None]:
    """Each recording spoken by the next person with the next of three emotions; and the first recording's seam."""
    spoken, seam = [], None
    for row, speech in enumerate(speeches):
        person = row % len(sitters)
        case = make_case("speech", person, SPOKEN_WITH[row % len(SPOKEN_WITH)])
        seed = setup.options.seed + person
        clips = list(studio.talk(sitters[person], case, speech.waveform, speech.num_frames, seed))
        pictures = torch.cat(clips)
        read = None
        if setup.readers:
            read = setup.readers.read(unit_range(pictures), portraits[person : person + 1]).mouth[:, 0].tolist()
        steps = [
            float((b.float() - a.float()).abs().mean()) / 255 for a, b in zip(pictures, pictures[1:], strict=False)
        ]
        seams = list(range(CLIP_FRAMES - 1, len(steps), CLIP_FRAMES))
        asked = mouth_from_sound(speech.waveform, speech.num_frames)[:, 0].tolist()
        spoken.append(judge.Spoken(speech.source, asked, read, steps, seams))
        if seam is None and len(clips) > 1:
            seam = pictures[CLIP_FRAMES - 4 : CLIP_FRAMES + 4]
    return spoken, seam


def read_stills(readers: Readers, seen: Sequence[Tensor], portraits: Tensor) -> Readings:
    """`seen`: for each case the frames `SEEN`; `portraits` [n, 3, H, W]. The median reading of each case's frames."""
    read = readers.read(unit_range(torch.cat(list(seen))), portraits.repeat_interleave(len(SEEN), 0))
    return judge.median(read, len(SEEN))


def unit_range(pictures: Tensor) -> Tensor:
    """uint8 → [0, 1]"""
    return pictures.float() / 255


def flat(made: Evaluation) -> dict[str, Any]:
    """What `tbd evaluate --json` prints: flat numbers, null where nothing can be said; `cases` counts for each."""
    setup = made.setup
    return {
        "model": setup.about.get("name", setup.options.model.stem),
        "people": setup.sizes.people,
        "seed": setup.options.seed,
        **{name: made.scores.values[name] for name in SCORES},
        "cases": {name: made.scores.cases[name] for name in SCORES},
        "notes": list(setup.notes),
        "wall_seconds": made.wall_seconds,
    }


__all__ = [
    "SCORES", "EvaluateOptions", "Evaluation", "Setup", "evaluate", "flat", "prepare", "read_stills", "to_bytes",
    "unit_range",
]  # fmt: skip
