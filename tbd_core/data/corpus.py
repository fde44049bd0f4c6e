"""The corpus, made once and kept: recordings, single faces for the VAE, the readers and stage 1, talking clips for
stage 2. Every open mouth is one that a recording opens, so that it can be heard as well as seen.

Written shard by shard under its final name only when whole, so that a broken run goes on where it was.
"""

from __future__ import annotations

import io
import pickle
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError
from ..files import atomic, write_error
from ..synthetic.clip import mouth_from_sound, talking_clip
from ..synthetic.face import Face, random_gaze, random_identity, random_pose
from ..synthetic.portrait import render
from ..units import AUDIO_WINDOW, CLIP_FRAMES, FPS, MOTION_FRAMES
from .plans import Mix, Plan, random_plans, unit_levels
from .recordings import check_voices, recording


BLINKING = 0.04  # share of single faces in mid-blink
QUIET = 0.3  # share of single faces at moments that shut the mouth, beside those the lot falls on (a quarter)
SHUT = 0.02  # of opening, rounding and spread; below it the mouth is shut
SECONDS = 8  # of one recording: its loudness is that of the whole, as at inference
FRAMES = SECONDS * FPS
MARGIN = AUDIO_WINDOW // 2  # frames at each end of a recording that no face stands at: their windows would be cut


@dataclass(frozen=True)
class CorpusSize:
    """How much is drawn: recordings, people, expressions of each, talking clips, the picture's side in pixels, which
    plans."""

    recordings: int
    people: int
    expressions: int
    clips: int
    pixels: int
    seed: int = 1
    mix: Mix = Mix()


def to_bytes(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().to(torch.uint8)


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return torch.load(path, weights_only=True)
    except (OSError, EOFError, LookupError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path} ({path.stat().st_size} bytes) cannot be used; delete it, and it is drawn anew"
        ) from error


