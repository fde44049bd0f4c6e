"""A fresh bundle → `TINY.md` and a picture beside it: what it cost, what it was told, and how it scores.

The scores are the evaluation's (`tbd evaluate`); a proof writes them anew (`evaluation/account.py`).
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..checkpoint import store
from ..evaluation.account import ACCOUNT, UNMEASURED, write_scores
from ..evaluation.cases import CaseSizes
from ..evaluation.evaluate import EvaluateOptions, evaluate, prepare
from ..evaluation.proof import draw_emotions
from ..files import atomic
from .kept import writing
from .objective import BLEND, COARSE, DROP_ALL, DROP_ONE, FINE, LABEL


PARTS = {
    "audio": "audio encoder", "text": "text encoder", "vae": "VAE", "decoder": "its decoder",
    "readers": "readers", "stage1": "stage 1", "stage2": "stage 2",
}  # fmt: skip


MADE = {"draw": "recordings and drawings", "encode": "latents of the drawings"}


def machine() -> str:
    """The class of this machine, without its name."""
    import torch

    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.machine()}, {cores}{', AVX-512 bf16' if bf16 else ''}, {gpu}"


def write_report(bundle: Path, command: str, sizes: CaseSizes) -> dict[str, Any] | None:
    """Write `TINY.md` beside `bundle`; with people in `sizes` evaluate it, and return what `evaluate --json` prints."""
    words = bundle.with_name(ACCOUNT)
    with writing(words), atomic(words) as partial:
        partial.write_text(report(store.read_about(bundle), bundle, command), encoding="utf-8")
    if not sizes.people:
        return None
    setup = prepare(EvaluateOptions(model=bundle), sizes, bundle.with_name("reader.safetensors"))
    with tqdm(desc="evaluate", unit="clip") as bar:

        def on_clip(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        made = evaluate(setup, on_clip)
    write_scores(bundle, {**made.result, "on_true_renders": made.ceiling.values}, command, draw_emotions(made))
    return made.result


def report(about: dict[str, Any], bundle: Path, command: str) -> str:
    """The account, its scores not yet measured."""
    training = about["training"]
    hearing, errors = training["hearing"], training["readers"]
    earlier, before = "", training.get("from")
    while before:  # newest first
        earlier += f"\n\nIt went on from a bundle that was trained before.\n\n{account(before)}"
        before = before.get("from")
    return f"""# The bundled model

`{bundle.name}` ({bundle.stat().st_size / 1e6:.1f} MB, fp16) holds all networks of preset `tiny`: VAE, text encoder,
audio encoder and projection, ReferenceNet and denoiser. `reader.safetensors` holds the nets that judge it. Nothing but
the project's own drawings and a synthetic voice (espeak-ng, and the project's own babble) went into them; no picture
and no recording of a person.

Command: `{command}`.

{account(training)}{earlier}

What each sample is told in stages 1 and 2: Algorithm 2's blend {BLEND:.0%}, the fine prompt {FINE:.0%}, the coarse
prompt {COARSE:.0%}, the bare label {LABEL:.0%} (plans that vary their emotion hear the fine prompt in place of coarse
or label alone); text, reference and audio are dropped together in {DROP_ALL:.0%} of the steps, each alone in
{DROP_ONE:.0%}.

Alone, on people and voices never trained with: the VAE gives pictures back with {training["vae_psnr_db"]} dB; the audio
encoder's reading of the mouth opening follows the sound's own with r = {hearing["opening_r"]} (roughened sound
{hearing["rough_opening_r"]}); the readers err by {errors["au_rms_mean"]:.2f} levels (of 5) in an action unit.

{UNMEASURED}"""


def account(training: dict[str, Any]) -> str:
    """What one training took: of which seed, on what, from which drawings, part by part."""
    seconds, recipes = training["seconds"], training["recipes"]
    corpus = recipes["corpus"]
    mix = corpus.get("mix")
    kinds = ""
    if mix:
        kinds = (
            f" Of the plans {mix['single']:.0%} are one unit alone and {mix['pure']:.0%} exactly an emotion's, the "
            f"rest vary one; {mix['one_sided']:.0%} of the units with sides that are drawn by lot act on one."
        )
    rows = [f"| {title} | | | | {minutes(seconds[part])} | |" for part, title in MADE.items()]
    for part, title in PARTS.items():
        recipe = recipes[part]
        losses = ", ".join(f"{name} {value}" for name, value in training["losses"][part].items())
        rate = f"{recipe['learning_rate']:g}"
        rows.append(
            f"| {title} | {recipe['steps']} | {recipe['batch']} | {rate} | {minutes(seconds[part])} | {losses} |"
            if recipe["steps"]
            else f"| {title} | kept | | | | |"
        )
    return f"""Seed {recipes["vae"]["seed"]}, torch {training["torch"]}, {minutes(sum(seconds.values()))} of training in
all, on {training["machine"]}. Drawn by the same command (seed {corpus["seed"]}): {corpus["recordings"]} recordings of
8 s; {corpus["people"]} people with {corpus["expressions"]} expressions each; {corpus["clips"]} clips of 14 frames;
{corpus["pixels"]} pixels.{kinds}

| part | steps | batch | learning rate | time | losses at the end (smoothed) |
|---|---|---|---|---|---|
{chr(10).join(rows)}"""


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


__all__ = ["machine", "report", "write_report"]
