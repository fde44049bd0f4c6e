"""The workflows: which nodes, wired how. File name → the function that draws it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from page import Graph, Link, Node


HUB = "https://huggingface.co"
WAN_21 = f"{HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
WAN_22 = f"{HUB}/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"
HUMO = f"{HUB}/Comfy-Org/HuMo_ComfyUI/resolve/main/split_files"
SAMPLER = "uni_pc"  # of ComfyUI's own templates for Wan 2.2 S2V and HuMo
LIGHT = f"{HUB}/Kijai/WanVideo_comfy/resolve/main/Lightx2v"

SPLIT = "0.2"  # what the bundled model asks for: the coarse prompt leads for the first of its five steps
OWN_FILES = "Put **Load Image** and **Load Audio** in place of *TBD Sample Inputs* for your own portrait and recording."
UNTESTED = (
    "**The graph is validated by ComfyUI 0.8.0; we could not run it with the weights.** Missing models are named, with "
    "their addresses, when you open it."
)


def model(name: str, base: str, directory: str) -> dict[str, str]:
    """What the page's dialog of missing models wants to know."""
    folder = "" if base == LIGHT else f"{directory}/"
    return {"name": name, "url": f"{base}/{folder}{name}", "directory": directory}


def sources(g: Graph) -> tuple[Node, Node]:
    return g.add("TBDModelLoader"), g.add("TBDSampleInputs")


def think(g: Graph, **widgets) -> Node:
    """The prompts, with what was thought on the way, in a column of their own."""
    builder = g.add("TBDPromptBuilder", **widgets)
    g.add("PreviewImage", "Planned face and action units", images=builder["chart"])
    g.add("PreviewAny", "The four steps of thought", source=builder["steps"])
    return builder


def edit(g: Graph, builder: Node, mode: str = "auto") -> Node:
    linked: dict[str, Any] = {name: builder[name] for name in ("coarse", "fine", "negative", "thought")}
    return g.add("TBDEditPrompts", mode=mode, **linked)


def schedule(g: Graph, texts: Node, clip: Link, **more) -> tuple[Node, Node]:
    """Positive and negative."""
    positive = g.add("TBDProgressiveScheduler", prompts=[texts["coarse"], texts["fine"]], clip=clip, **more)
    g.add("PreviewImage", "Which prompt leads when", images=positive["plot"])
    return positive, g.add("CLIPTextEncode", "Negative prompt", text=texts["negative"], clip=clip)


def sound_and_face(g: Graph, loader: Node, portrait: Link, speech: Link) -> tuple[Node, Node]:
    audio = g.add("TBDAudioEncode", audio_encoder=loader["audio_encoder"], audio=speech)
    return audio, g.add("TBDReferenceEncode", model=loader["MODEL"], vae=loader["VAE"], image=portrait)


def film(g: Graph, frames: Link, sound: Link, name: str, fps: float = 25.0) -> None:
    video = g.add("CreateVideo", images=frames, fps=fps, audio=sound)
    g.add("SaveVideo", video=video["VIDEO"], filename_prefix=f"video/{name}")


def whole(g: Graph, name: str, mode: str, note: str, height: int, by_hand: bool) -> None:
    """From an emotion to a video; `by_hand`: with what a person copies from where the page's buttons are missing."""
    g.column("1  Model, portrait, speech")
    g.note(note, height)
    loader, sample = sources(g)
    g.column("2  Think")
    builder = think(g, emotion="happy", intensity="Moderate")
    if by_hand:
        g.add("PreviewAny", "Fine prompt, to copy", source=builder["fine"])
    g.column("3  Read and edit")
    texts = edit(g, builder, mode)
    g.column("4  Prompts in time")
    positive, negative = schedule(g, texts, loader["CLIP"], split=SPLIT)
    g.column("5  Draw")
    audio, reference = sound_and_face(g, loader, sample["portrait"], sample["speech"])
    drawn = g.add(
        "TBDSampler", model=loader["MODEL"], reference=reference["reference"], audio=audio["audio"],
        positive=positive["conditioning"], negative=negative["CONDITIONING"],
    )  # fmt: skip
    if mode == "auto":  # a text preview that was kept from running is an error in ComfyUI 0.8.0's page the next time
        g.add("PreviewAny", "What was drawn", source=drawn["info"])
    g.column("6  Video")
    frames = g.add("VAEDecode", samples=drawn["latent"], vae=loader["VAE"])
    film(g, frames["IMAGE"], sample["speech"], name)