def _shards(folder: Path, kind: str, count: int, size: int, make) -> dict[str, Tensor]:
    """Make what is missing of `count` items in shards of `size`, and join all; `seconds` [shards] is what it cost."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{kind}-*.part-*"):  # of a killed run
        left.unlink(missing_ok=True)
    starts = range(0, count, size)
    for start in tqdm(starts, desc=f"draw {kind}"):
        path = folder / f"{kind}-{start:06d}.pt"
        if not path.exists():
            began = time.monotonic()
            made = make(start, min(size, count - start))
            held = io.BytesIO()  # torch's own file writer does not say why the disk took nothing
            torch.save({**made, "seconds": torch.tensor([time.monotonic() - began])}, held)
            try:
                with atomic(path) as partial:
                    partial.write_bytes(held.getbuffer())
            except OSError as error:
                raise write_error(path, error) from error
    parts = [_load(folder / f"{kind}-{start:06d}.pt") for start in starts]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def draw_recordings(folder: Path, count: int, seed: int, held_out: bool = False) -> dict[str, Tensor]:
    """`sounds` half [count, T], clean, and `mouths` [count, FRAMES, 3], what they make of a mouth."""

    def make(start: int, number: int) -> dict[str, Tensor]:
        check_voices()
        generator = torch.Generator().manual_seed(seed * 1_000_037 + start)
        sounds = torch.stack([recording(generator, SECONDS, held_out) for _ in range(number)])
        mouths = torch.stack([mouth_from_sound(sound, FRAMES) for sound in sounds])
        return {"sounds": sounds.half(), "mouths": mouths}

    return _shards(folder, "recordings-held-out" if held_out else "recordings", count, 50, make)


def draw_faces(folder: Path, size: CorpusSize, mouths: Tensor) -> tuple[dict[str, Tensor], list[Plan]]:
    """Pictures and labels of people, and a plan for every face in order.

    `portraits` uint8 [people, 3, H, W] (at rest), `faces` uint8 [people, expressions, 3, H, W]; a person's pictures
    share pose and gaze, so that the portrait tells them. `identity` [people, NUM_IDENTITY], `mouth` [people,
    expressions, 3], `blink` [people, expressions]: see `Face`. `heard` [people, expressions, 2]: the recording and the
    frame of it whose mouth (of `mouths` [recordings, FRAMES, 3]) a face has. What a unit does to the lips shows best on
    a mouth that is shut, so more are than speech would have (`QUIET`).
    """
    plans = random_plans(size.people * size.expressions, size.seed, size.mix)
    shut = shut_moments(mouths)

    def make(start: int, count: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(size.seed * 1_000_003 + start)
        per = size.expressions
        identity = random_identity(generator, count)
        pose, gaze = random_pose(generator, count), random_gaze(generator, count)
        rest = torch.zeros(count, *unit_levels(plans[:1]).shape[1:])
        still = Face(identity, rest, torch.zeros(count, 3), torch.zeros(count), pose, gaze)
        units = unit_levels(plans[start * per : (start + count) * per])
        which = torch.randint(len(mouths), (count * per,), generator=generator)
        when = torch.randint(MARGIN, FRAMES - MARGIN, (count * per,), generator=generator)
        quiet = torch.rand(count * per, generator=generator) < QUIET
        if len(shut):
            chosen = shut[torch.randint(len(shut), (count * per,), generator=generator)]
            which, when = torch.where(quiet.unsqueeze(1), chosen, torch.stack([which, when], dim=1)).T
        blink = (torch.rand(count * per, generator=generator) < BLINKING).float()
        same = [person.repeat_interleave(per, dim=0) for person in (identity, pose, gaze)]
        acting = Face(same[0], units, mouths[which, when], blink, same[1], same[2])
        return {
            "portraits": to_bytes(render(still, size.pixels)),
            "faces": to_bytes(render(acting, size.pixels)).unflatten(0, (count, per)),
            "identity": identity,
            "mouth": acting.mouth.unflatten(0, (count, per)),
            "blink": blink.unflatten(0, (count, per)),
            "heard": torch.stack([which, when], dim=1).unflatten(0, (count, per)),
        }

    return _shards(folder, "faces", size.people, 64, make), plans


def shut_moments(mouths: Tensor) -> Tensor:
    """[n, 2]: recording and frame of every moment of `mouths` [recordings, FRAMES, 3] that shuts the mouth and may have
    a face."""
    inside = mouths[:, MARGIN : FRAMES - MARGIN]
    return (inside.amax(2) < SHUT).nonzero() + torch.tensor([0, MARGIN])


def draw_clips(folder: Path, size: CorpusSize, mouths: Tensor) -> tuple[dict[str, Tensor], list[Plan]]:
    """`portraits` [n, 3, H, W], `frames` uint8 [n, M + F, 3, H, W] that speak, `identity` [n, NUM_IDENTITY], `heard`
    [n, 2] the recording and the frame of it where the motion frames begin, and a plan for each clip. The portrait's
    pose and gaze are held through the clip."""
    plans = random_plans(size.clips, size.seed + 1, size.mix)
    frames = MOTION_FRAMES + CLIP_FRAMES

    def make(start: int, count: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(size.seed * 1_000_033 + start)
        identity = random_identity(generator, count)
        pose, gaze = random_pose(generator, count), random_gaze(generator, count)
        units = unit_levels(plans[start : start + count])
        which = torch.randint(len(mouths), (count,), generator=generator)
        when = torch.randint(MARGIN, FRAMES - MARGIN - frames, (count,), generator=generator)
        still = Face(identity, torch.zeros_like(units), torch.zeros(count, 3), torch.zeros(count), pose, gaze)
        drawn = []
        for i in range(count):
            mouth = mouths[which[i], when[i] : when[i] + frames]
            face = talking_clip(identity[i : i + 1], units[i : i + 1], mouth, generator, pose=pose[i], gaze=gaze[i])
            drawn.append(to_bytes(render(face, size.pixels)))
        return {
            "portraits": to_bytes(render(still, size.pixels)),
            "frames": torch.stack(drawn),
            "identity": identity,
            "heard": torch.stack([which, when], dim=1),
        }

    return _shards(folder, "clips", size.clips, 16, make), plans
