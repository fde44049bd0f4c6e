"""The bundle, and something to draw with it at once."""

from __future__ import annotations

from comfy_api.latest import io

from ..tbd_core.devices import DTYPES
from ..tbd_core.errors import InputError
from ..tbd_core.host import sample_inputs
from . import comfy_bridge
from .compat import Vae, extra
from .sockets import AUDIO_ENCODER


BETAS = (comfy_bridge.FROM_BUNDLE, "scaled_linear", "linear", "squaredcos_cap_v2")  # diffusers' words


class TBDModelLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TBDModelLoader",
            display_name="Load TBD Model",
            category="Think-Before-Draw",
            description="Loads all networks of a bundle. MODEL, CLIP and VAE work in ComfyUI's own nodes, too.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=comfy_bridge.bundle_names(),
                    default=comfy_bridge.BUNDLED,
                    tooltip="A bundle: the small one that comes with this pack (drawn faces) or a file in models/tbd.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=["auto", *DTYPES],
                    default="auto",
                    tooltip="Type of the weights. auto: what this machine computes best. fp32 is exact and takes twice "
                    "the memory of fp16 or bf16; fp16 needs a GPU.",
                ),
                io.Combo.Input(
                    "beta_schedule",
                    options=list(BETAS),
                    default=comfy_bridge.FROM_BUNDLE,
                    tooltip="Noise schedule in diffusers' names (scaled_linear is what ComfyUI calls linear). Change "
                    "it only for a model that was trained with another one than its bundle says.",
                ),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="The denoiser, with ReferenceNet attached."),
                io.Clip.Output("CLIP", tooltip="The text encoder; it reads the first 77 tokens."),
                Vae.Output("VAE", tooltip="The autoencoder."),
                AUDIO_ENCODER.Output("audio_encoder", tooltip="wav2vec 2.0, for Wav2Vec Audio Encode."),
            ],
            **extra(search_aliases=["load checkpoint", "talking head model", "think before draw"]),
        )

    @classmethod
    def validate_inputs(cls, model: str | None) -> bool | str:
        """Naming `model` switches ComfyUI's own check of the list off, and with it its unreadable message. A name that
        is linked is not known yet."""
        if model is None:
            return True
        try:
            comfy_bridge.bundle_path(model)
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model: str | None, **_) -> str:
        if model is None:
            return ""
        try:
            file = comfy_bridge.bundle_path(model).stat()
        except (InputError, OSError) as error:  # raised here, it would only be logged, and all run again for ever
            return str(error)
        return f"{file.st_size} {file.st_mtime_ns}"

    @classmethod
    def execute(cls, model: str, dtype: str, beta_schedule: str) -> io.NodeOutput:
        return io.NodeOutput(*comfy_bridge.load_bundle(comfy_bridge.bundle_path(model), dtype, beta_schedule))


class TBDAudioEncoderLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TBDAudioEncoderLoader",
            display_name="Load Audio Encoder (TBD)",
            category="Think-Before-Draw",
            description="A wav2vec 2.0 of your own, base or large, in place of the one in the bundle.",
            inputs=[
                io.Combo.Input(
                    "audio_encoder_name",
                    options=comfy_bridge.audio_encoder_names(),
                    tooltip="A wav2vec 2.0 in models/audio_encoders, with as many layers and as wide as the model's "
                    "own.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=["auto", "fp32"],
                    default="auto",
                    tooltip="Type of the weights. auto: what this machine computes best; fp32 is exact and takes twice "
                    "the memory of fp16.",
                ),
            ],
            outputs=[AUDIO_ENCODER.Output("audio_encoder", tooltip="For Wav2Vec Audio Encode.")],
            **extra(search_aliases=["wav2vec", "audio encoder loader", "speech model"]),
        )

    @classmethod
    def validate_inputs(cls, audio_encoder_name: str | None) -> bool | str:
        """As in Load TBD Model."""
        if audio_encoder_name is None:
            return True
        try:
            comfy_bridge.audio_encoder_path(audio_encoder_name)
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, audio_encoder_name: str | None, **_) -> str:
        if audio_encoder_name is None:
            return ""
        try:
            path = comfy_bridge.audio_encoder_path(audio_encoder_name)
            files = [file.stat() for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
        except (InputError, OSError) as error:
            return str(error)
        return " ".join(f"{file.st_size} {file.st_mtime_ns}" for file in files)

    @classmethod
    def execute(cls, audio_encoder_name: str, dtype: str) -> io.NodeOutput:
        path = comfy_bridge.audio_encoder_path(audio_encoder_name)
        return io.NodeOutput(comfy_bridge.load_audio_encoder(path, dtype))


class TBDSampleInputs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TBDSampleInputs",
            display_name="TBD Sample Inputs",
            category="Think-Before-Draw",
            description="A drawn portrait and three seconds of speech that come with this pack. For your own, put Load "
            "Image and Load Audio in its place.",
            inputs=[],
            outputs=[
                io.Image.Output("portrait", tooltip="A drawn face."),
                io.Audio.Output("speech", tooltip="A synthetic voice."),
            ],
            **extra(search_aliases=["example portrait", "example speech"]),
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*sample_inputs())
