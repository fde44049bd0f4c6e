"""Emotion -> action units, muscles, prompts; and the place where a person reads and changes these prompts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..tbd_core.cot_fa.edit import MODES, TEXTS, needed, settle
from ..tbd_core.cot_fa.knowledge import STYLES
from ..tbd_core.cot_fa.record import steps_as_text
from ..tbd_core.cot_fa.thinkers import THINKERS, ThinkerOptions, thought_of
from ..tbd_core.facs.emotions import EMOTIONS, INTENSITIES
from ..tbd_core.host import image_to_pil
from . import comfy_bridge
from .compat import extra
from .sockets import THOUGHT


CHART = 256  # pixels of one face; the chart is four faces wide
UNLINKED: Any = object()  # an optional input without a link is absent; one that is not computed yet is None


class TBDPromptBuilder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TBDPromptBuilder",
            display_name="CoT-FA Prompt Builder",
            category="Think-Before-Draw",
            description="Thinks before it draws: from an emotion to facial action units (FACS), muscles and prompts. "
            "The chart shows the planned face and its units from A (trace) to E (maximal).",
            inputs=[
                io.Combo.Input("emotion", options=list(EMOTIONS), default="happy", tooltip="What the face feels."),
                io.Combo.Input(
                    "intensity",
                    options=list(INTENSITIES),
                    default="Moderate",
                    tooltip="How much it shows: sets the level A to E of each action unit. No effect on neutral.",
                ),
                io.String.Input(
                    "subject",
                    default="",
                    dynamic_prompts=False,
                    placeholder="a woman with short dark hair",
                    tooltip="Who is seen, in words, for the coarse prompt. Blank: as a server or vlm sees it in the "
                    'portrait; by the rules "a person", never guessed.',
                ),
                io.Combo.Input(
                    "style",
                    options=list(STYLES),
                    default="clip",
                    tooltip="clip: both prompts fit CLIP's 77 tokens. natural: whole sentences without a limit, "
                    "for T5, umT5 and language models.",
                ),
                io.Combo.Input(
                    "thinker",
                    options=list(THINKERS),
                    default="rules",
                    tooltip="Who thinks. rules: a table of FACS action units, the same words every time. server: a "
                    "vision model at an OpenAI-compatible server. vlm: one in a folder. Where these fail, the rules "
                    "step in, and a warning says so.",
                ),
                io.Image.Input(
                    "portrait",
                    optional=True,
                    tooltip="What a server or vlm looks at. The rules never do: they only note its size in pixels.",
                ),
                io.String.Input(
                    "thinker_url",
                    default="",
                    optional=True,
                    dynamic_prompts=False,
                    placeholder="http://127.0.0.1:11434/v1",
                    tooltip="Thinker server: its base address (Ollama, vLLM, LM Studio). Blank: Ollama's on this "
                    "machine. The portrait is sent there.",
                ),
                io.String.Input(
                    "thinker_model",
                    default="",
                    optional=True,
                    dynamic_prompts=False,
                    placeholder="qwen2.5vl:7b",
                    tooltip="Thinker server: the model's name there. Thinker vlm: the full path of a folder with a "
                    "transformers image-text-to-text model, such as Qwen2.5-VL.",
                ),
                io.Boolean.Input(
                    "thinker_stays",
                    default=False,
                    optional=True,
                    tooltip="Thinker vlm: stays in memory after it has thought. Off: freed before anything is drawn.",
                ),
            ],
            outputs=[
                io.String.Output("coarse", tooltip="The overall mood, for the first steps."),
                io.String.Output(
                    "fine", tooltip="Action units with level and side, muscles, skin; for the last steps."
                ),
                io.String.Output("negative", tooltip="What the face should not show."),
                THOUGHT.Output("thought", tooltip="The whole plan, for Edit Prompts."),
                io.String.Output("steps", tooltip="The four steps of thought as text."),
                io.Image.Output("chart", tooltip="The face at rest, the planned face, a bar for each action unit."),
            ],
            **extra(search_aliases=["emotion", "FACS", "action units", "facial expression", "chain of thought"]),
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        """Another one once a question was not answered: the same inputs are then asked again."""
        from ..tbd_core.cot_fa.asking import MEMORY

        return MEMORY.unanswered

    @classmethod
    def execute(
        cls, emotion, intensity, subject, style, thinker, portrait=None, thinker_url="", thinker_model="",
        thinker_stays=False,
    ) -> io.NodeOutput:  # fmt: skip
        from ..tbd_core.synthetic.chart import plan_chart

        options = ThinkerOptions(
            thinker,
            thinker_url if thinker == "server" else None,  # what is left in a field of another thinker is no mistake
            thinker_model if thinker != "rules" else None,
            comfy_bridge.foreign_device(),
            stay=thinker_stays,
        )
        size, look = None, None
        if portrait is not None:
            size, look = f"picture {portrait.shape[2]} x {portrait.shape[1]}", lambda: image_to_pil(portrait)
        thought = thought_of(
            options, emotion, intensity, subject, style, size, look, comfy_bridge.check_interrupt,
            comfy_bridge.make_room,
        )  # fmt: skip
        prompts, steps = thought.prompts, "\n".join(steps_as_text(thought))
        chart = comfy_bridge.pil_to_image(plan_chart(thought.action_units, CHART))
        return io.NodeOutput(
            prompts.coarse, prompts.fine, prompts.negative, thought, steps, chart,
            ui={"text": [steps], "warnings": list(thought.warnings)},
        )  # fmt: skip


class TBDEditPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TBDEditPrompts",
            display_name="Edit Prompts",
            category="Think-Before-Draw",
            description="Shows the prompts before they are drawn and lets you write your own. Only what is below this "
            "node runs again after an edit.",
            inputs=[
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="auto",
                    tooltip="auto: the linked prompts go on. review: they are shown, and nothing below runs. "
                    "edited: your texts go on; what is linked is not even computed.",
                ),
                *(_field(name) for name in TEXTS),
                *(_link(name) for name in TEXTS),
                THOUGHT.Input(
                    "thought",
                    optional=True,
                    lazy=True,
                    tooltip="The plan, so that a fine prompt that leaves one of its action units out is noticed.",
                ),
            ],
            outputs=[
                io.String.Output("coarse", tooltip="The overall mood, for the first steps."),
                io.String.Output("fine", tooltip="The details of the face, for the last steps."),
                io.String.Output("negative", tooltip="What the face should not show."),
            ],
            is_output_node=True,
            **extra(search_aliases=["edit text", "review prompt"], has_intermediate_output=True),
        )

    @classmethod
    def check_lazy_status(
        cls, mode, coarse_text="", fine_text="", negative_text="",
        coarse=UNLINKED, fine=UNLINKED, negative=UNLINKED, thought=UNLINKED,
    ) -> list[str]:  # fmt: skip
        given = {"coarse": coarse, "fine": fine, "negative": negative, "thought": thought}
        return needed(mode, [name for name, value in given.items() if value is None])

    @classmethod
    def execute(
        cls, mode, coarse_text="", fine_text="", negative_text="",
        coarse=UNLINKED, fine=UNLINKED, negative=UNLINKED, thought=UNLINKED,
    ) -> io.NodeOutput:  # fmt: skip
        given = {"coarse": coarse, "fine": fine, "negative": negative}
        settled = settle(
            mode,
            {name: text for name, text in given.items() if text is not UNLINKED},
            {"coarse": coarse_text, "fine": fine_text, "negative": negative_text},
            None if thought is UNLINKED else thought,
        )
        outputs = comfy_bridge.blocker(len(TEXTS)) if settled.blocked else settled.texts
        return io.NodeOutput(*outputs, ui=settled.ui())


def _field(name: str) -> io.String.Input:
    return io.String.Input(
        f"{name}_text",
        default="",
        multiline=True,
        dynamic_prompts=False,
        placeholder=f"your {name} prompt",
        tooltip=f"Your own {name} prompt: used in mode edited, and in auto and review where nothing is linked to "
        f"{name}. Nothing ever writes over it. CLIP reads its first 77 tokens.",
    )


def _link(name: str) -> io.String.Input:
    return io.String.Input(
        name,
        optional=True,
        lazy=True,
        force_input=True,
        tooltip=f"The generated {name} prompt, for modes auto and review.",
    )
