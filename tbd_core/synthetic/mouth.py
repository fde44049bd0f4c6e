"""Nose, mouth, chin and the folds between them: the action units of the lower face, and speech."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .eyes import Side, flat
from .look import Look, mix
from .shapes import Canvas, between, inside, ramp, stroke


TEETH = (0.975, 0.965, 0.94)
CAVE = (0.30, 0.07, 0.10)
TONGUE = (0.82, 0.38, 0.40)
REST_SMILE = 0.024  # how much higher than its middle a mouth at rest ends


def across(c: Canvas, left: Tensor, right: Tensor) -> Tensor:
    """`left` on the subject's left, `right` on the other side, the smaller one in the middle."""
    least = torch.minimum(left, right)
    return least + (left - least) * ramp(c.x, 0.0, 0.10) + (right - least) * ramp(-c.x, 0.0, 0.10)


@dataclass(frozen=True)
class MouthShape:
    """Curves of the mouth over the canvas, [B, H, W]."""

    u: Tensor  # -1 at the right corner .. 1 at the left corner
    width: Tensor  # half width of the side the pixel is on
    upper: Tensor  # y of the upper edge of the opening
    lower: Tensor
    upper_lip: Tensor  # y of the upper lip's outline
    lower_lip: Tensor
    corners: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]  # (x, y) of the subject's left, right corner
    gap: Tensor  # [B, 1, 1] height of the opening in the middle


def mouth_shape(c: Canvas, who: Look, left: Side, right: Side) -> MouthShape:
    def both(name: str) -> Tensor:
        return across(c, left[name], right[name])

    def centre(name: str) -> Tensor:
        return torch.minimum(left[name], right[name])

    narrow = 0.62 * torch.tanh(centre("narrow") / 0.62)
    widths = [(who.mouth_w + 0.17 * torch.tanh(m["corner_out"] / 0.17)) * (1 - narrow) for m in (left, right)]
    rises = [m["corner_up"] for m in (left, right)]
    base = who.mouth_y - centre("lip_up")
    width = torch.where(c.x >= 0, widths[0], widths[1])
    rise = torch.where(c.x >= 0, rises[0], rises[1])
    u = c.x / width
    a = u.abs().clamp(max=1.3)
    full = 1 - a.square()
    line = (
        base - rise * a.pow(1.7) - REST_SMILE * a.square() + 0.008 * (1 - a) * torch.cos(9 * u) * (1 - centre("pucker"))
    )
    smile = 1 + 7 * torch.minimum(*rises).clamp(min=0)
    up = 0.10 * torch.tanh(both("part_up") / 0.10)
    down = 0.34 * torch.tanh(centre("part_down") * smile / 0.34)
    opening = full * (1 + 0.35 * full * a.square())
    upper = line - up * opening - both("upper_lip") * 0.35 * full
    lower = line + down * opening
    thin = 1 - 0.86 * torch.tanh(both("thin"))
    pout = 1 + 0.55 * both("pout")
    bow = 1 + 0.22 * torch.exp(-((a - 0.27) / 0.17).square()) - 0.22 * torch.exp(-(a / 0.10).square())
    upper_lip = upper - who.lip * 0.82 * thin * pout * bow * full - both("upper_lip") * (0.65 * full + 0.2 * a * full)
    lower_lip = lower + who.lip * 1.32 * thin * pout * full.clamp(min=-1) + both("lower_lip") * full
    corners = ((widths[0], base - rises[0] - REST_SMILE), (-widths[1], base - rises[1] - REST_SMILE))
    return MouthShape(
        u,
        width,
        upper,
        lower,
        upper_lip,
        lower_lip,
        corners,
        torch.tanh(centre("part_up") / 0.10) * 0.10 + down,
    )


