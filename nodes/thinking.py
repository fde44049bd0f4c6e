"""Emotion -> action units, muscles, prompts; and the place where a person reads and changes these prompts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..tbd_core.cot_fa.edit import MODES, TEXTS, needed, settle
from ..tbd_core.cot_fa.knowledge import STYLES
from ..tbd_core.cot_fa.record import steps_as_text
from ..tbd_core.cot_fa.think import think
from ..tbd_core.errors import InputError
from ..tbd_core.facs.emotions import EMOTIONS, INTENSITIES
from . import comfy_bridge
from .compat import extra
from .sockets import THOUGHT


THINKERS = {"rules": think}  # by the name in the menu
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
                    tooltip='Who is seen, in words, for the coarse prompt. Blank: "a person"; it is never guessed.',
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
                    tooltip="Who thinks. rules: a table of FACS action units, the same words every time.",
                ),
                io.Image.Input(
                    "portrait",
                    optional=True,
                    tooltip="Only noted in the record (its size in pixels): the rules never look at a face.",
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
    def execute(cls, emotion, intensity, subject, style, thinker, portrait=None) -> io.NodeOutput:
        from ..tbd_core.synthetic.chart import plan_chart

        if thinker not in THINKERS:
            raise InputError(f"thinker is {thinker!r}; choose {', '.join(THINKERS)}")
        seen = None if portrait is None else f"picture {portrait.shape[2]} x {portrait.shape[1]}"
        thought = THINKERS[thinker](emotion, intensity, subject, style, seen)
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
