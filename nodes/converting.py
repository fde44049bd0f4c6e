"""Public weights → a bundle in models/tbd."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..tbd_core.checkpoint.asked import NONE, bundle_file, check_given, gather
from ..tbd_core.checkpoint.recipe import FLOATS, MOST_SEED, load_recipe, shipped
from ..tbd_core.errors import InputError, needed_packages
from ..tbd_core.host import warn
from . import comfy_bridge
from .compat import extra


# Source of the recipes → ComfyUI's model folders that its menu lists.
LISTED = {
    "sd": ("checkpoints", "diffusers"),
    "vae": ("vae",),
    "text": ("text_encoders", "checkpoints", "diffusers"),
    "motion": ("animatediff_models", "diffusion_models"),
    "hallo": ("hallo", "diffusion_models", "checkpoints"),
    "wav2vec2": ("audio_encoders",),
}
WANTED = {
    "sd": "SD 1.5 (paper-init, hallo-text): the single file in models/checkpoints, or a folder in models/diffusers.",
    "vae": "sd-vae-ft-mse, in models/vae. none: the one of sd, where the recipe has an sd.",
    "text": "SD 1.5's text encoder (hallo-compat): in models/text_encoders, or the whole SD 1.5.",
    "motion": "AnimateDiff's mm_sd_v15_v2.ckpt (paper-init), in models/animatediff_models.",
    "hallo": "Hallo's net.pth (hallo-compat, hallo-text), in models/hallo, diffusion_models or checkpoints.",
    "wav2vec2": "wav2vec2-base-960h, file or folder, in models/audio_encoders.",
}


class TBDConvert(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TBDConvert",
            display_name="Convert Public Weights",
            category="Think-Before-Draw",
            description="SD 1.5, AnimateDiff, Hallo and wav2vec 2 as you have them become one bundle in models/tbd, "
            "with a report of every key. Nothing is downloaded; code in a file is never run.",
            inputs=[
                io.Combo.Input(
                    "recipe",
                    options=shipped(),
                    default="hallo-text",
                    tooltip="What comes from where. paper-init: SD 1.5 and AnimateDiff, a start for training. "
                    "hallo-compat: Hallo as published. hallo-text: Hallo with SD 1.5's text beside it.",
                ),
                *(
                    io.Combo.Input(
                        name, options=[NONE, *comfy_bridge.model_files(*folders)], default=NONE, tooltip=WANTED[name]
                    )
                    for name, folders in LISTED.items()
                ),
                io.String.Input(
                    "paths",
                    multiline=True,
                    default="",
                    dynamic_prompts=False,
                    placeholder="hallo=/data/hallo/net.pth",
                    tooltip="What no menu lists: one source=path a line, absolute or below ComfyUI's models folder; "
                    "goes before the menus. Only safetensors, and pickles without code, are read.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(FLOATS),
                    default="fp16",
                    tooltip="What all numbers are stored as. fp32 takes twice the disk of fp16 or bf16.",
                ),
                io.Int.Input(
                    "fresh_seed",
                    default=0,
                    min=0,
                    max=MOST_SEED,
                    tooltip="Of the weights that no file has and that start at random; another number, other weights.",
                ),
                io.String.Input(
                    "name",
                    default="",
                    dynamic_prompts=False,
                    placeholder="tbd_hallo-text_fp16",
                    tooltip="The bundle's file name, below models/tbd. Blank: named by recipe and dtype.",
                ),
                io.Boolean.Input(
                    "replace",
                    default=False,
                    tooltip="On: writes over a file of that name that was made of other files or settings. Off: such a "
                    "file is an error. One that was made of the same is never written again.",
                ),
            ],
            outputs=[
                # AnyType: a STRING does not connect to the loader's list.
                io.AnyType.Output("name", tooltip="For the model of Load TBD Model, which then loads it."),
                io.String.Output("report", tooltip="Every source and how many of its keys were taken, missing, dead."),
            ],
            is_output_node=True,
            **extra(search_aliases=["convert checkpoint", "hallo", "animatediff", "merge model"]),
        )

    @classmethod
    def validate_inputs(
        cls, recipe: str | None, sd: str | None, vae: str | None, text: str | None, motion: str | None,
        hallo: str | None, wav2vec2: str | None,
    ) -> bool | str:  # fmt: skip
        """Naming them switches ComfyUI's own check of the menus off: a file that another recipe wants may be gone."""
        if recipe is None:  # linked, not known yet
            return True
        chosen = dict(sd=sd, vae=vae, text=text, motion=motion, hallo=hallo, wav2vec2=wav2vec2)
        try:
            gather(load_recipe(recipe), {k: v or NONE for k, v in chosen.items()}, "", comfy_bridge.models_folder(),
                   comfy_bridge.model_file)  # fmt: skip
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, recipe=None, paths="", dtype="", name="", **widgets) -> str:
        """Another one when a source or the bundle itself has changed or gone."""
        from ..tbd_core.checkpoint.sources import watch

        try:
            chosen = {key: widgets.get(key) or NONE for key in LISTED}
            given, _ = gather(
                load_recipe(recipe or ""), chosen, paths or "", comfy_bridge.models_folder(), comfy_bridge.model_file
            )
            output = bundle_file(name or "", recipe or "", dtype or "", comfy_bridge.bundles_folder())
        except InputError as error:  # raised here, it would only be logged, and all run again for ever
            return str(error)
        return str([watch(path) for path in (*given.values(), output)])

    @classmethod
    def execute(
        cls, recipe, sd, vae, text, motion, hallo, wav2vec2, paths, dtype, fresh_seed, name, replace
    ) -> io.NodeOutput:
        from ..tbd_core.checkpoint.convert import convert  # not at ComfyUI's start
        from ..tbd_core.checkpoint.report import every_key
        from ..tbd_core.checkpoint.report import text as told

        chosen = dict(sd=sd, vae=vae, text=text, motion=motion, hallo=hallo, wav2vec2=wav2vec2)
        loaded, bundles = load_recipe(recipe), comfy_bridge.bundles_folder()
        given, notes = gather(loaded, chosen, paths, comfy_bridge.models_folder(), comfy_bridge.model_file)
        check_given(loaded, given)
        output = bundle_file(name, loaded.name, dtype, bundles)
        with needed_packages():
            made = convert(
                loaded, given, output, dtype, fresh_seed, on_tensor=comfy_bridge.counter(),
                existing="renew" if replace else "keep",
            )  # fmt: skip
        warn([*notes, *made.warnings])
        short = "\n".join([told(made.to_dict()), *(f"warning: {note}" for note in notes)])
        comfy_bridge.say(short)
        report = "\n".join(filter(None, (short, every_key(made.to_dict()))))
        return io.NodeOutput(output.relative_to(bundles).as_posix(), report, ui=ui.PreviewText(short))
