"""The same as TBD Sampler, straight into a video file, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path

import torch
from comfy_api.latest import InputImpl, io, ui

from ..tbd_core import __version__, host
from ..tbd_core.checkpoint import store
from ..tbd_core.errors import InputError
from ..tbd_core.guide import DrawOptions
from ..tbd_core.render import describe, digest, is_finished, model_key, render
from ..tbd_core.units import MOTION_FRAMES
from ..tbd_core.video import check_output
from . import comfy_bridge
from .compat import Vae, extra
from .drawing import conditions, describe_run, settings


class TBDRenderVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TBDRenderVideo",
            display_name="TBD Render Video",
            category="Think-Before-Draw",
            description="Draws the whole speech into an MP4 in the output folder. A run that was stopped goes on at "
            "its first missing clip when the same inputs are queued again; memory grows little with the length.",
            inputs=[
                *conditions(),
                Vae.Input("vae", tooltip="From Load TBD Model."),
                *settings(),
                io.String.Input(
                    "filename_prefix",
                    default="video/tbd",
                    dynamic_prompts=False,
                    tooltip="Begin of the file's name, below the output folder; eight digits that stand for the inputs "
                    "follow it.",
                ),
                io.Audio.Input(
                    "sound",
                    optional=True,
                    tooltip="The recording for the sound track, at its own rate. Without it: what the model heard, "
                    "16 kHz in one channel.",
                ),
            ],
            outputs=[
                io.Video.Output("video", tooltip="The finished file; Save Video would store it a second time."),
                io.String.Output("info", tooltip="What was drawn and how, and where it lies."),
            ],
            is_output_node=True,
            **extra(search_aliases=["talking head", "save video", "long video"]),
        )

    @classmethod
    def execute(
        cls, model, reference, audio, positive, negative, vae, seed, steps, guidance, sampler, scheduler, text_scale,
        audio_scale, filename_prefix, sound=None,
    ) -> io.NodeOutput:  # fmt: skip
        options = DrawOptions(seed, steps, guidance, sampler, scheduler, text_scale, audio_scale)
        notes = host.check_vae(vae, comfy_bridge.tbd_parts(model))
        host.warn(notes)
        path = render_video(model, reference, audio, positive, negative, vae, options, filename_prefix, sound)
        shown = ui.SavedResult(path.name, _subfolder(path), io.FolderType.output)
        info = f"{describe_run(model, reference, audio, options, notes)}\n{path}"
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), info, ui=ui.PreviewVideo([shown]))


def _output_folder() -> Path:
    """Absolute, links not followed: a folder below it may be a link to another disk."""
    return Path(os.path.abspath(comfy_bridge.output_folder()))


def _subfolder(path: Path) -> str:
    """Where a result lies below the output folder, as the browser asks for it."""
    below = path.parent.relative_to(_output_folder()).as_posix()
    return "" if below == "." else below


def output_path(prefix: str, key: dict) -> Path:
    """`prefix`_`digits of the key`.mp4 below the output folder. InputError when it leads out of it, or when no file can
    be written there."""
    folder = _output_folder()
    path = Path(os.path.abspath(folder / f"{prefix}_{digest(key)[:8]}.mp4"))
    if not path.is_relative_to(folder):
        raise InputError(f"filename_prefix {prefix!r} leads to {path.parent}, out of {folder}; give a name below it")
    return check_output(path)


def metadata(model, reference, options: DrawOptions) -> dict:
    """What the video says of itself, as `tbd generate`'s does; `options` are settled."""
    bundle = comfy_bridge.tbd_parts(model).bundle
    return {
        "generator": f"think-before-draw {__version__}",
        "model": store.read_about(bundle).get("name", bundle.stem),
        "seed": options.seed,
        "steps": options.steps,
        "guidance": options.guidance,
        "text_scale": options.text_scale,
        "audio_scale": options.audio_scale,
        "sampler": options.sampler,
        "scheduler": options.scheduler,
        "size": list(reference.size),
    }


def render_video(
    model, reference, audio, positive, negative, vae, options: DrawOptions, prefix: str, sound: dict | None
) -> Path:
    """The finished file; one that already stands for the same inputs is not drawn again. Raises InputError."""
    settled = options.settled(comfy_bridge.tbd_parts(model).config.defaults)
    key = {
        "version": __version__,
        "portrait": reference.digest,
        "speech": audio.digest,
        "frames": audio.speech.num_frames,
        "conditioning": [describe(positive), describe(negative)],
        "options": asdict(settled),
        "sigmas": comfy_bridge.run_sigmas(model, settled),
        "model": model_key(model, vae),
        "sound": None if sound is None else describe([sound["waveform"], sound["sample_rate"]]),
    }
    path = output_path(prefix, key)
    if is_finished(path, key):
        return path

    def draw(start: int, tail) -> Generator:
        before = None if tail is None else torch.from_numpy(tail)
        scale = model.get_model_object("latent_format").scale_factor
        clips = comfy_bridge.draw_clips(model, reference, audio, positive, negative, settled, start, before)
        for clip, latents in enumerate(clips, start + 1):
            # ComfyUI's VAE tries again in tiles by itself; what comes here is that even those did not fit.
            with host.told_what_to_do(comfy_bridge.OUT_OF_MEMORY, f"decoding clip {clip}", reference.size):
                pictures = host.to_bytes(vae.decode(latents))
            yield pictures, (latents[-MOTION_FRAMES:].float().cpu() * scale).numpy()

    track = audio.speech.waveform
    if sound is not None:
        samples, rate = host.sound(sound)
        track = samples[:2], rate
    said = metadata(model, reference, settled)
    render(path, key, audio.speech.num_frames, reference.size, draw, track, said)
    return path
