"""Portrait + speech + emotion → video: the whole job, one stage a line.

Everything a user can get wrong is checked before a network is loaded. Finished clips are kept beside the output until
the video is whole, so that a killed run goes on where it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, estimate
from .checkpoint import store
from .checkpoint.audio_encoder import EncoderFile, check_encoder, read_encoder
from .config import GenerateOptions, GenerateResult, ModelConfig
from .cot_fa.review import over_budget, require_words, review_prompts
from .cot_fa.think import think
from .cot_fa.thinkers import asked_for, check_thinker, thought_of
from .crops import Seen, see
from .devices import DTYPES, check_device, pick_device, pick_dtype
from .embedding import read_embedding
from .errors import InputError
from .face_guide import TEXT_STRENGTH, Boxes, guide_by, notes_on, place_face
from .faces import request
from .flow import OnStep, Portrait, Schedule, Speech, Thought
from .host import image_to_pil, to_image
from .loudness import check_gate, treat
from .memory import peak_mb, ran_out
from .offload import arrange, check_offload, gains_nothing
from .parts import PartStore, fingerprint
from .portrait import check_portrait, check_size, load_portrait, read_portrait
from .progressive import make_schedule
from .render import write_video
from .speech import load_speech, normalise, window_frames
from .units import CLIP_FRAMES, FPS, MOTION_FRAMES, num_clips
from .video import check_output


if TYPE_CHECKING:
    import torch
    from numpy import ndarray
    from PIL import Image

    from .denoise import Job


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
    warnings: tuple[str, ...]
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

    def prompts(self) -> dict[str, Any]:
        """The words that guided, for the record."""
        two = {"coarse": self.stages[0], "fine": self.stages[1]} if not self.options.prompts else {}
        return {**two, "stages": list(self.stages), "negative": self.negative}


def plan(options: GenerateOptions) -> Plan:
    """Check everything and think. Raises InputError; loads no network and imports torch only for the two inputs."""
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

    # The rules' words stand in until all is checked: a model that thinks is slow, and comes last.
    thought = think(options.emotion, options.intensity, options.subject, portrait=Path(options.portrait).name)
    stages, negative, said = settle_prompts(options, thought)
    steps = defaults.steps if options.steps is None else options.steps
    split = options.split or (defaults.split if len(stages) == len(defaults.split) + 1 else None)
    schedule = make_schedule(steps, len(stages), split, options.blend or defaults.blend)
    speech = treat(load_speech(options.speech), options.level_speech, options.silence_gate)
    portrait, seen = see_portrait(options, defaults.size)
    boxes, embedding, face_notes = see_face(options, config, portrait, seen)
    idle = gains_nothing(options.offload, pick_device(options.device))
    if options.thinker != "rules":
        thought = think_as_asked(options, seen)
        stages, negative, said = settle_prompts(options, thought)
    return Plan(
        options=options,
        config=config,
        about=about,
        thought=thought,
        stages=stages,
        negative=negative,
        schedule=schedule,
        guidance=defaults.guidance if options.guidance is None else options.guidance,
        portrait=portrait,
        speech=speech,
        warnings=(*said, *portrait.warnings, *speech.warnings, *face_notes, *filter(None, [idle])),
        seen=seen,
        boxes=boxes,
        embedding=embedding,
        encoder=encoder,
    )


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


def generate(
    options: GenerateOptions,
    on_step: OnStep | None = None,
    on_estimate: Callable[[estimate.Estimate], None] = lambda _: None,
) -> GenerateResult:
    """The whole job. Raises InputError for anything the user can mend; whatever `on_step` raises passes through, and
    what was finished by then is kept for the next run of the same command. `on_estimate` is told the memory it will
    need, before a network is loaded."""
    began = time.monotonic()
    job_plan = plan(options)
    height, width = job_plan.portrait.pixels.shape[2:]
    needed = estimate.Drawing.of(options, job_plan.config, (width, height), len(job_plan.stages) + 1)
    on_estimate(estimate.estimated(needed))
    seen = job_plan.seen
    paste = seen.paste if seen else None
    if paste:
        width, height = paste.size
    with PartStore(options.output, part_key(job_plan)) as parts:
        # All clips stand in the part store before the video is begun: a kill leaves them, and nothing half-written.
        warnings = list(job_plan.warnings)
        finished = 0
        try:
            for _ in draw(job_plan, parts, on_step, warnings.append):
                finished += 1
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            raise estimate.out_of_memory(needed, finished, job_plan.num_clips, error) from error
        said = metadata(job_plan)
        finish = paste.frames if paste else None
        write_video(parts, job_plan.speech.num_frames, (width, height), options.speech, said, finish)
    return GenerateResult(
        output=str(options.output),
        frames=job_plan.speech.num_frames,
        fps=FPS,
        seconds=job_plan.speech.num_frames / FPS,
        width=width,
        height=height,
        seed=options.seed,
        model=job_plan.model_name,
        wall_seconds=round(time.monotonic() - began, 2),
        peak_mb=peak_mb(),
        prompts=job_plan.prompts(),
        warnings=tuple(warnings),
        face=seen.record() if seen else None,
    )


def draw(
    job_plan: Plan, parts: PartStore, on_step: OnStep | None, warn: Callable[[str], None] = lambda _: None
) -> Iterator[ndarray]:
    """The clips' frames, uint8 [F, H, W, 3], each kept in `parts` before it is given out; those that are there already
    are not drawn again. Networks are loaded when the first missing clip is met; `warn` is then told what they make of
    the portrait."""
    import numpy as np
    import torch

    job, heard, before = None, None, None
    for index in range(job_plan.num_clips):
        part = parts.load(index)
        if part is None:
            from . import denoise, frames
            from .likeness import unlike_training

            if job is None:
                job, heard = prepare(job_plan)
                portrait, model = job_plan.options.portrait, Path(job_plan.options.model)
                pixels = job_plan.portrait.pixels
                if said := unlike_training(job_plan.about, model, job.networks.vae, job.portrait, pixels):
                    warn(f"{portrait} {said}")
                job.free()
            if before is None:
                before = denoise.first_motion(job.portrait)
            assert heard is not None
            windows = window_frames(heard, range(index * CLIP_FRAMES, (index + 1) * CLIP_FRAMES))
            latents = denoise.draw_clip(job, windows, before, index, job_plan.num_clips, on_step)
            part = frames.decode(job.networks.vae, latents), latents[-MOTION_FRAMES:].numpy()
            job.free()
            parts.save(index, *part)
        before = torch.from_numpy(np.array(part[1]))
        yield part[0]


def prepare(job_plan: Plan) -> tuple[Job, torch.Tensor]:
    """Load the networks and encode what stays the same: (job, audio features [F, L, C] of whole clips)."""
    import torch

    from . import conditioning, denoise

    options = job_plan.options
    device = pick_device(options.device)
    waits, dtype = device if options.offload == "none" else "cpu", pick_dtype(options.dtype, device)
    networks, config = store.load(options.model, waits, dtype)
    chunk = config.audio_chunk
    if job_plan.encoder:
        networks, chunk = replace(networks, audio_encoder=read_encoder(job_plan.encoder.path, dtype, waits)), None
    free = arrange(networks, device, options.offload)
    with torch.inference_mode():
        empty, face = conditioning.text_states(networks, ""), None
        stages = tuple(conditioning.text_states(networks, text) for text in job_plan.stages)
        negative = conditioning.text_states(networks, job_plan.negative)
        free()
        if job_plan.boxes:
            height, width = job_plan.portrait.pixels.shape[2:]
            strength = TEXT_STRENGTH if options.text_strength is None else options.text_strength
            face = guide_by(
                config.unet, job_plan.boxes, job_plan.embedding, (width, height), networks.imageproj,
                networks.face_locator, strength,
            ).on(empty)  # fmt: skip
            empty = empty if face.tokens is None else face.tokens
            free()
        portrait = conditioning.portrait_latents(networks, job_plan.portrait.pixels)
        free()
        # The tail clip is padded with silence, then trimmed.
        heard = conditioning.speech_features(
            networks.audio_encoder, normalise(job_plan.speech.waveform), job_plan.num_clips * CLIP_FRAMES, chunk=chunk
        )
        free()
        job = denoise.Job(
            networks=networks,
            config=config,
            schedule=job_plan.schedule,
            guidance=denoise.Guidance(job_plan.guidance, options.text_scale, options.audio_scale),
            stages=stages,
            negative=negative,
            empty=empty,
            portrait=portrait,
            reference=denoise.see(networks.reference_unet, portrait, empty),
            seed=options.seed,
            face=face,
            free=free,
        )
        free()
    return job, heard


def part_key(job_plan: Plan) -> dict[str, Any]:
    """Everything that determines the drawn clips: which face was cut, and how, is in the portrait's own pixels, and
    pasting back comes after the clips. Where weights wait changes nothing: a run goes on with another --offload."""
    options = job_plan.options
    device = pick_device(options.device)
    return {
        "version": __version__,
        "portrait": fingerprint(job_plan.portrait.pixels),
        "speech": fingerprint(job_plan.speech.waveform),
        "frames": job_plan.speech.num_frames,
        "stages": job_plan.stages,
        "negative": job_plan.negative,
        "schedule": asdict(job_plan.schedule),
        "guidance": [job_plan.guidance, options.text_scale, options.audio_scale],
        "face": job_plan.boxes
        and {
            **asdict(job_plan.boxes),
            "embedding": None if job_plan.embedding is None else fingerprint(job_plan.embedding),
            "text_strength": options.text_strength,
        },
        "seed": options.seed,
        "device": str(device),
        "dtype": str(pick_dtype(options.dtype, device)),
        "model": store.identity(options.model),
        **({"audio_encoder": job_plan.encoder.identity} if job_plan.encoder else {}),
    }


def metadata(job_plan: Plan) -> dict[str, Any]:
    """What the video says about itself; VideoWriter adds that it is synthetic."""
    return {
        "generator": f"think-before-draw {__version__}",
        "model": job_plan.model_name,
        "seed": job_plan.options.seed,
        "emotion": job_plan.thought.emotion,
        "intensity": job_plan.thought.intensity,
        "prompts": job_plan.prompts(),
        "steps": job_plan.schedule.steps,
        "guidance": job_plan.guidance,
        "blend": job_plan.schedule.blend,
        "split": list(job_plan.schedule.split),
        "size": [job_plan.portrait.pixels.shape[3], job_plan.portrait.pixels.shape[2]],
        **({"audio_encoder": job_plan.encoder.name} if job_plan.encoder else {}),
        **({"thinker": job_plan.options.thinker} if job_plan.options.thinker != "rules" else {}),
        **({"face": job_plan.seen.record()} if job_plan.seen else {}),
    }


__all__ = ["Plan", "draw", "generate", "plan", "prepare"]