def mouth(c: Canvas, who: Look, m: MouthShape, left: Side, right: Side) -> None:
    ends = inside((m.u.abs() - 1) * m.width)
    line = 0.5 * (m.upper + m.lower)
    c.paint(between(m.upper_lip, line, c.y) * ends, who.lip_colour * 0.84)
    c.paint(between(line, m.lower_lip, c.y) * ends, who.lip_colour)
    gloss = c.blob(0.05 * who.light, 0.5 * (m.lower + m.lower_lip) - 0.006, 0.5 * m.width, 0.013)
    c.paint(gloss * between(m.lower, m.lower_lip, c.y) * ends * 0.35, mix(who.lip_colour, 1.0, 0.6))

    hole = between(m.upper, m.lower, c.y) * ends
    c.paint(hole, flat(c, CAVE))
    deep = who.mouth_y + 0.9 * m.gap
    c.paint(
        hole * c.ellipse(0.0, deep + 0.01, m.width * 0.62, 0.45 * m.gap + 0.005) * ramp(m.gap, 0.10, 0.2),
        flat(c, TONGUE),
    )
    low = torch.minimum(left["stretch"], right["stretch"]) + 8 * torch.minimum(left["lower_lip"], right["lower_lip"])
    lower_row = hole * inside(m.lower - 0.05 * low.clamp(0, 1) * (1 - 0.5 * m.u.square()) - c.y)
    c.paint(lower_row * 0.9, flat(c, TEETH) * 0.93)
    row = m.upper + 0.072 * (1 - 0.45 * m.u.square())
    teeth = hole * inside(c.y - row)
    c.paint(teeth, flat(c, TEETH) * (1 - 0.22 * m.u.square())[:, None])
    seams = torch.exp(-((torch.sin(c.x * 52)) / 0.28).square())
    c.paint(teeth * seams * 0.13, flat(c, CAVE))

    open_ = ramp(m.lower - m.upper, 0.0, 0.03)
    reach = inside((m.u.abs() - 1.03) * m.width)
    seam = 0.0085 * (1 - 0.45 * m.u.square().clamp(max=1)) * (1 - 0.45 * open_)
    dark = who.lip_colour * 0.38
    c.paint(stroke(c.y - m.upper, seam, c.pixel) * reach, dark)
    c.paint(stroke(c.y - m.lower, seam * 0.7, c.pixel) * reach * open_ * 0.6, dark)
    for x, y in m.corners:
        c.paint(c.ellipse(x, y, 0.012, 0.010) * 0.8, dark)


def nose(c: Canvas, who: Look, left: Side, right: Side) -> None:
    shade = torch.where(who.light >= 0, -1.0, 1.0)  # the side away from the light
    c.paint(c.blob(shade * 0.075, who.nose_y - 0.13, 0.035, 0.12) * 0.45, who.skin_shade)
    c.paint(c.blob(-shade * 0.012, who.nose_y - 0.17, 0.022, 0.12) * 0.45, who.skin_light)
    c.paint(c.blob(-shade * 0.02, who.nose_y - 0.045, 0.035, 0.03) * 0.65, who.skin_light)
    c.paint(c.blob(0.0, who.nose_y + 0.035, who.nose_w * 0.9, 0.03) * 0.45, who.skin_shade)
    for side, move in ((1.0, left), (-1.0, right)):
        up, wide = move["nose_up"], who.nose_w + 0.5 * move["nose_up"]
        y = who.nose_y - up * ramp(side * c.x, 0.0, 0.06)
        half = c.x * side > 0
        base = stroke(c.y - y - 0.018 * torch.cos(c.x * 26), torch.full_like(c.x, 0.0065), c.pixel)
        c.paint(base * half * inside(c.x.abs() - 0.055) * 0.55, who.crease)
        c.paint(
            c.ellipse(side * 0.052, who.nose_y - up * 0.9 + 0.006, 0.026, 0.0125) * half * 0.85,
            who.crease * 0.72,
        )
        wing = c.curve(
            (side * (wide * 0.86), who.nose_y - up - 0.055), (side * (wide * 1.22), who.nose_y - up - 0.01),
            (side * (wide * 0.72), who.nose_y - up + 0.014), 0.009, steps=5,
        )  # fmt: skip
        c.paint(wing * 0.85, who.crease)
        wrinkle = move["wrinkle"].clamp(0, 1)
        for k, y0 in enumerate((-0.145, -0.095, -0.045)):
            line = c.curve(
                (side * 0.012, y0 + 0.018), (side * 0.05, y0 + 0.012),
                (side * (0.085 + 0.008 * k), y0 - 0.022),
                0.011, steps=3,
            )  # fmt: skip
            c.paint(line * wrinkle * half, who.crease)


