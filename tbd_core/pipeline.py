"""Portrait + speech + emotion → video: the whole job, one stage a line.

Everything a user can get wrong is checked before a network is loaded. Finished clips are kept beside the output until
the video is whole, so that a killed run goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, estimate
from .checkpoint import store
from .checkpoint.audio_encoder import read_encoder
from .config import TEXT_STRENGTH, GenerateOptions, GenerateResult
from .devices import pick_device, pick_dtype
from .face_guide import guide_by
from .flow import OnStep
from .memory import peak_mb, ran_out
from .offload import arrange
from .parts import PartStore, fingerprint
from .planning import Plan, check, plan, think_over
from .render import write_video
from .speech import normalise, window_frames
from .units import CLIP_FRAMES, FPS, MOTION_FRAMES


if TYPE_CHECKING:
    import torch
    from numpy import ndarray

    from .denoise import Job


def generate(
    options: GenerateOptions,
    on_step: OnStep | None = None,
    on_estimate: Callable[[estimate.Estimate], None] = lambda _: None,
) -> GenerateResult:
    """The whole job. Raises InputError for anything the user can mend; whatever `on_step` raises passes through, and
    what was finished by then is kept for the next run of the same command. `on_estimate` is told the memory it will
    need, before a thinker is asked or a network is loaded."""
    began = time.monotonic()
    job_plan = check(options)
    height, width = job_plan.portrait.pixels.shape[2:]
    needed = estimate.Drawing.of(options, job_plan.config, (width, height), len(job_plan.stages) + 1)
    on_estimate(estimate.estimated(needed))
    job_plan = think_over(job_plan)  # it may take minutes: not for a video that cannot be drawn
    if options.thinker_stays:
        estimate.estimated(needed)  # what stays is no longer free
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
