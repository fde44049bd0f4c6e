"""`tbd train`: the whole bundled model, part after part, from nothing but its own drawings and its own voice.

Parts: draw → VAE → text encoder → audio encoder → stage 1 → stage 2 → one safetensors. A part that is finished and
whose recipe, sizes and forerunners are the same is taken as it is; a broken one goes on from its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import conditioning
from ..checkpoint import store
from ..config import ModelConfig, tiny
from ..data.corpus import CLIPS_PER_RECORDING, CorpusSize, draw_clips, draw_faces
from ..data.plans import Plan, random_plans
from ..devices import pick_device
from ..files import write_error
from ..models.build import Networks, build
from ..speech import normalise, window_frames
from ..units import AUDIO_WINDOW, CLIP_FRAMES, MOTION_FRAMES
from . import audio, stages, text, vae
from .loop import Recipe, Run, fit, read_about
from .report import write_report
from .vae_start import start_with_colours


HELD_OUT = 24  # people whose pictures the VAE is measured on and never trained with


@dataclass(frozen=True)
class Recipes:
    """One line for each part; together with the seed they determine the model."""

    name: str
    corpus: CorpusSize
    vae: Recipe
    text: Recipe
    audio: Recipe
    stage1: Recipe
    stage2: Recipe
    recordings: int = 256
    preliminary: bool = True


def preliminary(seed: int = 0) -> Recipes:
    """What two CPU cores do in an hour."""
    return Recipes(
        name="preliminary",
        corpus=CorpusSize(people=1600, expressions=5, clips=480, pixels=128),
        vae=Recipe(steps=2200, batch=4, learning_rate=1.2e-3, seed=seed),
        text=Recipe(steps=800, batch=48, learning_rate=1.5e-3, seed=seed),
        audio=Recipe(steps=350, batch=8, learning_rate=1.5e-3, seed=seed),
        stage1=Recipe(steps=1000, batch=16, learning_rate=8e-4, seed=seed),
        stage2=Recipe(steps=170, batch=2, learning_rate=8e-4, seed=seed),
    )


def smoke(seed: int = 0) -> Recipes:
    """Every part for a few steps: proves the path, teaches nothing."""
    quick = Recipe(steps=2, batch=2, learning_rate=1e-3, warmup=1, save_every=1, seed=seed)
    size = CorpusSize(people=HELD_OUT + 8, expressions=2, clips=4, pixels=64)
    return Recipes("smoke", size, quick, quick, quick, quick, quick, recordings=2)


RECIPES = {"preliminary": preliminary, "smoke": smoke}


def train(folder: Path, output: Path, recipes: Recipes, device: str = "cpu", config: ModelConfig | None = None) -> dict:
    """Train everything into `output`; returns the header's `training` entry."""
    check_folder(folder)
    check_folder(output.parent)
    run = Run(folder, pick_device(device))
    config = config or replace(tiny(), defaults=replace(tiny().defaults, size=recipes.corpus.pixels))
    torch.manual_seed(recipes.vae.seed)
    networks = build(config).to(run.device, torch.float32)
    began = time.monotonic()

    # What is drawn.
    keys = part_keys(recipes, config)
    shards = folder / f"drawn-{keys['draw']}"
    faces, face_plans = draw_faces(shards, recipes.corpus)
    clips, clip_plans = draw_clips(shards, recipes.corpus)
    drawn = time.monotonic() - began

    # The three encoders, each by itself.
    start_with_colours(networks.vae, config.vae["norm_num_groups"])
    known = faces["faces"][HELD_OUT:].flatten(0, 1)
    fit(
        run,
        "vae",
        {"vae": networks.vae},
        vae.vae_loss(run, networks.vae, known, recipes.vae.batch),
        recipes.vae,
        keys["vae"],
    )
    decibel = vae.psnr(run, networks.vae, faces["faces"][:HELD_OUT].flatten(0, 1)[:48])
    units = text.unit_levels(face_plans[:1]).shape[1]
    teacher = text.Teacher(config.text_encoder["hidden_size"], units).to(run.device)
    more = random_plans(2 * len(face_plans), recipes.text.seed + 77)
    loss = text.text_loss(run, networks.text_encoder, teacher, [*face_plans, *more], recipes.text.batch)
    fit(run, "text", {"encoder": networks.text_encoder, "teacher": teacher}, loss, recipes.text, keys["text"])
    ear = audio.Teacher(config.audio_projection.layers, config.audio_projection.channels).to(run.device)
    batch, seed = recipes.audio.batch, recipes.audio.seed
    loss = audio.audio_loss(run, networks.audio_encoder, ear, recipes.recordings, batch, seed)
    fit(run, "audio", {"encoder": networks.audio_encoder, "teacher": ear}, loss, recipes.audio, keys["audio"])
    for module in (networks.vae, networks.text_encoder, networks.audio_encoder):
        module.requires_grad_(False)

    # Latents with a spread of one, as SD's.
    portraits = vae.encode(run, networks.vae, faces["portraits"])
    targets = vae.encode(run, networks.vae, faces["faces"].flatten(0, 1))
    scale = 1 / float(targets.float().std())
    networks.vae.register_to_config(scaling_factor=scale)
    config = replace(config, vae={**config.vae, "scaling_factor": scale})

    # Stage 1: frames.
    targets = (targets * scale).unflatten(0, (len(portraits), -1))
    loss = stages.stage1_loss(
        run, config, networks.reference_unet, networks.denoising_unet, portraits * scale, targets,
        all_texts(run, networks, face_plans), recipes.stage1.batch,
    )  # fmt: skip
    guide = {"reference": networks.reference_unet, "denoiser": networks.denoising_unet}
    fit(run, "stage1", guide, loss, recipes.stage1, keys["stage1"], lambda key: not of_stage2(key))

    # Stage 2: clips. As in the paper only audio and motion learn.
    networks.reference_unet.requires_grad_(False)
    portraits = vae.encode(run, networks.vae, clips["portraits"]) * scale
    frames = (vae.encode(run, networks.vae, clips["frames"].flatten(0, 1)) * scale).unflatten(0, (len(portraits), -1))
    loss = stages.stage2_loss(
        run, config, networks.reference_unet, networks.denoising_unet, networks.audioproj, portraits, frames,
        clip_windows(networks, clips["sound"]), all_texts(run, networks, clip_plans), recipes.stage2.batch,
    )  # fmt: skip
    moving = {"denoiser": networks.denoising_unet, "audioproj": networks.audioproj}
    fit(run, "stage2", moving, loss, recipes.stage2, keys["stage2"], of_stage2)

    parts = {name: read_about(folder / f"{name}.safetensors") for name in ("vae", "text", "audio", "stage1", "stage2")}
    about = {
        "name": "tbd-tiny",
        "preliminary": recipes.preliminary,
        "training": {
            "recipes": asdict(recipes),
            "vae_psnr_db": round(decibel, 2),
            "seconds": {"draw": round(drawn), **{k: round(v["seconds"]) for k, v in parts.items()}},
            "losses": {k: {n: float(f"{x:.4g}") for n, x in v["losses"].items()} for k, v in parts.items()},
            "torch": torch.__version__,
        },
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    store.save(output, networks, config, about, torch.float16)
    scores = write_report(output, f"tbd train --recipe {recipes.name} --seed {recipes.vae.seed}")
    return {**about, "scores": scores}


def check_folder(folder: Path) -> None:
    """Make `folder`; InputError now rather than after an hour when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise write_error(folder, error) from error


def part_keys(recipes: Recipes, config: ModelConfig) -> dict[str, str]:
    """What each part depends on, as a short hash: its recipe and sizes, and the keys of the parts before it."""

    def key(*depends: Any) -> str:
        return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:12]

    keys = {"draw": key(asdict(recipes.corpus))}
    keys["vae"] = key(keys["draw"], asdict(recipes.vae), config.vae)
    keys["text"] = key(keys["draw"], asdict(recipes.text), config.text_encoder)
    keys["audio"] = key(asdict(recipes.audio), recipes.recordings, config.audio_encoder)
    unet, scheduler = asdict(config.unet), asdict(config.scheduler)
    keys["stage1"] = key(keys["vae"], keys["text"], asdict(recipes.stage1), unet, scheduler, config.defaults.split)
    keys["stage2"] = key(keys["stage1"], keys["audio"], asdict(recipes.stage2), asdict(config.audio_projection))
    return keys


def of_stage2(key: str) -> bool:
    """Audio modules, motion modules and the audio projection (proj1 .. proj3, norm)."""
    return "audio_modules" in key or "motion_modules" in key or key.startswith(("proj", "norm."))


def all_texts(run: Run, networks: Networks, plans: list[Plan]) -> stages.Texts:
    """Frozen text states of all plans' prompts."""

    def states(words: list[str]) -> Tensor:
        return text.embed_texts(run, networks.text_encoder, words)

    return stages.Texts(
        coarse=states([p.coarse for p in plans]),
        fine=states([p.fine for p in plans]),
        label=states([p.label for p in plans]),
        empty=states([""]),
        pure=torch.tensor([p.pure for p in plans]),
    )


def clip_windows(networks: Networks, sound: Tensor) -> Tensor:
    """`sound` [n, T], consecutive pieces of recordings of `CLIPS_PER_RECORDING` → windows [n, F, window, L, C]. The
    recording is heard whole, as at inference, then cut."""
    frames, out = 2 * (AUDIO_WINDOW // 2) + MOTION_FRAMES + CLIP_FRAMES, []
    for pieces in sound.float().split(CLIPS_PER_RECORDING):
        heard = conditioning.speech_features(networks.audio_encoder, normalise(pieces.flatten()), len(pieces) * frames)
        for features in heard.unflatten(0, (len(pieces), frames)):
            first = AUDIO_WINDOW // 2 + MOTION_FRAMES
            out.append(window_frames(features)[first : first + CLIP_FRAMES].half())
    return torch.stack(out)
