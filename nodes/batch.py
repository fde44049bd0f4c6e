"""Many cases from few lines, one with each run of the queue."""

from __future__ import annotations

from comfy_api.latest import io

from ..tbd_core.batch import read_cases, watch
from ..tbd_core.portrait import read_portrait
from . import comfy_bridge
from .compat import extra


FOLDERS = "One folder or file per line, absolute or under ComfyUI's input folder. Blank: the sample that ships with us"


class TBDBatchCases(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TBDBatchCases",
            display_name="Batch Cases",
            category="Think-Before-Draw",
            description=(
                "Portraits x speeches x emotions x intensities, or the lines of a CSV: one case by its index. Let the "
                "index increment and queue as many runs as there are cases; past the last one the queue stops."
            ),
            inputs=[
                io.String.Input(
                    "portraits",
                    multiline=True,
                    default="",
                    dynamic_prompts=False,
                    tooltip=f"{FOLDERS}. Every portrait is drawn with every speech, emotion and intensity.",
                ),
                io.String.Input(
                    "speeches",
                    multiline=True,
                    default="",
                    dynamic_prompts=False,
                    tooltip=f"{FOLDERS}. The length of each recording is the length of its video.",
                ),
                io.String.Input(
                    "emotions",
                    default="all",
                    dynamic_prompts=False,
                    tooltip="all, or names between commas, such as happy, sad. More emotions, more cases.",
                ),
                io.String.Input(
                    "intensities",
                    default="all",
                    dynamic_prompts=False,
                    tooltip="all, or some of Mild, Moderate, Intense between commas. Neutral has none and counts once.",
                ),
                io.String.Input(
                    "csv",
                    default="",
                    dynamic_prompts=False,
                    tooltip=(
                        "A CSV file, absolute or under ComfyUI's input folder, with the columns portrait, speech, "
                        "emotion, intensity: one case per line, in place of the four fields above. Blank: none."
                    ),
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=2**31 - 1,
                    control_after_generate=True,
                    tooltip="Which case, counted from 0. Set it to increment: each queued run takes the next one.",
                ),
            ],
            outputs=[
                io.Image.Output("portrait", tooltip="The case's portrait, upright, as large as its file."),
                io.Audio.Output("speech", tooltip="The case's recording at its own sample rate."),
                # AnyType: a STRING does not connect to the prompt builder's lists.
                io.AnyType.Output("emotion", tooltip="For the emotion of CoT-FA Prompt Builder."),
                io.AnyType.Output("intensity", tooltip="For the intensity of CoT-FA Prompt Builder."),
                io.String.Output("filename_prefix", tooltip="A file name that says the case, under video/."),
                io.String.Output("case", tooltip="The case in words, such as 3 of 12: anna.png, hello.wav, sad, Mild."),
                io.Int.Output("total", tooltip="How many cases there are."),
            ],
            **extra(search_aliases=["queue", "csv", "batch portraits", "folder of portraits"]),
        )

    @classmethod
    def fingerprint_inputs(cls, index: int | None = None, **texts: str | None) -> str:
        return watch(comfy_bridge.input_folder(), index, **texts)

    @classmethod
    def execute(
        cls, portraits: str, speeches: str, emotions: str, intensities: str, csv: str, index: int
    ) -> io.NodeOutput:
        folder = comfy_bridge.input_folder()
        cases = read_cases(folder, portraits, speeches, emotions, intensities, csv)
        case = cases.case(index)
        image = comfy_bridge.pil_to_image(read_portrait(case.portrait)[0])
        speech = comfy_bridge.load_audio(case.speech)
        return io.NodeOutput(image, speech, case.emotion, case.intensity, f"video/{case.name}", str(case), case.total)