def inference(g: Graph) -> None:
    note = f"""## Portrait + speech + emotion → video
Press **Run**: everything it needs comes with the pack, the model too.

1. Choose an emotion and an intensity in *CoT-FA Prompt Builder*.
2. Read the four steps of thought and see the planned face.
3. Change the words in *Edit Prompts* if you like: only what is right of it runs again.

{OWN_FILES}

The bundled model draws small, drawn-looking faces. A bundle of your own goes into `models/tbd`."""
    whole(g, "tbd_inference", "auto", note, 360, by_hand=False)


def edit_the_prompts(g: Graph) -> None:
    note = """## Change a word between thinking and drawing
1. **Run**. *Edit Prompts* is set to **review**: it shows the prompts, and nothing behind it runs.
2. Press **Edit these** in *Edit Prompts* and change a word of the fine prompt. (Without buttons: copy the prompt from
   *Fine prompt, to copy* into the field, write a coarse one as well, set mode to **edited**.)
3. **Run** again. Thinking, portrait and speech are not done again; schedule, drawing and video are.
4. Every further change of a word: **Run**.

**auto** lets the generated prompts pass. Your own words stay in their fields and are never written over."""
    whole(g, "tbd_edited", "review", note, 400, by_hand=True)


def intensity_control(g: Graph) -> None:
    g.column("1  Model, portrait, speech")
    g.note(
        f"""## One emotion, three intensities
The same portrait, speech and noise three times; only the intensity differs (Fig. 10 of the paper). Set the same
emotion in all three lanes.

{OWN_FILES}""",
        250,
    )
    loader, sample = sources(g)
    audio, reference = sound_and_face(g, loader, sample["portrait"], sample["speech"])
    charts, frames = [], []
    for index, intensity in enumerate(("Mild", "Moderate", "Intense")):
        g.column(f"{index + 2}  {intensity}")
        builder = g.add("TBDPromptBuilder", emotion="happy", intensity=intensity)
        prompts = [builder["coarse"], builder["fine"]]
        positive = g.add("TBDProgressiveScheduler", prompts=prompts, clip=loader["CLIP"], split=SPLIT)
        negative = g.add("CLIPTextEncode", "Negative prompt", text=builder["negative"], clip=loader["CLIP"])
        drawn = g.add(
            "TBDSampler", model=loader["MODEL"], reference=reference["reference"], audio=audio["audio"],
            positive=positive["conditioning"], negative=negative["CONDITIONING"],
        )  # fmt: skip
        frames.append(g.add("VAEDecode", samples=drawn["latent"], vae=loader["VAE"])["IMAGE"])
        charts.append(builder["chart"])
    g.column("5  Side by side")
    for pictures, direction in ((charts, "down"), (frames, "right")):
        both = g.add("ImageStitch", image1=pictures[0], image2=pictures[1], direction=direction)
        three = g.add("ImageStitch", image1=both["IMAGE"], image2=pictures[2], direction=direction)
        if pictures is charts:
            g.add("PreviewImage", "Planned faces: Mild, Moderate, Intense", images=three["IMAGE"])
        else:
            film(g, three["IMAGE"], sample["speech"], "tbd_intensity")


def batch_queue(g: Graph) -> None:
    g.column("1  Cases")
    g.note(
        """## Many videos from one queue
*Batch Cases* draws every portrait with every speech, emotion and intensity; its index counts up with each run.

1. Set the number beside **Run** to the number of cases (here 6) and press **Run**.
2. The videos lie in `output/video`, each named by its case.
3. Past the last case a run stops with *all 6 cases done*. Set the index to 0 to begin again.

Portraits and speeches: folders or files, a line each; blank is the sample. A CSV takes the place of all four.
A run that was stopped goes on where it was: set the index back to its case.""",
        400,
    )
    cases = g.add("TBDBatchCases", control="increment", emotions="happy, sad, surprised", intensities="Mild, Intense")
    g.add("PreviewAny", "Case", source=cases["case"])
    g.column("2  Think")
    builder = think(g, emotion=cases["emotion"], intensity=cases["intensity"])
    g.column("3  Prompts in time")
    loader = g.add("TBDModelLoader")
    positive, negative = schedule(g, builder, loader["CLIP"], split=SPLIT)
    g.column("4  Video")
    audio, reference = sound_and_face(g, loader, cases["portrait"], cases["speech"])
    g.add(
        "TBDRenderVideo", model=loader["MODEL"], reference=reference["reference"], audio=audio["audio"],
        positive=positive["conditioning"], negative=negative["CONDITIONING"], vae=loader["VAE"],
        filename_prefix=cases["filename_prefix"], sound=cases["speech"],
    )  # fmt: skip


