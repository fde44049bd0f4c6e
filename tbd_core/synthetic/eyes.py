"""Eyes and brows, one side at a time: action units 1, 2, 4, 5, 6, 7, 43 and the blink."""

from __future__ import annotations

import torch
from torch import Tensor

from .look import Look, mix
from .shapes import Canvas, inside, ramp, stroke


Side = dict[str, Tensor]  # the controls of one side, [B, 1, 1]
WHITE = (0.965, 0.96, 0.95)
DARK = (0.13, 0.08, 0.08)
GAZE_X, GAZE_Y = 0.062, 0.040  # how far the iris moves at gaze 1, picture units


def flat(c: Canvas, rgb: tuple[float, float, float]) -> Tensor:
    return c.image.new_tensor(rgb)[None, :, None, None]


def eye(c: Canvas, who: Look, side: float, move: Side, gaze: Tensor) -> None:
    """`side` +1 for the subject's left eye (right in the picture), -1 for the right one; `gaze` [B, 2]."""
    x = side * c.x - who.eye_x  # outward
    u = x / who.eye_w
    arch = (1 - u.abs().clamp(max=1.4).pow(2.2)) - 0.10 * u * (1 - u.square())
    middle = who.eye_y - who.eye_tilt * u
    closed = move["closed"].clamp(0, 1)
    raised = 1 + move["upper_lid"].clamp(-0.6, 0.6)
    lifted = 0.85 * torch.tanh(move["lower_lid"] / 0.85)
    shut = middle + 0.42 * who.eye_h * arch
    upper = mix(middle - who.eye_h * raised * arch, shut, closed)
    lower = mix(middle + 0.66 * who.eye_h * (1 - 1.25 * lifted) * arch, shut, closed)
    ends = inside((u.abs() - 1) * who.eye_w)

    c.paint(c.blob(side * who.eye_x, who.eye_y - 0.06, 0.25, 0.15) * 0.30 * (side * c.x > 0), who.skin_shade)
    lid = inside(middle - who.eye_h * 1.22 * arch - c.y) * inside(c.y - lower) * ends
    c.paint(lid * (0.35 + 0.35 * closed), mix(who.skin_shade, who.crease, 0.25))
    opening = (inside(upper - c.y) + inside(c.y - lower) - 1).clamp(min=0) * ends
    eyeball(c, who, side, opening, upper, gaze)

    outward = ramp(u, -1.0, 0.9)
    flick = 0.008 * who.traits["lashes"] * (1 - who.mannish)
    line = (0.010 + (0.012 + flick) * outward) * (1 - 0.6 * ramp(u.abs(), 0.92, 1.12))
    reach = inside((u.abs() - 1.06) * who.eye_w)
    c.paint(stroke(c.y - upper, line, c.pixel) * reach, flat(c, DARK))
    tense = move["lid_tense"].clamp(0, 1)
    rim = 0.0045 + 0.003 * outward + 0.005 * tense
    c.paint(stroke(c.y - lower, rim, c.pixel) * ends * (0.55 + 0.45 * tense), who.crease)
    fold = middle - who.eye_h * (1.34 + 0.10 * move["upper_lid"]) * arch - 0.008
    fold_alpha = inside((u.abs() - 0.86) * who.eye_w) * (0.75 - 0.5 * move["upper_lid"].clamp(min=0))
    c.paint(stroke(c.y - fold, 0.006 * torch.ones_like(line), c.pixel) * fold_alpha.clamp(0, 1), who.crease)
    lashes(c, who, side, closed, raised)


def eyeball(c: Canvas, who: Look, side: float, opening: Tensor, upper: Tensor, gaze: Tensor) -> None:
    c.paint(opening, flat(c, WHITE))
    to_left, up = gaze[:, :, None, None].unbind(1)
    radius, y = 0.086 + 0.3 * (who.eye_h - 0.108), who.eye_y - 0.020 - GAZE_Y * up
    x = side * (who.eye_x - 0.006) + GAZE_X * to_left
    c.paint(opening * c.ellipse(x, y, radius, radius), who.iris * 0.45)
    inner = c.ellipse(x, y, radius * 0.84, radius * 0.84)
    glow = ramp(c.y, y - radius * 0.6, y + radius)
    c.paint(opening * inner, mix(who.iris, (who.iris * 1.35 + 0.08).clamp(max=1), glow[:, None]))
    c.paint(opening * c.ellipse(x, y, radius * 0.45, radius * 0.45), flat(c, (0.05, 0.04, 0.05)))
    shadow = 1 - ramp(c.y - upper, 0.0, 0.055)
    c.paint(opening * shadow * 0.42, flat(c, (0.30, 0.22, 0.26)))
    gleam = 0.030 * torch.where(who.light >= 0, 1.0, -1.0)
    c.paint(opening * c.ellipse(x + gleam, y - 0.030, 0.023, 0.023), torch.ones_like(who.iris))


