"""Validation pictures while a part is trained, beside its checkpoints: the truth above, what is drawn so far below."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..config import ModelConfig
from ..evaluation.cases import CaseSizes, make_case, people, true_pictures
from ..evaluation.draw import MIDDLE, Studio
from ..evaluation.evaluate import to_bytes, unit_range
from ..facs.emotions import EMOTIONS, INTENSITIES
from ..files import atomic
from ..models.build import Networks
from ..synthetic.chart import contact_sheet
from .kept import writing
from .loop import Run, Validate


def save_sheet(path: Path, pictures: Tensor, columns: int) -> None:
    """`pictures` [n, 3, H, W] in [0, 1]."""
    with writing(path), atomic(path) as partial:
        contact_sheet(pictures, columns).save(partial, optimize=True)


def show_round_trips(run: Run, vae, pictures: Tensor, part: str) -> Validate:
    """`PART-STEP.png`: `pictures` uint8 [n, 3, H, W] of people held out, and what the autoencoder makes of them."""
    truth = pictures.float() / 255

    def validate(step: int) -> None:
        latents = vae.encode((truth * 2 - 1).to(run.device)).latent_dist.mean
        drawn = vae.decode(latents).sample.cpu().clamp(-1, 1) / 2 + 0.5
        save_sheet(run.folder / f"{part}-{step:06d}.png", torch.cat([truth, drawn]), len(truth))

    return validate


def show_emotions(run: Run, networks: Networks, config: ModelConfig, part: str) -> Validate:
    """`PART-STEP.png`: one person nobody was trained with, all emotions at Intense, drawn as the product draws."""
    sizes = CaseSizes(people=1)
    cases = [make_case("emotion", 0, emotion, INTENSITIES[-1]) for emotion in EMOTIONS]
    rest, cast = make_case("rest", 0), people(sizes, seed=1)
    truth = true_pictures(cast, [rest, *cases], config.defaults.size)

    def validate(step: int) -> None:
        studio = Studio(networks, config)
        sitter = studio.seat(truth[0])
        drawn = [studio.round_trip(truth[0]), *(studio.still(sitter, case, seed=0)[MIDDLE] for case in cases)]
        pictures = torch.cat([unit_range(to_bytes(truth)), unit_range(torch.stack(drawn))])
        save_sheet(run.folder / f"{part}-{step:06d}.png", pictures, len(truth))

    return validate
