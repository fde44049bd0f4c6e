"""A face out of a picture, and the drawn frames back into it."""

from __future__ import annotations

from comfy_api.latest import io

from ..tbd_core.crops import FEATHER
from ..tbd_core.cutouts import FACES, MOST_FEATHER, ask, cut_out, paste_back
from ..tbd_core.detectors import DETECTORS
from ..tbd_core.faces import DEFAULT_MARGIN, MOST_MARGIN
from ..tbd_core.files import local_path
from ..tbd_core.host import warn
from . import comfy_bridge
from .compat import extra
from .sockets import CROP


class TBDFindFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        sides = {"default": 0, "min": 0, "max": 2048, "step": 8}
        return io.Schema(
            node_id="TBDFindFace",
            display_name="Find Face",
            category="Think-Before-Draw",
            description="Cuts the face out of a picture, with a margin, and says what it found. Paste Face Back puts "
            "the drawn frames where it was.",
            inputs=[
                io.Image.Input("image", tooltip="One picture with a face in it."),
                io.Combo.Input(
                    "face",
                    options=list(FACES),
                    default="largest",
                    tooltip="Which one. largest: of those found. number: counted from the left. box: where you say, "
                    "nothing is searched. whole: all of the picture.",
                ),
                io.Int.Input(
                    "number",
                    default=1,
                    min=1,
                    max=99,
                    tooltip="With face number: 1 is the first from the left. The text found lists them all.",
                ),
                io.String.Input(
                    "box",
                    default="",
                    placeholder="x,y,width,height",
                    dynamic_prompts=False,
                    tooltip="With face box: where the face is, from forehead to chin, in pixels of the image.",
                ),
                io.Float.Input(
                    "margin",
                    default=DEFAULT_MARGIN,
                    min=0.0,
                    max=MOST_MARGIN,
                    step=0.05,
                    tooltip="How much around the face is taken, on each side, in widths and heights of the face. More "
                    "shows more of hair and shoulders, and a smaller face.",
                ),
                io.Int.Input(
                    "width",
                    **sides,
                    tooltip="Width of what is cut out, in pixels, a multiple of 8. 0, in both: a square as large as in "
                    "the picture, which ReferenceNet Encode makes as large as the model draws.",
                ),
                io.Int.Input("height", **sides, tooltip="Height in pixels, a multiple of 8; 0: as width."),
                io.Combo.Input(
                    "detector",
                    options=list(DETECTORS),
                    default=DETECTORS[0],
                    tooltip="Who looks. lbp wants the package scikit-image and no file. mediapipe and insightface want "
                    "their package and model_file; insightface's models are for non-commercial research only.",
                ),
                io.String.Input(
                    "model_file",
                    default="",
                    dynamic_prompts=False,
                    placeholder="blaze_face_short_range.tflite",
                    tooltip="The model of mediapipe (.tflite, .task) or insightface (.onnx): a path, absolute or below "
                    "ComfyUI's models folder. Without effect for lbp.",
                ),
            ],
            outputs=[
                io.Image.Output("cropped", tooltip="The face with its margin, for ReferenceNet Encode's image."),
                io.Mask.Output("face", tooltip="White on the face in cropped, for ReferenceNet Encode's face."),
                io.String.Output("box", tooltip="The same as x,y,width,height in pixels of cropped. Blank for whole."),
                CROP.Output("crop", tooltip="Where it was, for Paste Face Back."),
                io.String.Output("found", tooltip="What was found and taken, in words."),
            ],
            **extra(search_aliases=["face detection", "crop face", "face crop"]),
        )

    @classmethod
    def execute(cls, image, face, number, box, margin, width, height, detector, model_file) -> io.NodeOutput:
        model = local_path(model_file.strip(), comfy_bridge.models_folder()) if model_file.strip() else None
        found = cut_out(image, ask(face, number, box, margin, detector, model), width, height)
        warn(found.warnings)
        return io.NodeOutput(found.image, found.mask, found.box, found.cutout, found.said)


class TBDPasteBack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TBDPasteBack",
            display_name="Paste Face Back",
            category="Think-Before-Draw",
            description="Puts drawn frames into the picture that the face was cut out of, faded in at their edges.",
            inputs=[
                io.Image.Input(
                    "frames", tooltip="What was drawn of the crop, of its shape and of any size; from VAE Decode."
                ),
                CROP.Input("crop", tooltip="From Find Face."),
                io.Float.Input(
                    "feather",
                    default=FEATHER,
                    min=0.0,
                    max=MOST_FEATHER,
                    step=0.01,
                    tooltip="Over which width the frames fade into the picture, as a share of the crop's shorter side. "
                    "0 is a hard edge. At the picture's own border nothing fades.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "frames",
                    tooltip="As many frames, of the picture's own size; a last odd column or row is left out, since "
                    "videos want even sides.",
                )
            ],
            **extra(search_aliases=["uncrop", "paste face", "stitch"]),
        )

    @classmethod
    def execute(cls, frames, crop, feather) -> io.NodeOutput:
        pasted, warnings = paste_back(frames, crop, feather, comfy_bridge.free_bytes(), comfy_bridge.counter())
        warn(warnings)
        return io.NodeOutput(pasted)
