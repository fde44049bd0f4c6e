"""Nose, mouth, chin and the folds between them: the action units of the lower face, and speech."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .eyes import Side, flat
from .look import Look, mix
from .shapes import Canvas, across, between, inside, ramp, stroke


TEETH = (0.975, 0.965, 0.94)
CAVE = (0.30, 0.07, 0.10)
TONGUE = (0.82, 0.38, 0.40)
PEBBLES = ((-0.06, 0.03), (0.06, 0.03), (-0.03, 0.065), (0.03, 0.065), (-0.09, 0.06), (0.09, 0.06))  # on the chin
REST_SMILE = 0.024  # how much higher than its middle a mouth at rest ends


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
    gap: Tensor  # height of the opening
    drop: Tensor  # [B, 1, 1] how far the lower lip is below its rest in the middle


def mouth_shape(c: Canvas, who: Look, left: Side, right: Side) -> MouthShape:
    """The curves of a mouth whose two halves move by themselves and meet in the middle."""

    def both(name: str) -> Tensor:
        return across(c.x, left[name], right[name])

    def half_width(m: Side) -> Tensor:
        narrow = 0.62 * torch.tanh(m["narrow"] / 0.62)
        return (who.mouth_w + 0.17 * torch.tanh(m["corner_out"] / 0.17)) * (1 - narrow)

    widths = [half_width(m) for m in (left, right)]
    rises = [m["corner_up"] for m in (left, right)]
    bases = [who.mouth_y - m["lip_up"] for m in (left, right)]
    width = torch.where(c.x >= 0, widths[0], widths[1])
    rise = torch.where(c.x >= 0, rises[0], rises[1])
    u = c.x / width
    a = u.abs().clamp(max=1.3)
    full = 1 - a.square()
    calm = 1 - torch.maximum(both("pucker"), both("press")).clamp(0, 1)
    rest = REST_SMILE * (1 - 0.8 * both("press").clamp(0, 1))
    line = who.mouth_y - both("lip_up") - rise * a.pow(1.7) - rest * a.square()
    line = line + 0.008 * (1 - a) * torch.cos(9 * u) * calm
    smile = 1 + 7 * torch.minimum(*rises).clamp(min=0)
    up = 0.10 * torch.tanh(both("part_up") / 0.10)
    down = 0.34 * torch.tanh(both("part_down") * smile / 0.34)
    square = both("lower_teeth").clamp(0, 1)
    opening = full * (1 + 0.35 * full * a.square())
    upper = line - up * opening - both("upper_lip") * 0.35 * full
    lower = line + down * (opening + 0.45 * square * full * a.square())
    thin = 1 - 0.86 * torch.tanh(both("thin"))
    pout = 1 + 0.55 * both("pout")
    bow = 1 + who.bow * (torch.exp(-((a - 0.27) / 0.17).square()) - torch.exp(-(a / 0.10).square()))
    heights = who.lip * thin * pout
    upper_lip = upper - heights * who.upper_share * bow * full - both("upper_lip") * (0.65 * full + 0.2 * a * full)
    lower_lip = lower + heights * 1.32 * full.clamp(min=-1) + both("lower_lip") * full
    ys = [
        base - up_ - REST_SMILE * (1 - 0.8 * m["press"].clamp(0, 1))
        for base, up_, m in zip(bases, rises, (left, right), strict=True)
    ]
    corners = ((widths[0], ys[0]), (-widths[1], ys[1]))
    gap = (lower - upper).clamp(min=0)
    middle = torch.minimum(left["part_down"], right["part_down"]) * smile
    return MouthShape(u, width, upper, lower, upper_lip, lower_lip, corners, gap, 0.34 * torch.tanh(middle / 0.34))


def mouth(c: Canvas, who: Look, m: MouthShape, left: Side, right: Side) -> None:
    ends = inside((m.u.abs() - 1) * m.width)
    line = 0.5 * (m.upper + m.lower)
    c.paint(between(m.upper_lip, line, c.y) * ends, who.lip_colour * 0.84)
    c.paint(between(line, m.lower_lip, c.y) * ends, who.lip_colour)
    gloss = c.blob(0.05 * who.light, 0.5 * (m.lower + m.lower_lip) - 0.006, 0.5 * m.width, 0.013)
    c.paint(gloss * between(m.lower, m.lower_lip, c.y) * ends * 0.35, mix(who.lip_colour, 1.0, 0.6))

    hole = between(m.upper, m.lower, c.y) * ends
    c.paint(hole, flat(c, CAVE))
    tongue = c.ellipse(0.0, who.mouth_y + m.drop, m.width * 0.62, 0.42 * m.drop + 0.005)
    c.paint(hole * tongue * ramp(m.drop, 0.07, 0.15), flat(c, TONGUE))
    bend = 1 - 0.45 * m.u.square()
    inward = across(c.x, left["funnel"], right["funnel"]).clamp(0, 1)
    low = across(c.x, left["stretch"] + 2 * left["lower_teeth"], right["stretch"] + 2 * right["lower_teeth"])
    share = torch.minimum(0.05 + 0.02 * low, 0.8 * m.gap)
    lower_row = hole * inside(m.lower - share * low.clamp(0, 1) * bend - c.y)
    c.paint(lower_row * 0.9, flat(c, TEETH) * 0.93)
    bared = across(c.x, left["upper_lip"], right["upper_lip"]) * 12
    row = m.upper + torch.minimum(torch.full_like(m.gap, 0.075), (0.58 + 0.4 * bared.clamp(0, 1)) * m.gap) * bend
    teeth = hole * inside(c.y - row) * (1 - 0.85 * inward)
    c.paint(teeth, flat(c, TEETH) * (1 - 0.22 * m.u.square())[:, None])

    open_ = ramp(m.lower - m.upper, 0.0, 0.03)
    reach = inside((m.u.abs() - 1.03) * m.width)
    press = across(c.x, left["press"], right["press"]).clamp(0, 1)
    seam = 0.0085 * (1 - 0.45 * m.u.square().clamp(max=1)) * (1 - 0.45 * open_) * (1 + 0.9 * press)
    dark = who.lip_colour * 0.38
    c.paint(stroke(c.y - m.upper, seam, c.pixel) * reach, dark)
    c.paint(stroke(c.y - m.lower, seam * 0.7, c.pixel) * reach * open_ * 0.6, dark)
    for x, y in m.corners:
        c.dot((x, y), (0.012, 0.010), 0.8 * torch.ones_like(who.age), dark)


def nose(c: Canvas, who: Look, left: Side, right: Side) -> None:
    shade = torch.where(who.light >= 0, -1.0, 1.0)  # the side away from the light
    y, always = who.nose_y, torch.ones_like(who.age)
    c.spot((shade * 0.075, y - 0.13), (0.035, 0.12), 0.42 * who.bridge, who.skin_shade)
    c.spot((-shade * 0.012, y - 0.17), (0.022, 0.12), 0.42 * who.bridge, who.skin_light)
    c.spot((-shade * 0.02, y - 0.045), (0.035 * who.tip, 0.03 * who.tip), 0.65 * always, who.skin_light)
    c.spot((0.0, y + 0.035), (who.nose_w * 0.9, 0.03), 0.45 * always, who.skin_shade)
    for side, move in ((1.0, left), (-1.0, right)):
        up, wide = move["nose_up"], who.nose_w + 0.5 * move["nose_up"]
        height = y - up * ramp(side * c.x, 0.0, 0.06)
        base = stroke(c.y - height - 0.018 * torch.cos(c.x * 26), torch.full_like(c.x, 0.0065), c.pixel)
        c.paint(base * (c.x * side > 0) * inside(c.x.abs() - 0.055) * 0.55, who.crease)
        c.dot((side * 0.052, y - up * 0.9 + 0.006), (0.026, 0.0125), 0.85 * always, who.crease * 0.72, side)
        c.line(
            (side * (wide * 0.86), y - up - 0.055 * who.tip), (side * (wide * 1.22), y - up - 0.01),
            (side * (wide * 0.72), y - up + 0.014), 0.009, 0.85 * always, who.crease, side,
        )  # fmt: skip
        wrinkle = move["wrinkle"].clamp(0, 1)
        c.spot((side * 0.055, -0.08), (0.06, 0.09), wrinkle * 0.55, who.skin_shade, side)
        for k, y0 in enumerate((-0.145, -0.090, -0.035)):
            c.line(
                (side * 0.010, y0 + 0.018), (side * 0.05, y0 + 0.012), (side * (0.090 + 0.010 * k), y0 - 0.024),
                0.014, wrinkle, who.crease, side,
            )  # fmt: skip


def folds(c: Canvas, who: Look, m: MouthShape, left: Side, right: Side) -> None:
    """Lines beside the mouth, one side at a time."""
    for side, move, (x, y) in ((1.0, left, m.corners[0]), (-1.0, right, m.corners[1])):
        x = side * x
        fold, dimple, sad, stretch = (move[n].clamp(0, 1) for n in ("fold", "dimple", "marionette", "stretch"))
        start = (side * (who.nose_w + 0.035), who.nose_y - 0.03 - move["nose_up"])
        bend = (side * (x + 0.03), who.nose_y + 0.05 - move["nose_up"])
        c.line(start, bend, (side * (x + 0.065), y - 0.005), 0.014, fold * 0.85, who.crease, side)
        c.spot((side * (x + 0.07), y - 0.015), (0.06, 0.085), dimple * 0.8, who.skin_shade, side)
        c.line(
            (side * (x + 0.02), y - 0.085), (side * (x + 0.095), y), (side * (x + 0.02), y + 0.075),
            0.020, dimple, who.crease, side,
        )  # fmt: skip
        c.spot((side * (x + 0.045), y + 0.06), (0.045, 0.07), sad * 0.5, who.skin_shade, side)
        c.line(
            (side * (x + 0.005), y + 0.01), (side * (x + 0.045), y + 0.05), (side * (x + 0.035), y + 0.125),
            0.015, sad * 0.9, who.crease, side,
        )  # fmt: skip
        c.spot((side * (x + 0.055), y), (0.035, 0.075), stretch * 0.6, who.skin_shade, side)
        c.line(
            (side * (x + 0.045), y - 0.07), (side * (x + 0.075), y), (side * (x + 0.045), y + 0.07),
            0.012, stretch * 0.75, who.crease, side,
        )  # fmt: skip


def lip_lines(c: Canvas, who: Look, m: MouthShape, left: Side, right: Side, drop: Tensor) -> None:
    """Marks around the lips: pressed (24), tightened (23), puckered (18), pulled down (16), the chin boss (17)."""
    top, low = who.mouth_y - who.lip - 0.02, who.mouth_y + who.lip + 0.035

    def sides(name: str, strength: float) -> tuple[Tensor, Tensor]:
        return strength * left[name].clamp(0, 1), strength * right[name].clamp(0, 1)

    for y, out in ((top, -0.035), (low, 0.035)):
        c.spot((0.0, y - 0.3 * out), (0.17, 0.026), sides("press", 0.75), who.skin_light)
        c.spot((0.0, y + 0.7 * out), (0.19, 0.020), sides("press", 0.6), who.skin_shade)
        c.line((-0.19, y), (0.0, y + out), (0.19, y), 0.011, sides("press", 0.5), who.crease)
    for x in (-0.09, -0.035, 0.035, 0.09):
        c.line((x * 0.9, top), (x, top - 0.02), (x * 1.3, top - 0.06), 0.011, sides("pucker", 0.6), who.crease)
        c.line((x * 0.9, low + 0.02), (x, low + 0.04), (x * 1.3, low + 0.08), 0.011, sides("pucker", 0.6), who.crease)
    for side, move, (x, y) in ((1.0, left, m.corners[0]), (-1.0, right, m.corners[1])):
        tight = move["tight"].clamp(0, 1)
        c.spot((x + side * 0.05, y), (0.045, 0.075), tight * 0.75, who.skin_shade, side)
        c.line(
            (x + side * 0.030, y - 0.075), (x + side * 0.005, y), (x + side * 0.030, y + 0.075),
            0.016, tight * 0.95, who.crease, side,
        )  # fmt: skip
    c.spot((0.0, top), (0.13, 0.026), sides("tight", 0.55), who.skin_light)
    c.spot((0.0, low + 0.02), (0.12, 0.03), sides("tight", 0.6), who.skin_shade)
    c.line(
        (-0.15, low + 0.095), (0.0, low + 0.13), (0.15, low + 0.095), 0.014, sides("lower_teeth", 0.7), who.crease
    )  # fmt: skip
    y = who.chin_y + drop - 0.135
    c.spot((0.0, y + 0.035), (0.14, 0.06), sides("chin", 0.65), who.skin_light)
    c.line((-0.15, y + 0.045), (0.0, y - 0.085), (0.15, y + 0.045), 0.016, sides("chin", 0.95), who.crease)
    for dx, dy in PEBBLES:
        c.dot((dx, y + dy), (0.014, 0.011), sides("chin", 0.5), who.crease)


def neck_cords(c: Canvas, who: Look, left: Side, right: Side) -> None:
    for side, move in ((1.0, left), (-1.0, right)):
        alpha = move["neck"].clamp(0, 1)
        c.line((side * 0.20, 0.80), (side * 0.17, 0.88), (side * 0.09, 0.99), 0.014, alpha, who.crease, side)
