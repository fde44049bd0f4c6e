"""`tbd train`: the whole bundled model, part after part, from nothing but its own drawings and a synthetic voice.

Parts: recordings → audio encoder; drawings → text encoder → VAE → its decoder → readers → stage 1 → stage 2 → one
safetensors. A part
that is finished and whose recipe, sizes and forerunners are the same is taken as it is; a broken one goes on from its
last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import conditioning, likeness
from ..checkpoint import store
from ..config import PRESETS, ModelConfig, tiny
from ..data.corpus import FRAMES, draw_clips, draw_faces, draw_recordings
from ..data.plans import Plan, random_plans
from ..data.recordings import roughen
from ..devices import pick_device
from ..errors import InputError
from ..evaluation.readers import READER_FILE, load_readers, save_readers
from ..files import check_new_file, write_error
from ..locks import alone
from ..models.attention import plain_attention
from ..models.build import Networks, build
from ..speech import normalise, window_frames
from ..synthetic.face import AU_NUMBERS
from ..units import CLIP_FRAMES, MOTION_FRAMES
from . import audio, reader, show, stages, text, vae
from .kept import read_about
from .loop import Loss, Run, fit
from .recipes import Recipes
from .report import PARTS, machine, write_report
from .unet_start import start_with_portrait
from .vae_start import start_with_colours


NEWER = ("reference_in", "reference_out")  # layers of the denoiser that older bundles lack,
LOOK = "second_look_width"  # and the VAE's
UNHEARD = 24  # recordings of voices and sentences never trained with


def train(
    folder: Path, output: Path, recipes: Recipes, device: str = "cpu", config: ModelConfig | None = None,
    start: Path | None = None,
) -> dict:  # fmt: skip
    """Train everything into `output` and the readers beside it; returns the header's `training` entry. With `start` all
    networks begin as that bundle's, and the readers as those beside it. InputError when another run is in `folder`."""
    check_start(start, recipes)
    if start and output.resolve().parent == start.resolve().parent:  # all is written before it is judged
        raise InputError(
            f"output {output} lies beside the bundle that is gone on from, whose readers and account would be lost; "
            "give an --output in another folder, and copy all that is in it once you like it"
        )
    check_folder(folder)
    check_new_file(output, ".safetensors")
    if output.name == READER_FILE.name:
        raise InputError(f"output {output} is the readers' name; give another output")
    with alone(folder / "lock", f"the training folder {folder}"):
        return train_alone(folder, output, recipes, device, config, start)


def check_start(start: Path | None, recipes: Recipes) -> None:
    """InputError when `start` cannot be gone on from, or is missed."""
    if start is None:
        kept = [PARTS[name] for name in PARTS if not getattr(recipes, name).steps]
        if kept:
            raise InputError(
                f"recipe {recipes.name!r} does not train the {', '.join(kept)}; give --from BUNDLE, which has them"
            )
        return
    size = store.read_drawable(start).defaults.size
    if size != recipes.corpus.pixels:
        raise InputError(
            f"{start} draws {size} pixels, recipe {recipes.name!r} draws {recipes.corpus.pixels}; give a bundle of "
            "that size"
        )
    load_readers(start.with_name(READER_FILE.name))  # they are gone on from, too


