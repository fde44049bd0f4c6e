"""Prompts that lead one after the other, as CONDITIONING that any of ComfyUI's models understands."""

from __future__ import annotations

from comfy_api.latest import io

from ..tbd_core.errors import InputError
from ..tbd_core.plots import schedule_plot
from ..tbd_core.progressive import BLENDS, MAX_STEPS, PROGRESS, parse_split
from ..tbd_core.slicing import schedule_conditioning
from . import comfy_bridge
from .compat import extra


SOCKETS = 2  # of each kind on a new node; the page shows none, and no way to any, where this is 0
MAX_STAGES = 8
PERCENT = "from percent"


class TBDProgressiveScheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TBDProgressiveScheduler",
            display_name="Progressive Text Scheduler",
            category="Think-Before-Draw",
            description="From the overall mood to the last muscle: each prompt leads for a part of the steps. "
            "Works with every model and text encoder; TBD Sampler fits the parts to its own steps.",
            inputs=[
                io.Autogrow.Input(
                    "prompts",
                    template=io.Autogrow.TemplatePrefix(
                        io.String.Input("prompt", tooltip="A prompt; the first leads first, from coarse to fine."),
                        prefix="prompt_",
                        min=SOCKETS,
                        max=MAX_STAGES,
                    ),
                    tooltip="Prompts from coarse to fine, encoded by clip. Link these or conditionings, not both.",
                ),
                io.Autogrow.Input(
                    "conditionings",
                    template=io.Autogrow.TemplatePrefix(
                        io.Conditioning.Input("conditioning", tooltip="An encoded prompt; the first leads first."),
                        prefix="conditioning_",
                        min=SOCKETS,
                        max=MAX_STAGES,
                    ),
                    tooltip="Encoded prompts from coarse to fine, from any text encoder, all from the same one.",
                ),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=MAX_STEPS,
                    tooltip="Denoising steps of the sampler below. Without effect where sigmas are linked; "
                    "TBD Sampler takes its own.",
                ),
                io.String.Input(
                    "split",
                    default="",
                    dynamic_prompts=False,
                    placeholder="0.4",
                    tooltip="Where one prompt hands over to the next, as fractions of the steps in rising order: 0.4, "
                    "or 0.3,0.6 for three prompts. Blank: 0.4 for two prompts, equal parts for more.",
                ),
                io.Combo.Input(
                    "blend",
                    options=list(BLENDS),
                    default="hard",
                    tooltip="hard: one prompt at a time. paper: Algorithms 1 and 2, which mix within each part. "
                    "smooth: a crossfade without a jump. The last two make one embedding for each step.",
                ),
                io.Combo.Input(
                    "progress",
                    options=list(PROGRESS),
                    default="denoise",
                    tooltip="denoise: the first prompt leads at the noisy steps. literal: the paper's t read as the "
                    "diffusion timestep, so that the last prompt leads first.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=[PERCENT, *comfy_bridge.scheduler_names()],
                    default=PERCENT,
                    tooltip="The KSampler's own scheduler, with model linked: the parts then begin exactly between its "
                    "steps. from percent: exact for simple and near it for normal; karras and others bend the steps.",
                ),
                io.Combo.Input(
                    "sampler",
                    options=comfy_bridge.sampler_names(),
                    default="euler",
                    tooltip="The KSampler's own sampler: uni_pc and dpm_2 put their steps at other noise levels than "
                    "the rest. Without effect where scheduler says from percent.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="Encodes the prompts; any text encoder."),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="The run's noise levels, one more than its steps: the parts begin exactly between them. "
                    "Goes before model, scheduler and sampler.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model as the sampler gets it (behind ModelSamplingSD3 and the like), for scheduler.",
                ),
            ],
            outputs=[
                io.Conditioning.Output("conditioning", tooltip="For positive; of any sampler."),
                io.Image.Output("plot", tooltip="Which prompt leads at which step, and how much."),
            ],
            **extra(search_aliases=["prompt schedule", "prompt travel", "timestep range", "coarse to fine"]),
        )

    @classmethod
    def execute(
        cls, steps, split, blend, progress, scheduler=PERCENT, sampler="euler",
        prompts=None, conditionings=None, clip=None, sigmas=None, model=None,
    ) -> io.NodeOutput:  # fmt: skip
        stages = _stages(_in_order(prompts), _in_order(conditionings), clip)
        if sigmas is None and scheduler != PERCENT:
            if model is None:
                raise InputError(
                    f"scheduler is {scheduler}, but no model is linked; link the sampler's model, or choose {PERCENT}"
                )
            sigmas = comfy_bridge.model_sigmas(model, scheduler, steps, sampler)
        conditioning, schedule = schedule_conditioning(stages, steps, parse_split(split), blend, progress, sigmas)
        return io.NodeOutput(conditioning, comfy_bridge.pil_to_image(schedule_plot(schedule)))


def _in_order(grown: dict | None) -> list:
    """The linked sockets by their number (`prompt_10` after `prompt_9`)."""
    linked = [(name, value) for name, value in (grown or {}).items() if value is not None]
    return [value for _, value in sorted(linked, key=lambda pair: int(pair[0].rpartition("_")[2]))]


def _stages(prompts: list, conditionings: list, clip) -> list:
    if prompts and conditionings:
        raise InputError(
            f"{len(prompts)} prompts and {len(conditionings)} conditionings are linked; link only one of the two kinds"
        )
    if not prompts and not conditionings:
        raise InputError("0 prompts are linked; link at least 1 prompt with clip, or at least 1 conditioning")
    if prompts and clip is None:
        raise InputError(f"{len(prompts)} prompts are linked, but no clip; link a CLIP, or encoded conditionings")
    return conditionings or [comfy_bridge.encode_text(clip, text) for text in prompts]
