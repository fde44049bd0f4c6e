"""A fresh bundle → `TINY.md` and a picture beside it: what it cost, and what it draws of people it never saw.

The truth is the renderer's drawing of the same person with the same plan, so that PSNR and the nearest truth among the
eight emotions can be told. A first look, not the proof (the evaluation's task).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import conditioning, denoise, frames
from ..checkpoint import store
from ..cot_fa.think import think
from ..data.plans import Plan, unit_levels
from ..facs.emotions import EMOTIONS, units_for
from ..progressive import make_schedule
from ..speech import window_frames
from ..synthetic.chart import contact_sheet
from ..synthetic.face import Face, random_identity
from ..synthetic.portrait import render
from ..units import CLIP_FRAMES, SAMPLES_PER_FRAME


PEOPLE, SEED = 2, 70_001  # the corpus is drawn from other generators
INTENSITY = "Intense"


def plans() -> list[Plan]:
    made = []
    for emotion in EMOTIONS:
        prompts = think(emotion, INTENSITY).prompts
        units = units_for(emotion, INTENSITY)
        made.append(Plan(emotion, INTENSITY, units, True, prompts.coarse, prompts.fine, ""))
    return made


@torch.inference_mode()
def draw_emotions(bundle: Path) -> tuple[Tensor, Tensor, Tensor]:
    """(portraits, truth, drawn) of people never seen: [P, 3, H, W], [P, 8, 3, H, W] twice, in [0, 1]. Each drawn one is
    the middle frame of a silent clip made with the bundle's own defaults."""
    networks, config = store.load(bundle)
    defaults, size = config.defaults, config.defaults.size
    identity = random_identity(torch.Generator().manual_seed(SEED), PEOPLE)
    levels = unit_levels(plans())
    still = Face(identity, torch.zeros(PEOPLE, *levels.shape[1:]), torch.zeros(PEOPLE, 3), torch.zeros(PEOPLE))
    portraits = render(still, size)
    count = PEOPLE * len(levels)
    acting = Face(
        identity.repeat_interleave(len(levels), 0),
        levels.repeat(PEOPLE, 1, 1),
        torch.zeros(count, 3),
        torch.zeros(count),
    )
    truth = render(acting, size).unflatten(0, (PEOPLE, -1))

    empty = conditioning.text_states(networks, "")
    heard = conditioning.speech_features(
        networks.audio_encoder, torch.zeros(CLIP_FRAMES * SAMPLES_PER_FRAME), CLIP_FRAMES
    )
    drawn = []
    for person, pixels in enumerate(portraits):
        latents = conditioning.portrait_latents(networks, pixels.unsqueeze(0) * 2 - 1)
        for plan in plans():
            job = denoise.Job(
                networks=networks,
                config=config,
                schedule=make_schedule(defaults.steps, 2, defaults.split, defaults.blend),
                guidance=denoise.Guidance(defaults.guidance),
                stages=tuple(conditioning.text_states(networks, text) for text in (plan.coarse, plan.fine)),
                negative=conditioning.text_states(networks, think(plan.emotion, INTENSITY).prompts.negative),
                empty=empty,
                portrait=latents,
                reference=denoise.see(networks, latents, empty),
                seed=person,
            )
            clip = denoise.draw_clip(job, window_frames(heard), denoise.first_motion(latents), 0, 1)
            picture = frames.decode(networks.vae, clip[CLIP_FRAMES // 2][None])[0]
            drawn.append(torch.from_numpy(picture).permute(2, 0, 1) / 255)
    return portraits, truth, torch.stack(drawn).unflatten(0, (PEOPLE, -1))


def measure(truth: Tensor, drawn: Tensor) -> dict[str, float]:
    """PSNR (dB) against the truth, and how often the nearest truth of the same person is the one that was asked for."""
    mse = (truth.unsqueeze(1) - drawn.unsqueeze(2)).pow(2).flatten(3).mean(3)  # [P, drawn, truth]
    right = (mse.argmin(2) == torch.arange(truth.shape[1])).float().mean()
    own = torch.diagonal(mse, dim1=1, dim2=2)
    return {"psnr_db": round(float((-10 * own.log10()).mean()), 2), "nearest_truth": round(float(right), 3)}


def write_report(bundle: Path, command: str) -> dict[str, float]:
    """Draw, measure, and write `TINY.md` and `emotions.png` beside `bundle`."""
    portraits, truth, drawn = draw_emotions(bundle)
    rows = [torch.cat([p[None], r]) for p, t, d in zip(portraits, truth, drawn, strict=True) for r in (t, d)]
    contact_sheet(torch.cat(rows), len(EMOTIONS) + 1).save(bundle.parent / "emotions.png", optimize=True)
    scores = measure(truth, drawn)
    (bundle.parent / "TINY.md").write_text(report(store.read_about(bundle), scores, bundle, command), encoding="utf-8")
    return scores


def report(about: dict[str, Any], scores: dict[str, float], bundle: Path, command: str) -> str:
    training = about["training"]
    seconds, recipes = training["seconds"], training["recipes"]
    corpus = recipes["corpus"]
    rows = [f"| draw the corpus | | | | {seconds['draw']} s | |"]
    for part in ("vae", "text", "audio", "stage1", "stage2"):
        r = recipes[part]
        losses = ", ".join(f"{k} {v}" for k, v in training["losses"][part].items())
        rate = f"{r['learning_rate']:g}"
        rows.append(f"| {part} | {r['steps']} | {r['batch']} | {rate} | {seconds[part]} s | {losses} |")
    state = "a **preliminary** run: the model is far from what more training would make of it" if about.get(
        "preliminary"
    ) else "a full run"  # fmt: skip
    table, minutes = "\n".join(rows), sum(seconds.values()) / 60
    return f"""# The bundled model

`{bundle.name}` ({bundle.stat().st_size / 1e6:.1f} MB, fp16) holds all networks of preset `tiny`: VAE, text encoder,
audio encoder and projection, ReferenceNet and denoiser. It comes from {state}. Nothing but the project's own drawings
and its own synthetic voice went into it; no picture or recording of a person.

Command: `{command}`. Seed {recipes["vae"]["seed"]}, torch {training["torch"]}, {minutes:.0f} minutes in all.
Corpus: {corpus["people"]} people with {corpus["expressions"]} expressions each, {corpus["clips"]} clips of 14 frames,
{corpus["pixels"]} pixels; drawn anew by the command (seed {corpus["seed"]}).

| part | steps | batch | learning rate | time | losses at the end (smoothed) |
|---|---|---|---|---|---|
{table}

The VAE alone, on people it never saw: {training["vae_psnr_db"]} dB.

What each sample is told in stages 1 and 2: Algorithm 2's blend 50 %, the fine prompt 20 %, the coarse prompt 15 %, the
bare label 15 % (plans that vary their emotion hear the fine prompt in place of coarse or label alone);
text, reference and audio are dropped together in 10 % of the steps, each alone in 5 %.

## What it draws
Two people it never saw, emotions at "{INTENSITY.lower()}" in the order {", ".join(EMOTIONS)}, silent speech; the first
column is the portrait. Upper row of each pair: the truth (the renderer's drawing of the plan); lower row: the model,
middle frame of a clip, with the bundle's defaults.

![truth and drawn](emotions.png)

Against the truth: {scores["psnr_db"]} dB; the nearest of the eight truths is the one asked for in
{100 * scores["nearest_truth"]:.0f} % of the {PEOPLE * len(EMOTIONS)} pictures. A first look, not a proof.
"""


__all__ = ["draw_emotions", "measure", "write_report"]