def ksampler(g: Graph) -> None:
    g.column("1  Model, portrait, speech")
    g.note(
        f"""## ComfyUI's own KSampler, clip by clip
*TBD Apply Conditions* puts portrait, sound and motion on the prompts, and any sampler of ComfyUI draws the 14 frames
of one clip. The second clip takes the first as *previous* and goes on from its last two frames.

The bundled model wants **cfg 1** and split 0.2. *TBD Sampler* does all clips of a speech by itself; its noise is
another one.

{OWN_FILES}""",
        320,
    )
    loader, sample = sources(g)
    g.column("2  Think")
    builder = think(g, emotion="surprised", intensity="Intense")
    g.column("3  Prompts in time")
    run: dict[str, Any] = dict(steps=20, scheduler="simple")
    positive, negative = schedule(g, builder, loader["CLIP"], split=SPLIT, model=loader["MODEL"], **run)
    g.column("4  Conditions")
    audio, reference = sound_and_face(g, loader, sample["portrait"], sample["speech"])
    clips: list[Link] = []
    for index in range(2):
        previous: dict[str, Any] = {"previous": clips[-1]} if clips else {}
        given = g.add(
            "TBDApplyConditions", f"Clip {index + 1}", clip=index, model=loader["MODEL"],
            reference=reference["reference"], audio=audio["audio"], positive=positive["conditioning"],
            negative=negative["CONDITIONING"], **previous,
        )  # fmt: skip
        drawn = g.add(
            "KSampler", model=loader["MODEL"], positive=given["positive"], negative=given["negative"],
            latent_image=given["latent"], seed=index, cfg=1.0, sampler_name="euler", **run,
        )  # fmt: skip
        clips.append(drawn["LATENT"])
    g.column("5  Video")
    both = g.add("BatchLatentsNode", "Both clips", latents=clips)
    frames = g.add("VAEDecode", samples=both["LATENT"], vae=loader["VAE"])
    film(g, frames["IMAGE"], sample["speech"], "tbd_ksampler")


def portrait_in_a_picture(g: Graph) -> None:
    g.column("1  Model, picture, speech")
    g.note(
        """## A face in a larger picture
*Find Face* cuts the face out with a margin, the model draws that part, and *Paste Face Back* puts every frame where it
was, faded in at its edges. The video is as large as the picture.

Here the sample portrait stands twice in one picture, and the one at the right speaks: `face` is **box**, and nothing is
searched. For a picture of your own put **Load Image** in place of *A picture with two faces*, **Load Audio** in place
of *TBD Sample Inputs*, and set `face` to **largest** or **number** (they want scikit-image), or give your own box.""",
        330,
    )
    loader, sample = sources(g)
    two = g.add(
        "ImageStitch", "A picture with two faces", image1=sample["portrait"], image2=sample["portrait"],
        direction="right",
    )  # fmt: skip
    g.column("2  Find the face")
    found = g.add("TBDFindFace", image=two["IMAGE"], face="box", box="581,85,369,369", margin=0.2)
    g.add("PreviewImage", "What the model draws of it", images=found["cropped"])
    g.add("PreviewAny", "What was found", source=found["found"])
    g.column("3  Think")
    builder = think(g, emotion="happy", intensity="Intense")
    g.column("4  Prompts in time")
    positive, negative = schedule(g, builder, loader["CLIP"], split=SPLIT)
    g.column("5  Draw")
    audio = g.add("TBDAudioEncode", audio_encoder=loader["audio_encoder"], audio=sample["speech"])
    reference = g.add(
        "TBDReferenceEncode", model=loader["MODEL"], vae=loader["VAE"], image=found["cropped"], box=found["box"]
    )
    drawn = g.add(
        "TBDSampler", model=loader["MODEL"], reference=reference["reference"], audio=audio["audio"],
        positive=positive["conditioning"], negative=negative["CONDITIONING"],
    )  # fmt: skip
    frames = g.add("VAEDecode", samples=drawn["latent"], vae=loader["VAE"])
    g.column("6  Back into the picture")
    whole = g.add("TBDPasteBack", frames=frames["IMAGE"], crop=found["crop"])
    film(g, whole["frames"], sample["speech"], "tbd_in_a_picture")


