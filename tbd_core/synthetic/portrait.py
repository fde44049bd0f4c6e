"""Drawn portraits whose action units, mouth and pose are known exactly, because they are drawn from them.

Everything is ours: no picture of any person is in here. Layers go on back to front (`render_chunk`);
`face` says what each action unit does, `look` who it is, `shapes` how edges are antialiased.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import eyes, hair, head, mouth, scene
from .face import (
    AU_NUMBERS,
    IDENTITY,
    MOUTH,
    NUM_IDENTITY,
    SIDED_UNITS,
    Face,
    controls,
    neutral_face,
    random_gaze,
    random_identity,
    random_pose,
)
from .look import look
from .shapes import Canvas


__all__ = [
    "AU_NUMBERS", "IDENTITY", "MOUTH", "NUM_IDENTITY", "SIDED_UNITS", "Face", "neutral_face",
    "random_gaze", "random_identity", "random_pose", "render",
]  # fmt: skip

CHUNK_PIXELS = 16 * 128 * 128  # drawn at once: about 60 MB of intermediate maps
TILT = 0.12  # radians at pose 1
SHIFT = 0.05  # picture units at pose 1
PARALLAX = 0.03  # how much further the features travel than the head


@torch.no_grad()
def render(face: Face, size: int) -> Tensor:
    """Draw B faces, [B, 3, size, size] in [0, 1]. Memory does not grow with B beyond the result."""
    step = max(1, CHUNK_PIXELS // (size * size))
    parts = [render_chunk(face[slice(i, i + step)], size) for i in range(0, len(face), step)]
    return torch.cat(parts) if parts else torch.zeros(0, 3, size, size)


def render_chunk(face: Face, size: int) -> Tensor:
    who, moves = look(face.identity), controls(face)
    left = {name: pair[0] for name, pair in moves.items()}
    right = {name: pair[1] for name, pair in moves.items()}
    drop = 0.16 * torch.tanh(left["jaw"] / 0.16)

    page = Canvas.blank(len(face), size, face.identity.device)
    whole = front = page
    if bool(face.pose.any()):
        turn, nod, tilt = face.pose.float().expand(len(face), 3)[:, :, None, None].unbind(1)
        whole = page.moved(SHIFT * turn, SHIFT * nod, TILT * tilt, pivot_y=0.8)
        front = page.moved((SHIFT + PARALLAX) * turn, (SHIFT + PARALLAX) * nod, TILT * tilt, pivot_y=0.8)
    gaze = face.gaze.float().expand(len(face), 2)

    scene.backdrop(page, who)
    hair.hair_behind(whole, who)
    scene.body(page.window(-1, 1, 0.4, 1), who)
    mouth.neck_cords(whole, who, left, right)
    skin = head.head(whole, who, drop)
    if bool(who.beard.any()):
        head.beard(whole, who, skin, drop)
    scene.hood(page, who)
    head.marks(front, who)
    mouth.nose(front.window(-0.25, 0.25, -0.25, 0.36), who, left, right)
    halves = ((1.0, left, (0.0, 0.66)), (-1.0, right, (-0.66, 0.0)))
    for side, move, _ in halves:
        eyes.forehead(front, who, side, move)
        eyes.eye_lines(front, who, side, move)
    hair.hair_front(whole.window(-1, 1, -1, 0.4), who)
    for side, move, edges in halves:  # over the fringe: eyes and brows are always seen
        eyes.eye(front.window(*edges, -0.34, 0.2), who, side, move, gaze)
        eyes.brow(front.window(*edges, -0.58, -0.06), who, side, move)
    lips = front.window(-0.6, 0.6, 0.1, 1)
    shape = mouth.mouth_shape(lips, who, left, right)
    mouth.lip_lines(lips, who, shape, left, right, drop)
    mouth.folds(lips, who, shape, left, right)
    mouth.mouth(lips, who, shape, left, right)
    if bool(who.glasses.any()):
        head.glasses(front.window(-0.7, 0.7, -0.25, 0.2), who)
    scene.light_and_noise(page, who)
    return page.image.clamp_(0, 1)
