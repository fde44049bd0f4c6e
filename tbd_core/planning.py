"""What is asked → a Plan: all that can be wrong is checked (`check`) and the thinking done (`think_over`), before a
network is loaded. A model that thinks is slow, and comes last: whoever can still refuse does so between the two."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoint import store
from .checkpoint.audio_encoder import EncoderFile, check_encoder
from .config import GenerateOptions, ModelConfig
from .cot_fa.review import over_budget, require_words, review_prompts
from .cot_fa.think import think
from .cot_fa.thinkers import asked_for, check_thinker, thought_of
from .crops import Seen, see
from .devices import DTYPES, check_device, pick_device
from .embedding import read_embedding
from .errors import InputError
from .face_guide import Boxes, notes_on, place_face
from .faces import request
from .flow import Portrait, Schedule, Speech, Thought
from .host import image_to_pil, to_image
from .loudness import check_gate, treat
from .offload import check_offload, gains_nothing
from .portrait import check_portrait, check_size, load_portrait, read_portrait
from .progressive import make_schedule
from .speech import load_speech
from .units import num_clips
from .video import check_output


if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclass(frozen=True)
class Plan:
    """What is settled before a network is loaded."""

    options: GenerateOptions
    config: ModelConfig
    about: dict[str, Any]  # of the bundle's header
    thought: Thought
    stages: tuple[str, ...]  # K prompts
    negative: str
    schedule: Schedule
    guidance: float
    portrait: Portrait
    speech: Speech
    said: tuple[str, ...]  # warnings about thought and prompts
    notes: tuple[str, ...]  # all other warnings
    seen: Seen | None = None  # where the portrait was cut; None: nothing was asked of the face
    boxes: Boxes | None = None  # of face and lips, for Hallo's weights
    embedding: torch.Tensor | None = None  # [512], whose face it is, for Hallo's weights
    encoder: EncoderFile | None = None  # what hears in place of the bundle's audio encoder; None: that one

    @property
    def model_name(self) -> str:
        return self.about.get("name", Path(self.options.model).stem)

    @property
    def num_clips(self) -> int:
        return num_clips(self.speech.num_frames)

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.said, *self.notes)

    def prompts(self) -> dict[str, Any]:
        """The words that guided, for the record."""
        two = {"coarse": self.stages[0], "fine": self.stages[1]} if not self.options.prompts else {}
        return {**two, "stages": list(self.stages), "negative": self.negative}


def plan(options: GenerateOptions) -> Plan:
    """Check everything and think. Raises InputError; a thinker is the only network that is loaded."""
    return think_over(check(options))


def check(options: GenerateOptions) -> Plan:
    """Check everything; the rules' words stand in for a thinker's, of the same number. Raises InputError; loads no
    network and imports torch only for the two inputs."""
    check_options(options)
    about = store.read_about(options.model)
    config = store.read_config(options.model)
    defaults = config.defaults
    encoder = check_encoder(options.audio_encoder) if options.audio_encoder is not None else None
    if encoder:
        encoder.check_fits(config.audio_projection)
    check_output(options.output)
    for what, source in (("portrait", options.portrait), ("speech", options.speech)):
        if Path(source).exists() and Path(options.output).exists() and os.path.samefile(source, options.output):
            raise InputError(f"output {options.output} is also the {what}; give another output")
    check_portrait(options.portrait)

    thought = think(options.emotion, options.intensity, options.subject, portrait=Path(options.portrait).name)
    stages, negative, said = settle_prompts(options, thought)
    steps = defaults.steps if options.steps is None else options.steps
    split = options.split or (defaults.split if len(stages) == len(defaults.split) + 1 else None)
    schedule = make_schedule(steps, len(stages), split, options.blend or defaults.blend)
    speech = treat(load_speech(options.speech), options.level_speech, options.silence_gate)
    portrait, seen = see_portrait(options, defaults.size)
    boxes, embedding, face_notes = see_face(options, config, portrait, seen)
    idle = gains_nothing(options.offload, pick_device(options.device))
    guidance = defaults.guidance if options.guidance is None else options.guidance
    return Plan(
        options=options,
        config=config,
        about=about,
        thought=thought,
        stages=stages,
        negative=negative,
        schedule=schedule,
        guidance=guidance,
        portrait=portrait,
        speech=speech,
        said=said,
        notes=(
            *portrait.warnings,
            *speech.warnings,
            *face_notes,
            *filter(None, [idle]),
            *unheard(options, guidance),
        ),  # fmt: skip
        seen=seen,
        boxes=boxes,
        embedding=embedding,
        encoder=encoder,
    )


def unheard(options: GenerateOptions, guidance: float) -> tuple[str, ...]:
    """A warning when the user's own negative prompt is in no pass."""
    if not options.negative or guidance != 1 or options.text_scale not in (None, 1):
        return ()
    return ("guidance is 1, at which a negative prompt is not heard; give --guidance 1.5 or --text-scale 2",)


