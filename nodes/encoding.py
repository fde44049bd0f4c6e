"""The speech and the portrait as the model hears and sees them; each is kept while only the words change."""

from __future__ import annotations

from comfy_api.latest import io

from ..tbd_core.config import TEXT_STRENGTH
from . import comfy_bridge
from .compat import Vae, extra
from .sockets import AUDIO, AUDIO_ENCODER, REFERENCE


class TBDAudioEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TBDAudioEncode",
            display_name="Wav2Vec Audio Encode",
            category="Think-Before-Draw",
            description="Listens to the speech: wav2vec 2.0 features, 25 a second, one for each frame of the video.",
            inputs=[
                AUDIO_ENCODER.Input("audio_encoder", tooltip="From Load TBD Model or Load Audio Encoder (TBD)."),
                io.Audio.Input(
                    "audio",
                    tooltip="The speech, at least 0.2 s, of any rate; several channels are mixed. Its length is the "
                    "video's, at 25 frames a second.",
                ),
                io.Boolean.Input(
                    "level_loudness",
                    default=False,
                    optional=True,
                    tooltip="Make loud and quiet parts equally loud, by 15 dB at most, before they are heard. The "
                    "sound track stays as it is.",
                ),
                io.Float.Input(
                    "silence_gate",
                    default=0.0,
                    min=0.0,
                    max=60.0,
                    step=1.0,
                    optional=True,
                    tooltip="What lies this many dB below the speech, 10 to 60, is heard as silence, so that hiss "
                    "moves no mouth; try 35. 0: off.",
                ),
            ],
            outputs=[AUDIO.Output("audio", tooltip="For TBD Sampler, Apply Conditions and Render Video.")],
            **extra(search_aliases=["wav2vec", "speech features", "lip sync"]),
        )

    @classmethod
    def execute(cls, audio_encoder, audio, level_loudness=False, silence_gate=0.0) -> io.NodeOutput:
        return io.NodeOutput(comfy_bridge.listen(audio_encoder, audio, level_loudness, silence_gate or None))


class TBDReferenceEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        sides = {"default": 0, "min": 0, "max": 2048, "step": 8}
        return io.Schema(
            node_id="TBDReferenceEncode",
            display_name="ReferenceNet Encode",
            category="Think-Before-Draw",
            description="Looks at the portrait: its latents and ReferenceNet's features, which keep the likeness.",
            inputs=[
                io.Model.Input("model", tooltip="From Load TBD Model; a LoRA on it changes nothing here."),
                Vae.Input("vae", tooltip="From Load TBD Model."),
                io.Image.Input("image", tooltip="One portrait, at least 64 pixels each way."),
                io.Int.Input(
                    "width",
                    **sides,
                    tooltip="Width of the video in pixels, a multiple of 8. 0, in both: the square that the model was "
                    "trained with; others cost more and look worse.",
                ),
                io.Int.Input("height", **sides, tooltip="Height of the video in pixels, a multiple of 8; 0: as width."),
                io.String.Input(
                    "box",
                    default="",
                    placeholder="x,y,width,height",
                    dynamic_prompts=False,
                    tooltip="Where the face is, in pixels of the image: the crop lies around its middle. Blank: around "
                    "the middle of the image, a little above it.",
                ),
                io.Mask.Input(
                    "face", optional=True, tooltip="White on the face, in place of box. An all-black mask says nothing."
                ),
                io.String.Input(
                    "face_embedding",
                    optional=True,
                    default="",
                    placeholder="face.npy",
                    dynamic_prompts=False,
                    tooltip="Only for models converted from Hallo's weights: whose face it is, 512 numbers of ArcFace "
                    "in an .npy or .safetensors file of the input folder. Blank: the likeness comes from the portrait "
                    "alone.",
                ),
                io.Float.Input(
                    "text_strength",
                    optional=True,
                    default=TEXT_STRENGTH,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="Only for hallo-text models: how strongly the prompts are heard beside the face, from 0 "
                    "(not at all) to 1.",
                ),
            ],
            outputs=[
                REFERENCE.Output("reference", tooltip="For TBD Sampler, Apply Conditions and Render Video."),
                io.Image.Output("cropped", tooltip="What the model sees of the portrait."),
            ],
            **extra(search_aliases=["reference net", "portrait", "face crop"]),
        )

    @classmethod
    def execute(
        cls, model, vae, image, width: int, height: int, box: str, face=None, face_embedding: str = "",
        text_strength: float = TEXT_STRENGTH,
    ) -> io.NodeOutput:  # fmt: skip
        size = (width or height, height or width) if width or height else None
        asked = box, face, face_embedding, text_strength
        return io.NodeOutput(*comfy_bridge.see_portrait(model, vae, image, size, *asked))