def train_alone(
    folder: Path, output: Path, recipes: Recipes, device: str, config: ModelConfig | None, start: Path | None
) -> dict:
    run = Run(folder, pick_device(device))
    if start:
        config = store.read_drawable(start)
        if preset := PRESETS.get(config.preset):  # a bundle gets today's newer layers, and is drawn as the preset asks
            newer = {name: getattr(config.unet, name) or getattr(preset().unet, name) for name in NEWER}
            config = replace(
                config,
                unet=replace(config.unet, **newer),
                vae={**config.vae, LOOK: config.vae.get(LOOK) or preset().vae.get(LOOK, 0)},
                defaults=replace(preset().defaults, size=config.defaults.size),
            )
    config = config or replace(tiny(), defaults=replace(tiny().defaults, size=recipes.corpus.pixels))
    torch.manual_seed(recipes.vae.seed)
    attend = plain_attention if run.device.type == "cpu" else None
    networks = build(config, attend=attend)
    if start:
        for name, network in networks.items():
            store.fill(start, name, network, torch.float32, newer=(*NEWER, "second_look"))
    known = start and store.read_drawable(start).unet.reference_out
    start_with_portrait(networks.denoising_unet, config.scheduler, fresh=not known)
    networks = networks.to(run.device, torch.float32)
    # Teachers are made here, so that a run in pieces starts them as an unbroken one does.
    ear = audio.Teacher(config.audio_projection.layers, config.audio_projection.channels).to(run.device)
    teacher = text.Teacher(config.text_encoder["hidden_size"], len(AU_NUMBERS)).to(run.device)
    keys, size = part_keys(recipes, config, start), recipes.corpus
    shards = folder / f"drawn-{keys['draw']}"
    speech = draw_recordings(shards, size.recordings, size.seed)
    unheard = draw_recordings(shards, UNHEARD, size.seed + 1, held_out=True)
    faces, face_plans = draw_faces(shards, size, speech["mouths"])
    clips, clip_plans = draw_clips(shards, size, speech["mouths"])
    drawn = sum(float(part.pop("seconds").sum()) for part in (speech, unheard, faces, clips))

    # The three encoders, each by itself, and who will judge.
    loss = audio.audio_loss(run, networks.audio_encoder, ear, speech, recipes.audio.batch)
    fit(run, "audio", {"encoder": networks.audio_encoder, "teacher": ear}, loss, recipes.audio, keys["audio"])
    if start and not recipes.audio.steps:  # whoever could read the ear was thrown away with its training
        hearing = store.read_about(start)["training"]["hearing"]
    else:
        hearing = audio.audio_score(networks.audio_encoder, ear, unheard)
    more = random_plans(2 * len(face_plans), recipes.text.seed + 77, size.mix)
    loss = text.text_loss(run, networks.text_encoder, teacher, [*face_plans, *more], recipes.text.batch)
    fit(run, "text", {"encoder": networks.text_encoder, "teacher": teacher}, loss, recipes.text, keys["text"])
    if not start:
        start_with_colours(networks.vae, config.vae["norm_num_groups"])
    latents, encoded = train_autoencoder(run, networks.vae, recipes, keys, faces)
    unseen = slice(reader.split_people(size.people)[1].start, None)
    decibels = [vae.psnr(run, networks.vae, faces[kind][unseen].flatten(0, -4)) for kind in ("faces", "portraits")]
    first = load_readers(start.with_name(READER_FILE.name)) if start else None
    readers = reader.train_reader(run, faces, face_plans, recipes.readers, keys["readers"], first)
    for module in (networks.audio_encoder, networks.text_encoder, networks.vae):
        module.requires_grad_(False)

    # The two stages.
    scale = config.vae["scaling_factor"] if start else 1 / float(latents["faces"].float().std())
    networks.vae.register_to_config(scaling_factor=scale)
    config = replace(config, vae={**config.vae, "scaling_factor": scale})
    train_stages(run, networks, config, recipes, keys, speech["sounds"], latents, faces, face_plans, clips, clip_plans)

    known, signs = portraits_known(start, recipes, latents["portraits"].float() * scale, decibels[1])
    parts = {name: read_about(folder / f"{name}.safetensors") for name in PARTS}
    about = {
        "name": "tbd-tiny",
        "training": {
            "recipes": {name: value for name, value in asdict(recipes).items() if name != "judged"},
            "vae_psnr_db": round(float(decibels[0].mean()), 2),
            **signs,
            "hearing": {name: round(value, 3) for name, value in hearing.items()},
            "readers": readers.about["errors"],
            "seconds": {
                "draw": round(drawn),
                "encode": round(encoded),
                **{k: round(v["seconds"]) for k, v in parts.items()},
            },
            "losses": {k: {n: float(f"{x:.4g}") for n, x in v["losses"].items()} for k, v in parts.items()},
            "torch": torch.__version__,
            "machine": machine(),
            **({"from": store.read_about(start)["training"]} if start else {}),
        },
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    save_readers(output.with_name(READER_FILE.name), readers)
    besides = {f"{likeness.PREFIX}.{name}": value for name, value in known.items()}
    store.save(output, networks, config, about, torch.float16, besides)
    command = f"tbd train --recipe {recipes.name} --seed {recipes.vae.seed}"
    if start:
        command += f" --from {start.name}"
    return {**about, "scores": write_report(output, command, recipes.judged)}


def portraits_known(
    start: Path | None, recipes: Recipes, portraits: Tensor, decibels: Tensor
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What `generate` asks before it warns of a portrait (likeness.py): tensors, and numbers for the header. Of
    `portraits` [people, 4, h, w] at model scale, and `decibels`, what the autoencoder keeps of those held out; where it
    stays, what it was trained on stays too."""
    if start and not (recipes.vae.steps or recipes.decoder.steps):
        before = store.read_about(start)["training"]
        return store.read(start, likeness.PREFIX), {n: before[n] for n in likeness.SIGNS if n in before}
    known = likeness.learn(portraits[: reader.split_people(len(portraits))[0].stop])
    most = likeness.distance(portraits, **known).quantile(likeness.COMMON)
    least, best = decibels.aminmax()
    found = round(float(least), 2), round(float(best), 2), round(float(most), 3)
    return known, dict(zip(likeness.SIGNS, found, strict=True))


def train_autoencoder(
    run: Run, vae_net, recipes: Recipes, keys: dict[str, str], faces: dict[str, Tensor]
) -> tuple[dict[str, Tensor], float]:
    """Train the autoencoder, then its decoder and second look. Returns the latents of `portraits` and `faces`, and the
    seconds it took to encode them."""
    known, unseen = (slice(part.start, part.stop) for part in reader.split_people(len(faces["faces"])))
    portraits, learnt = faces["portraits"][known], faces["faces"][known]
    seen = faces["faces"][unseen].flatten(0, 1)[::4][:8]
    loss = vae.vae_loss(run, vae_net, portraits, learnt, recipes.vae.batch)
    shown = show.show_round_trips(run, vae_net, seen, "vae")
    fit(run, "vae", {"vae": vae_net}, loss, recipes.vae, keys["vae"], validate=shown)

    def of_decoder() -> Loss:
        first = vae.encode(run, vae_net, learnt, first=True)
        return vae.decoder_loss(run, vae_net, first, portraits, learnt, recipes.decoder.batch)

    names = ("decoder", "post_quant_conv", "second_look")
    outwards = {name: module for name in names if (module := getattr(vae_net, name)) is not None}
    shown = show.show_round_trips(run, vae_net, seen, "decoder")
    fit(run, "decoder", outwards, lazily(of_decoder), recipes.decoder, keys["decoder"], validate=shown)
    began = time.monotonic()
    latents = {name: vae.encode(run, vae_net, faces[name]) for name in ("portraits", "faces")}
    return latents, time.monotonic() - began


def train_stages(
    run: Run, networks: Networks, config: ModelConfig, recipes: Recipes, keys: dict[str, str], sounds: Tensor,
    latents: dict[str, Tensor], faces: dict[str, Tensor], face_plans: list[Plan], clips: dict[str, Tensor],
    clip_plans: list[Plan],
) -> None:  # fmt: skip
    """Train ReferenceNet and the denoiser; the encoders stay as they are. `latents` are those of `portraits` and
    `faces`."""
    portraits, targets = latents["portraits"], latents["faces"]
    scale = config.vae["scaling_factor"]

    @cache
    def heard() -> Tensor:
        return recording_windows(networks, sounds, recipes.corpus.seed, config.audio_chunk)

    # Stage 1: frames.
    nets = stages.Guided(networks.reference_unet, networks.denoising_unet, networks.audioproj)

    def of_frames() -> Loss:
        known = slice(reader.split_people(len(targets))[0].stop)
        which, when = faces["heard"].unbind(2)
        texts = all_texts(run, networks, face_plans[: known.stop * targets.shape[1]])
        return stages.stage1_loss(
            run, config, nets, portraits[known] * scale, targets[known] * scale, faces["blink"][known],
            heard()[which, when][known], texts, recipes.stage1.batch,
        )  # fmt: skip

    guided = {"reference": nets.reference, "denoiser": nets.denoiser, "audioproj": nets.projection}
    shown = show.show_emotions(run, networks, config, "stage1")
    fit(run, "stage1", guided, lazily(of_frames), recipes.stage1, keys["stage1"], of_stage1, shown)

    # Stage 2: clips. As in the paper only audio and motion learn.
    nets.reference.requires_grad_(False)

    def of_clips() -> Loss:
        windows = clip_windows(heard(), clips["heard"])
        still, moving = (vae.encode(run, networks.vae, clips[name]) * scale for name in ("portraits", "frames"))
        texts = all_texts(run, networks, clip_plans)
        return stages.stage2_loss(run, config, nets, still, moving, windows, texts, recipes.stage2.batch)

    moving = {"denoiser": nets.denoiser, "audioproj": nets.projection}
    shown = show.show_emotions(run, networks, config, "stage2")
    fit(run, "stage2", moving, lazily(of_clips), recipes.stage2, keys["stage2"], of_stage2, shown)


def lazily(make: Callable[[], Loss]) -> Loss:
    """The loss that `make` prepares, prepared when it is first asked for: of a finished part never."""
    made = cache(make)

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):  # a resumed run prepares at another step
            ready = made()
        return ready(generator)

    return loss


def check_folder(folder: Path) -> None:
    """Make `folder`; InputError now rather than after an hour when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise write_error(folder, error) from error


def part_keys(recipes: Recipes, config: ModelConfig, start: Path | None = None) -> dict[str, str]:
    """What each part depends on, as a short hash: its recipe and sizes, the keys of the parts before it, and the bundle
    that everything starts from."""

    def key(*depends: Any) -> str:
        return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:12]

    recipe = {name: getattr(recipes, name).decides() for name in PARTS}
    keys = {"draw": key(asdict(recipes.corpus))}
    first = [keys["draw"], hashlib.sha256(start.read_bytes()).hexdigest()] if start else keys["draw"]
    keys["audio"] = key(first, recipe["audio"], config.audio_encoder)
    keys["text"] = key(first, recipe["text"], config.text_encoder)
    keys["vae"] = key(first, recipe["vae"], config.vae)
    keys["decoder"] = key(keys["vae"], recipe["decoder"])
    keys["readers"] = key(first, recipe["readers"])
    unet, scheduler = asdict(config.unet), asdict(config.scheduler)
    ears = keys["audio"], asdict(config.audio_projection)
    keys["stage1"] = key(keys["decoder"], keys["text"], ears, recipe["stage1"], unet, scheduler, config.defaults.split)
    keys["stage2"] = key(keys["stage1"], recipe["stage2"])
    return keys


def of_stage1(name: str) -> bool:
    """All but what relates the frames of a clip, and what is known without training (`unet_start`)."""
    return "motion_modules" not in name and not name.startswith("reference_out.")


def of_stage2(name: str) -> bool:
    """Audio modules, motion modules and the audio projection (proj1 .. proj3, norm)."""
    return "audio_modules" in name or "motion_modules" in name or name.startswith(("proj", "norm."))


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


def clip_windows(heard: Tensor, places: Tensor) -> Tensor:
    """What each clip hears, [n, CLIP_FRAMES, ...] of `heard` [recordings, FRAMES, ...]; `places` [n, 2]: the recording
    and the frame of it where the motion frames begin."""
    which, when = places.unsqueeze(2).unbind(1)
    return heard[which, when + MOTION_FRAMES + torch.arange(CLIP_FRAMES)]


def recording_windows(networks: Networks, sounds: Tensor, seed: int, chunk: int | None) -> Tensor:
    """`sounds` [n, T], each in some room and through some microphone → what every frame of them hears, half [n, FRAMES,
    window, L, C]. A recording is heard as at inference (`chunk`: ModelConfig.audio_chunk)."""
    rough = roughen(sounds.float(), torch.Generator().manual_seed(seed))
    hear = partial(conditioning.speech_features, networks.audio_encoder, chunk=chunk)
    heard = (hear(normalise(sound), FRAMES) for sound in rough)
    return torch.stack([window_frames(features).half() for features in heard])