def folds(c: Canvas, who: Look, m: MouthShape, left: Side, right: Side) -> None:
    """Lines beside the mouth, one side at a time."""
    for side, move, (x, y) in ((1.0, left, m.corners[0]), (-1.0, right, m.corners[1])):
        x = side * x
        fold, dimple, sad, stretch = (move[n].clamp(0, 1) for n in ("fold", "dimple", "marionette", "stretch"))
        start = (side * (who.nose_w + 0.035), who.nose_y - 0.03 - move["nose_up"])
        bend = (side * (x + 0.03), who.nose_y + 0.05 - move["nose_up"])
        end = (side * (x + 0.065), y - 0.005)
        line = c.curve(start, bend, end, 0.012)
        c.paint(line * fold * 0.85, who.crease)
        c.paint(c.blob(side * (x + 0.055), y - 0.02, 0.05, 0.075) * dimple * 0.55, who.skin_shade)
        line = c.curve((side * (x + 0.03), y - 0.075), (side * (x + 0.085), y), (side * (x + 0.03), y + 0.065), 0.014)
        c.paint(line * dimple, who.crease)
        line = c.curve(
            (side * (x + 0.005), y + 0.01),
            (side * (x + 0.035), y + 0.05),
            (side * (x + 0.03), y + 0.115),
            0.012,
        )
        c.paint(line * sad * 0.9, who.crease)
        for k in (0.045, 0.085):
            line = c.curve(
                (side * (x + k), y - 0.06),
                (side * (x + k + 0.02), y),
                (side * (x + k), y + 0.06),
                0.008,
                steps=4,
            )
            c.paint(line * stretch * 0.75, who.crease)


def lip_lines(c: Canvas, who: Look, m: MouthShape, move: Side, chin: Tensor) -> None:
    """Marks around the middle: pressed (24), tightened (23), puckered (18) lips, the chin boss (17)."""
    top = who.mouth_y - who.lip - 0.03
    low = who.mouth_y + who.lip + 0.03
    press, tight, pucker, boss = (move[n].clamp(0, 1) for n in ("press", "tight", "pucker", "chin"))
    for y, bend in ((top, -0.03), (low, 0.03)):
        line = c.curve((-0.17, y), (0.0, y + bend), (0.17, y), 0.009)
        c.paint(line * press * 0.8, who.crease)
        c.paint(c.blob(0.0, y - 0.8 * bend, 0.15, 0.018) * press * 0.5, who.skin_light)
    for x in (-0.085, -0.03, 0.03, 0.085):
        line = c.curve((x * 0.9, top + 0.01), (x, top - 0.015), (x * 1.2, top - 0.04), 0.008, steps=2)
        line = torch.maximum(
            line, c.curve((x * 0.9, low + 0.01), (x, low + 0.03), (x * 1.2, low + 0.05), 0.008, steps=2)
        )
        c.paint(line * pucker * 0.8, who.crease)
    for side, (x, y) in zip((1.0, -1.0), m.corners, strict=True):
        c.paint(c.blob(x + side * 0.045, y, 0.035, 0.06) * tight * 0.5, who.skin_shade)
        line = c.curve((x + side * 0.025, y - 0.05), (x + side * 0.05, y), (x + side * 0.025, y + 0.05), 0.010, steps=4)
        c.paint(line * tight * 0.9, who.crease)
    c.paint(c.blob(0.0, top + 0.012, 0.16, 0.022) * tight * 0.6, who.skin_light)
    c.paint(c.blob(0.0, low + 0.02, 0.13, 0.028) * tight * 0.6, who.skin_shade)
    y = 0.5 * (m.lower_lip.amax((1, 2), keepdim=True).clamp(max=0.8) + chin) - 0.01
    c.paint(c.blob(0.0, y + 0.03, 0.13, 0.05) * boss * 0.6, who.skin_light)
    arc = c.curve((-0.13, y + 0.035), (0.0, y - 0.075), (0.13, y + 0.035), 0.012)
    c.paint(arc * boss * 0.9, who.crease)
    for dx, dy in ((-0.05, 0.03), (0.05, 0.03), (0.0, 0.015), (-0.02, 0.05), (0.03, 0.055)):
        c.paint(c.ellipse(dx, y + dy, 0.010, 0.008) * boss * 0.7, who.crease)


def neck_cords(c: Canvas, who: Look, left: Side, right: Side) -> None:
    for side, move in ((1.0, left), (-1.0, right)):
        cord = c.curve((side * 0.20, 0.80), (side * 0.17, 0.88), (side * 0.09, 0.99), 0.013, steps=3)
        c.paint(cord * move["neck"].clamp(0, 1) * (c.x * side > 0), who.crease)
