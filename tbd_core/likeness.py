"""Does a portrait look like those a bundle was trained on? Three signs (ours): how much of it the autoencoder keeps,
held against the worst and the best of the portraits held out from its training, and how far its latents lie from
theirs, held against 99 in 100 of all. They find detail that the bundle cannot draw, what is simpler than any face, and
what is as simple but no such face.

A bundle says what to expect: `SIGNS` under `training` in its header, and the tensors `portraits.mean` and
`portraits.precision` of `learn`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d


PREFIX = "portraits"  # of the tensors in a bundle
SIGNS = ("vae_psnr_least_db", "vae_psnr_most_db", "portrait_distance_most")  # in the header
COMMON = 0.99  # of all portraits lie no farther: the farthest of a few are a matter of luck
CELLS = 4  # a side of the grid over which latents are averaged
RIDGE = 1e-3  # of the spread, for directions that hardly vary
# Beyond these, because others may be a little worse: dB below or above, times as far.
SLACK_DB, SLACK = 1.5, 1.1


def coarse(latents: Tensor) -> Tensor:
    """[n, C, h, w] → [n, C·CELLS²]"""
    return adaptive_avg_pool2d(latents.float(), CELLS).flatten(1)


def learn(latents: Tensor) -> dict[str, Tensor]:
    """`latents` of many portraits [n, C, h, w], at model scale → `mean` [D] and `precision` [D, D] of their grids."""
    cells = coarse(latents)
    spread = torch.cov(cells.T) + RIDGE * cells.var() * torch.eye(cells.shape[1])
    return {"mean": cells.mean(0), "precision": torch.linalg.inv(spread).contiguous()}


def distance(latents: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """Mahalanobis distance over √D of each of `latents` [n, C, h, w]: [n], about 1 for portraits like those learnt."""
    away = coarse(latents) - mean
    return ((away @ precision * away).sum(1) / len(mean)).sqrt()


@torch.inference_mode()
def unlike_training(about: dict[str, Any], bundle: Path, vae: Any, latents: Tensor, pixels: Tensor) -> str | None:
    """What to tell the user about a portrait, `latents` [1, C, h, w] at model scale and `pixels` [1, 3, H, W] in
    [-1, 1], that looks like none the bundle was trained on; None when it does, or when its header (`about`) does not
    say what to expect. `vae`: the bundle's, diffusers' AutoencoderKL."""
    from . import frames
    from .checkpoint import store

    training = about.get("training", {})
    least, best, most = (training.get(name) for name in SIGNS)
    if least is None or most is None:
        return None
    reasons = []
    decibel = frames.kept(vae, latents, pixels)
    if decibel < least - SLACK_DB:
        reasons.append(f"its autoencoder keeps {decibel:.1f} dB of it, of drawn faces at least {least:.1f} dB")
    if best is not None and decibel > best + SLACK_DB:
        reasons.append(f"its autoencoder keeps {decibel:.1f} dB of it, of drawn faces {best:.1f} dB at most")
    known = store.read(bundle, PREFIX)
    far = float(distance(latents.cpu(), known["mean"], known["precision"]))
    if far > SLACK * most:
        # Bundles without `best` tell of the farthest.
        faces = "drawn faces" if best is None else f"{COMMON:.0%} of drawn faces"
        reasons.append(f"its latents lie {far:.1f} away from theirs, those of {faces} {most:.1f} at most")
    if not reasons:
        return None
    return (
        f"looks unlike the drawn faces that {about.get('name', bundle.stem)} was trained on: {'; '.join(reasons)}; "
        "expect a poor likeness, or take a model trained for such pictures"
    )
