"""The drawn corpus, rendered once and kept as bytes: single faces for stage 1 and the VAE, talking clips for stage 2.

Written shard by shard under its final name only when whole, so that a broken run goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from ..files import atomic
from ..synthetic.clip import mouth_from_sound, talking_clip
from ..synthetic.face import Face, random_identity
from ..synthetic.portrait import render
from ..synthetic.speech import babble
from ..units import CLIP_FRAMES, MOTION_FRAMES, SAMPLES_PER_FRAME
from .plans import Plan, random_plans, unit_levels


SPEAKING = 0.5  # share of single faces with an open mouth
BLINKING = 0.04  # share of single faces in mid-blink
CLIPS_PER_RECORDING = 16


@dataclass(frozen=True)
class CorpusSize:
    """How much is drawn: people, expressions of each, talking clips, and the picture's side in pixels."""

    people: int
    expressions: int
    clips: int
    pixels: int
    seed: int = 1


def to_bytes(pictures: torch.Tensor) -> torch.Tensor:
    return (pictures * 255).round().to(torch.uint8)


def _shards(folder: Path, kind: str, count: int, size: int, make) -> dict[str, torch.Tensor]:
    """Make what is missing of `count` items in shards of `size`, and join all."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, count, size)
    for start in tqdm(starts, desc=f"draw {kind}"):
        path = folder / f"{kind}-{start:06d}.pt"
        if not path.exists():
            made = make(start, min(size, count - start))
            with atomic(path) as partial:
                torch.save(made, partial)
    parts = [torch.load(folder / f"{kind}-{start:06d}.pt", weights_only=True) for start in starts]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def draw_faces(folder: Path, size: CorpusSize) -> tuple[dict[str, torch.Tensor], list[Plan]]:
    """`portraits` uint8 [people, 3, H, W] (at rest), `faces` uint8 [people, expressions, 3, H, W], and a plan for
    every face in order."""
    plans = random_plans(size.people * size.expressions, size.seed)

    def make(start: int, count: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(size.seed * 1_000_003 + start)
        per = size.expressions
        identity = random_identity(generator, count)
        rest = torch.zeros(count, *unit_levels(plans[:1]).shape[1:])
        still = Face(identity, rest, torch.zeros(count, 3), torch.zeros(count))
        units = unit_levels(plans[start * per : (start + count) * per])
        speaking = (torch.rand(count * per, 1, generator=generator) < SPEAKING).float()
        mouth = torch.rand(count * per, 3, generator=generator) * speaking
        mouth[:, 1:] *= torch.rand(count * per, 2, generator=generator).round()  # rounded, spread, or neither
        blink = (torch.rand(count * per, generator=generator) < BLINKING).float()
        acting = Face(identity.repeat_interleave(per, dim=0), units, mouth, blink)
        faces = to_bytes(render(acting, size.pixels)).unflatten(0, (count, per))
        return {"portraits": to_bytes(render(still, size.pixels)), "faces": faces}

    return _shards(folder, "faces", size.people, 64, make), plans


def draw_clips(folder: Path, size: CorpusSize) -> tuple[dict[str, torch.Tensor], list[Plan]]:
    """`portraits` [n, 3, H, W], `frames` uint8 [n, M + F, 3, H, W], `sound` [n, T] over the same frames plus two on
    each side (what audio windows see), and a plan for each clip."""
    plans = random_plans(size.clips, size.seed + 1)
    frames, margin = MOTION_FRAMES + CLIP_FRAMES, 2

    def make(start: int, count: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(size.seed * 1_000_033 + start)
        identity = random_identity(generator, count)
        units = unit_levels(plans[start : start + count])
        out: dict[str, list[torch.Tensor]] = {"portraits": [], "frames": [], "sound": []}
        total = frames + 2 * margin
        recording = babble(generator, count * total * SAMPLES_PER_FRAME / 16_000 + 1)
        curves = mouth_from_sound(recording, len(recording) // SAMPLES_PER_FRAME)
        for i in range(count):
            first = i * total
            sound = recording[first * SAMPLES_PER_FRAME : (first + total) * SAMPLES_PER_FRAME]
            mouth = curves[first + margin : first + margin + frames]
            face = talking_clip(identity[i : i + 1], units[i : i + 1], mouth, generator)
            still = Face(identity[i : i + 1], torch.zeros_like(units[:1]), torch.zeros(1, 3), torch.zeros(1))
            out["portraits"].append(to_bytes(render(still, size.pixels)))
            out["frames"].append(to_bytes(render(face, size.pixels)).unsqueeze(0))
            out["sound"].append(sound.half().unsqueeze(0))
        return {key: torch.cat(value) for key, value in out.items()}

    return _shards(folder, "clips", size.clips, CLIPS_PER_RECORDING, make), plans
