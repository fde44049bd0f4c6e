"""Portrait, speech and words become latents, clip by clip."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..tbd_core import host
from ..tbd_core.guide import TRAILING, DrawOptions
from ..tbd_core.units import FPS
from . import comfy_bridge
from .compat import extra
from .sockets import AUDIO, REFERENCE


def conditions() -> list[io.Input]:
    """What every way of drawing needs."""
    return [
        io.Model.Input("model", tooltip="From Load TBD Model, with LoRAs if you like."),
        REFERENCE.Input("reference", tooltip="From ReferenceNet Encode."),
        AUDIO.Input("audio", tooltip="From Wav2Vec Audio Encode."),
        io.Conditioning.Input(
            "positive", tooltip="From Progressive Text Scheduler, which is fitted to these steps, or any prompt."
        ),
        io.Conditioning.Input("negative", tooltip="What is not wanted; encode an empty prompt for nothing."),
    ]


def settings() -> list[io.Input]:
    """How a run is drawn; the ids are fields of DrawOptions."""
    own = {"default": -1.0, "min": -1.0, "max": 30.0, "step": 0.1}
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            control_after_generate=True,
            tooltip="Another number is another noise. Each clip has its own, the same on every machine.",
        ),
        io.Int.Input(
            "steps", default=0, min=0, max=1000, tooltip="Denoising steps a clip; 0: as many as the model asks for."
        ),
        io.Float.Input(
            "guidance",
            **own,
            tooltip="How hard portrait, sound and words pull (CFG). 1 is without guidance and twice as fast, -1 what "
            "the model asks for.",
        ),
        io.Combo.Input(
            "sampler",
            options=comfy_bridge.sampler_names(),
            default="euler",
            tooltip="How a step is made; euler is what the model was made with (DDIM).",
        ),
        io.Combo.Input(
            "scheduler",
            options=[TRAILING, *comfy_bridge.scheduler_names()],
            default=TRAILING,
            tooltip="Which noise levels the steps are at; trailing is what the model was made with.",
        ),
        io.Float.Input(
            "text_scale",
            **own,
            tooltip="How hard the words pull for themselves, at the price of one more pass a step; -1: as guidance.",
        ),
        io.Float.Input(
            "audio_scale",
            **own,
            tooltip="How hard the sound pulls for itself, at the price of one more pass a step; -1: as guidance.",
        ),
    ]


def describe_run(model, reference, audio, options: DrawOptions, notes: tuple[str, ...] = ()) -> str:
    """What was drawn, for people, with all warnings and `notes`."""
    parts = comfy_bridge.tbd_parts(model)
    options = options.settled(parts.config.defaults)
    own = {"text": options.text_scale, "audio": options.audio_scale}
    unheard = " (the negative prompt is not heard)" if options.guidance == 1 and own["text"] is None else ""
    mixed = host.check_bundles(parts, reference=reference.bundle, audio=audio.bundle)
    host.warn(mixed)
    lines = [
        f"{audio.speech.num_frames} frames of {reference.size[0]} x {reference.size[1]} pixels, "
        f"{audio.speech.num_frames / FPS:.2f} s",
        f"{options.steps} steps of {options.sampler}, {options.scheduler}; seed {options.seed}",
        f"guidance {options.guidance:g}" + "".join(f", {k} {v:g}" for k, v in own.items() if v is not None) + unheard,
        *dict.fromkeys((*mixed, *notes, *reference.warnings, *audio.speech.warnings)),
    ]
    return "\n".join(lines)


class TBDSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TBDSampler",
            display_name="TBD Sampler",
            category="Think-Before-Draw",
            description="Draws the whole speech, 14 frames at a time, each clip going on from the one before.",
            inputs=[*conditions(), *settings()],
            outputs=[
                io.Latent.Output("latent", tooltip="One latent for each frame, 25 a second; for VAE Decode."),
                io.String.Output("info", tooltip="What was drawn and how, with the warnings on portrait and speech."),
            ],
            **extra(search_aliases=["talking head", "ksampler", "animate portrait"]),
        )

    @classmethod
    def execute(
        cls, model, reference, audio, positive, negative, seed, steps, guidance, sampler, scheduler, text_scale,
        audio_scale,
    ) -> io.NodeOutput:  # fmt: skip
        options = DrawOptions(seed, steps, guidance, sampler, scheduler, text_scale, audio_scale)
        clips = list(comfy_bridge.draw_clips(model, reference, audio, positive, negative, options))
        latents = torch.cat(clips)[: audio.speech.num_frames]
        return io.NodeOutput({"samples": latents}, describe_run(model, reference, audio, options))


class TBDApplyConditions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TBDApplyConditions",
            display_name="TBD Apply Conditions",
            category="Think-Before-Draw",
            description="One clip of 14 frames for a plain KSampler: portrait, sound and motion go with the prompts. "
            "KSampler draws another noise than TBD Sampler.",
            inputs=[
                *conditions(),
                io.Int.Input(
                    "clip", default=0, min=0, max=100_000, tooltip="Which 14 frames of the speech, counted from 0."
                ),
                io.Latent.Input(
                    "previous",
                    optional=True,
                    tooltip="What KSampler drew of the clip before; its last two frames are gone on from. Needed from "
                    "clip 1 on.",
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive", tooltip="For KSampler."),
                io.Conditioning.Output("negative", tooltip="For KSampler."),
                io.Latent.Output("latent", tooltip="14 empty frames of the portrait's size, for KSampler."),
            ],
            **extra(search_aliases=["ksampler", "expert"]),
        )

    @classmethod
    def execute(cls, model, reference, audio, positive, negative, clip: int, previous=None) -> io.NodeOutput:
        return io.NodeOutput(
            *comfy_bridge.apply_conditions(model, reference, audio, positive, negative, clip, previous)
        )
