"""Drawn portraits whose action units, mouth and pose are known exactly, because they are drawn from them.

Everything is ours: no picture of any person is in here. Layers go on back to front (`render_chunk`);
`face` says what each action unit does, `look` who it is, `shapes` how edges are antialiased.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import eyes, head, mouth
from .face import (
    AU_NUMBERS,
    IDENTITY,
    MOUTH,
    NUM_IDENTITY,
    SIDED_UNITS,
    Face,
    controls,
    neutral_face,
    random_identity,
)
from .look import look
from .shapes import Canvas


__all__ = [
    "AU_NUMBERS", "IDENTITY", "MOUTH", "NUM_IDENTITY", "SIDED_UNITS", "Face", "neutral_face",
    "random_identity", "render",
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
    chin = who.chin_y + 0.16 * torch.tanh(left["jaw"] / 0.16) - 0.025 * left["chin"]

    page = Canvas.blank(len(face), size, face.identity.device)
    turn, nod, tilt = face.pose.float().expand(len(face), 3)[:, :, None, None].unbind(1)
    whole = page.moved(SHIFT * turn, SHIFT * nod, TILT * tilt, pivot_y=0.8)
    front = page.moved((SHIFT + PARALLAX) * turn, (SHIFT + PARALLAX) * nod, TILT * tilt, pivot_y=0.8)
    reach = 0.2 if bool(face.pose.any()) else 0.0  # windows grow to hold a head that moved

    def window(canvas: Canvas, x0: float, x1: float, y0: float, y1: float) -> Canvas:
        return canvas.window(x0 - reach, x1 + reach, y0 - reach, y1 + reach)

    head.backdrop(page, who)
    head.hair_behind(whole, who)
    head.body(window(page, -1, 1, 0.4, 1), who)
    mouth.neck_cords(window(whole, -0.4, 0.4, 0.7, 1), who, left, right)
    skin = head.head(whole, who, chin)
    if bool(who.beard.any()):
        head.beard(whole, who, skin)
    mouth.nose(window(front, -0.25, 0.25, -0.25, 0.36), who, left, right)
    halves = ((1.0, left, (0.0, 0.66)), (-1.0, right, (-0.66, 0.0)))
    for side, move, edges in halves:
        eyes.forehead(window(front, *edges, -0.58, -0.06), who, side, move)
        eyes.eye_lines(window(front, *edges, -0.16, 0.34), who, side, move)
    head.hair_front(whole, who)
    for side, move, edges in halves:  # over the fringe: eyes and brows are always seen
        eyes.eye(window(front, *edges, -0.34, 0.2), who, side, move)
        eyes.brow(window(front, *edges, -0.58, -0.06), who, side, move)
    lips = window(front, -0.6, 0.6, 0.1, 1)
    shape = mouth.mouth_shape(lips, who, left, right)
    mouth.lip_lines(lips, who, shape, left, chin)
    mouth.folds(lips, who, shape, left, right)
    mouth.mouth(lips, who, shape, left, right)
    if bool(who.glasses.any()):
        head.glasses(window(front, -0.7, 0.7, -0.25, 0.2), who)
    return page.image.clamp_(0, 1)