def think_over(checked: Plan) -> Plan:
    """The same plan with the words of the thinker that was asked for. Raises InputError."""
    options = checked.options
    if options.thinker == "rules":
        return checked
    thought = think_as_asked(options, checked.seen)
    stages, negative, said = settle_prompts(options, thought)
    return replace(checked, thought=thought, stages=stages, negative=negative, said=said)


def see_portrait(options: GenerateOptions, square: int) -> tuple[Portrait, Seen | None]:
    """The portrait as it is drawn, of the size asked for or `square` pixels each way; where it was cut, when something
    was asked of the face."""
    asked = request(options.face, options.face_margin, options.face_detector, options.face_model)
    if asked.which == "whole" and not options.paste_back:
        return load_portrait(options.portrait, options.size, square), None
    picture, notes = read_portrait(options.portrait)
    target = options.size or (square, square)
    portrait, seen = see(picture, asked, target, options.paste_back, Path(options.portrait).name)
    return replace(portrait, warnings=(*notes, *portrait.warnings)), seen


def see_face(
    options: GenerateOptions, config: ModelConfig, portrait: Portrait, seen: Seen | None
) -> tuple[Boxes | None, torch.Tensor | None, tuple[str, ...]]:
    """(where the face and its lips are, whose face it is, warnings), for a bundle that wants to know."""
    if not config.unet.wants_face:
        if options.face_embedding is not None:
            raise InputError(
                f"--face-embedding is {options.face_embedding}, but {options.model} has no face tokens; leave it out"
            )
        if options.text_strength is not None:
            raise InputError(
                f"--text-strength is {options.text_strength:g}, but {options.model} hears words alone; use --text-scale"
            )
        return None, None, ()
    embedding = None
    if options.face_embedding is not None:
        picture, _ = read_portrait(options.portrait)
        embedding = read_embedding(options.face_embedding, picture, seen.choice.face if seen else None)
    asked = (
        request("auto", detector=options.face_detector, model=options.face_model) if options.face != "whole" else None
    )
    boxes, notes = place_face(image_to_pil(to_image(portrait.pixels)), seen, asked, Path(options.portrait).name)
    return boxes, embedding, (*notes, *notes_on(config.unet, embedding, options.text_scale))


def think_as_asked(options: GenerateOptions, seen: Seen | None) -> Thought:
    """By a model that looks at the face that was chosen, else at the whole picture, in its own resolution."""

    def look() -> Image.Image:
        picture, _ = read_portrait(options.portrait)
        if seen is None:
            return picture
        left, top, width, height = map(round, seen.crop.box)
        return picture.crop((left, top, left + width, top + height))

    about = (options.emotion, options.intensity, options.subject)
    return thought_of(asked_for(options), *about, portrait=Path(options.portrait).name, picture=look)


def check_options(options: GenerateOptions) -> None:
    """The numbers and names that belong to no file."""
    for name, value in (
        ("guidance", options.guidance), ("text-scale", options.text_scale), ("audio-scale", options.audio_scale),
    ):  # fmt: skip
        if value is not None and not 0 <= value <= 30:  # NaN is not between either
            raise InputError(f"--{name} is {value}; give a number from 0 to 30")
    if options.text_strength is not None and not 0 <= options.text_strength <= 1:
        raise InputError(f"--text-strength is {options.text_strength}; give a number from 0 to 1")
    if not 0 <= options.seed < 2**63:
        raise InputError(f"--seed is {options.seed}; give a whole number from 0 to {2**63 - 1}")
    check_device(options.device)
    if options.dtype not in ("auto", *DTYPES):
        raise InputError(f"unknown dtype {options.dtype!r}; choose one of auto, {', '.join(DTYPES)}")
    check_offload(options.offload)
    if options.size is not None:
        check_size(options.size)
    request(options.face, options.face_margin, options.face_detector, options.face_model)
    check_thinker(asked_for(options))
    check_gate(options.silence_gate)


def settle_prompts(options: GenerateOptions, thought: Thought) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """(K prompts, negative, warnings): the thinker's, or the user's own words in their place."""
    for name, text in (("coarse", options.coarse), ("fine", options.fine)):
        if text is not None:
            require_words(name, text)
    if options.prompts:
        if options.coarse is not None or options.fine is not None:
            raise InputError(
                f"{len(options.prompts)} --prompt and also --coarse or --fine were given; use one or the other"
            )
        warnings = [*thought.warnings]
        for i, text in enumerate(options.prompts, start=1):
            require_words(f"stage {i}", text)
            warnings += over_budget(f"stage {i}", text)
        negative = thought.prompts.negative if options.negative is None else options.negative
        return options.prompts, negative, (*warnings, *over_budget("negative", negative))

    own = {k: v for k in ("coarse", "fine", "negative") if (v := getattr(options, k)) is not None}
    prompts = replace(thought.prompts, **own)
    said = review_prompts(prompts, thought.action_units) if own else ()
    return (prompts.coarse, prompts.fine), prompts.negative, tuple(dict.fromkeys((*thought.warnings, *said)))


__all__ = ["Plan", "check", "check_options", "plan", "think_over"]