def lashes(c: Canvas, who: Look, side: float, closed: Tensor, raised: Tensor) -> None:
    """A flick at the outer corner, on faces that have it."""
    amount = ramp(who.traits["lashes"], 0.35, 0.8) * (1 - who.mannish)
    lift = 0.045 * raised * (1 - 1.6 * closed)
    x, y = who.eye_x + who.eye_w * 0.86, who.eye_y - who.eye_tilt - 0.02 * (1 - closed) + 0.02 * closed
    c.line(
        (side * x, y), (side * (x + 0.03), y), (side * (x + 0.065), y - lift), 0.011, amount,
        flat(c, DARK).expand(len(amount), -1, -1, -1),
    )  # fmt: skip


def eye_lines(c: Canvas, who: Look, side: float, move: Side) -> None:
    """What 6 and 7 leave around the eye: a tense lid, a pushed-up cheek, crow's feet."""
    cheek, crow, tense = (move[name].clamp(0, 1) for name in ("cheek", "crow", "lid_tense"))
    x, y, w = who.eye_x, who.eye_y, who.eye_w
    c.spot((side * x, y + 0.075), (0.13, 0.035), tense * 0.55, who.skin_shade, side)
    c.line(
        (side * (x - w * 0.8), y + 0.075), (side * x, y + 0.135), (side * (x + w * 0.9), y + 0.055),
        0.013, tense * 0.9, who.crease, side,
    )  # fmt: skip
    c.spot((side * (x + 0.03), y + 0.25 - 0.05 * cheek), (0.125, 0.085), cheek * 0.85, who.blush, side)
    c.spot((side * (x + 0.03), y + 0.21 - 0.04 * cheek), (0.10, 0.04), cheek * 0.5, who.skin_light, side)
    c.line(
        (side * (x - w * 0.9), y + 0.115), (side * (x + 0.02), y + 0.195), (side * (x + w * 1.05), y + 0.085),
        0.014, crow * 0.8, who.crease, side,
    )  # fmt: skip
    for lift in (-0.05, 0.0, 0.05):
        start = (side * (x + w + 0.030), y + 0.4 * lift + 0.005)
        bend = (side * (x + w + 0.065), y + 0.7 * lift + 0.005)
        end = (side * (x + w + 0.115), y + 1.6 * lift + 0.01)
        c.line(start, bend, end, 0.011, crow * 0.95, who.crease, side)


def brow(c: Canvas, who: Look, side: float, move: Side) -> None:
    inner_x = who.eye_x - 0.150 - move["brow_in"]
    outer_x = who.eye_x + 0.205
    p = (side * c.x - inner_x) / (outer_x - inner_x)
    straight = who.brow_straight
    inner = who.brow_y + 0.018 - 0.014 * straight - move["brow_inner"]
    middle = who.brow_y - who.brow_arch * (1 - 0.55 * straight) - move["brow_middle"]
    outer = who.brow_y + 0.035 - 0.030 * straight - move["brow_outer"]
    bend = 2 * middle - 0.5 * (inner + outer)
    q = p.clamp(-0.2, 1.2)
    centre = inner * (1 - q).square() + bend * 2 * q * (1 - q) + outer * q.square()
    thin_end = 0.72 - 0.30 * straight
    thick = who.brow_half * ramp(p, -0.10, 0.12) * (1 - thin_end * ramp(p, 0.40, 1.05))
    ends = ramp(p, -0.07, -0.01) * (1 - ramp(p, 1.01, 1.06))
    c.paint(stroke(c.y - centre, thick, c.pixel) * ends, who.brow_colour)


def forehead(c: Canvas, who: Look, side: float, move: Side) -> None:
    """Lines that raised (1, 2) and drawn (4) brows leave."""
    inner, outer, frown = (move[name].clamp(0, 1) for name in ("forehead_inner", "forehead_outer", "frown"))
    for y, reach in ((-0.465, 0.16), (-0.405, 0.19)):
        y = y - 0.02 * inner
        c.line((0.0, y), (side * reach * 0.6, y - 0.01), (side * reach, y + 0.02), 0.011, inner * 0.8, who.crease, side)
    for y in (-0.49, -0.445):
        y = y - 0.02 * outer
        c.line(
            (side * 0.17, y + 0.025), (side * 0.30, y - 0.03), (side * 0.42, y + 0.045), 0.010, outer * 0.75,
            who.crease, side,
        )  # fmt: skip
    y = who.brow_y + 0.03
    c.spot((side * 0.045, y + 0.01), (0.05, 0.07), frown * 0.55, who.skin_shade, side)
    c.line(
        (side * 0.045, y - 0.065), (side * 0.030, y), (side * 0.055, y + 0.080), 0.014, frown, who.crease, side
    )  # fmt: skip