def on_another_model(g: Graph, note: str, unet: dict, encoder: dict, light: dict | None, kind: str, draw: dict) -> None:
    """The thinking half before a talking-head model of ComfyUI's own; `draw`: frames, fps and what KSampler gets."""
    text = model("umt5_xxl_fp8_e4m3fn_scaled.safetensors", WAN_21, "text_encoders")
    vae = model("wan_2.1_vae.safetensors", WAN_22, "vae")
    g.column("1  Models")
    g.note(note, 420)
    network = g.add("UNETLoader", unet_name=unet["name"], models=[unet])
    if light:
        network = g.add("LoraLoaderModelOnly", model=network["MODEL"], lora_name=light["name"], models=[light])
    network = g.add("ModelSamplingSD3", model=network["MODEL"], shift=8.0)
    clip = g.add("CLIPLoader", clip_name=text["name"], type="wan", models=[text])
    pictures = g.add("VAELoader", vae_name=vae["name"], models=[vae])
    ears = g.add("AudioEncoderLoader", audio_encoder_name=encoder["name"], models=[encoder])
    g.column("2  Portrait, speech")
    portrait, speech = g.add("LoadImage", image="portrait.png"), g.add("LoadAudio", audio="speech.wav")
    heard = g.add("AudioEncoderEncode", audio_encoder=ears["AUDIO_ENCODER"], audio=speech["AUDIO"])
    g.column("3  Think")
    builder = think(g, emotion="happy", intensity="Moderate", style="natural")
    g.column("4  Read and edit")
    texts = edit(g, builder)
    g.column("5  Prompts in time")
    run: dict[str, Any] = dict(steps=draw["steps"], scheduler="simple")
    positive, negative = schedule(g, texts, clip["CLIP"], model=network["MODEL"], sampler=SAMPLER, **run)
    g.column("6  Draw")
    given = g.add(
        kind, positive=positive["conditioning"], negative=negative["CONDITIONING"], vae=pictures["VAE"], width=640,
        height=640, length=draw["frames"], audio_encoder_output=heard["AUDIO_ENCODER_OUTPUT"],
        ref_image=portrait["IMAGE"],
    )  # fmt: skip
    drawn = g.add(
        "KSampler", model=network["MODEL"], positive=given["positive"], negative=given["negative"],
        latent_image=given["latent"], cfg=draw["cfg"], sampler_name=SAMPLER, **run,
    )  # fmt: skip
    g.column("7  Video")
    frames = g.add("VAEDecode", samples=drawn["LATENT"], vae=pictures["VAE"])
    film(g, frames["IMAGE"], speech["AUDIO"], draw["name"], draw["fps"])


BEFORE = """Choose your portrait in *Load Image* and your recording in *Load Audio*. The emotion becomes action units,
muscles and prompts in whole sentences; *Progressive Text Scheduler* hands over from the coarse to the fine prompt
exactly between two steps of this KSampler: keep its steps, scheduler and sampler equal to KSampler's."""


def wan_s2v(g: Graph) -> None:
    note = f"""## Thinking before Wan 2.2 S2V
{UNTESTED}

{BEFORE}

77 frames at 16 a second. With the 4-step LoRA of Wan 2.2: 4 steps in both nodes, and cfg 1."""
    unet = model("wan2.2_s2v_14B_fp8_scaled.safetensors", WAN_22, "diffusion_models")
    encoder = model("wav2vec2_large_english_fp16.safetensors", WAN_22, "audio_encoders")
    draw = dict(frames=77, fps=16.0, steps=20, cfg=6.0, name="tbd_wan_s2v")
    on_another_model(g, note, unet, encoder, None, "WanSoundImageToVideo", draw)


def humo(g: Graph) -> None:
    note = f"""## Thinking before HuMo
{UNTESTED}

{BEFORE}

97 frames at 25 a second, in 6 steps by a LoRA. At cfg 1 the negative prompt is not heard; without the LoRA take
more steps and a higher cfg."""
    unet = model("humo_17B_fp8_e4m3fn.safetensors", HUMO, "diffusion_models")
    encoder = model("whisper_large_v3_fp16.safetensors", HUMO, "audio_encoders")
    light = model("lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors", LIGHT, "loras")
    draw = dict(frames=97, fps=25.0, steps=6, cfg=1.0, name="tbd_humo")
    on_another_model(g, note, unet, encoder, light, "WanHuMoImageToVideo", draw)


GRAPHS: dict[str, Callable[[Graph], None]] = {
    "Inference": inference,
    "Intensity control": intensity_control,
    "Edit the prompts mid-graph": edit_the_prompts,
    "Batch queue": batch_queue,
    "KSampler (expert)": ksampler,
    "Portrait in a picture": portrait_in_a_picture,
    "On Wan 2.2 S2V": wan_s2v,
    "On HuMo": humo,
}
