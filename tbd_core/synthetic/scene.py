"""Behind and below the face: the backdrop, neck and clothes, the light's tint and the picture's faint noise."""

from __future__ import annotations

import torch

from .look import Look, mix
from .shapes import Canvas, between, inside, ramp


LIGHTS = ((-0.72, -0.55, 0.26), (0.74, -0.28, 0.22), (-0.62, 0.30, 0.20), (0.55, -0.74, 0.18), (0.80, 0.42, 0.24))
GRID = 32  # cells of the noise along the picture's side, so that it is smooth
NOISE = 0.014  # greatest value; its standard deviation is about 0.4 of it


def backdrop(c: Canvas, who: Look) -> None:
    """Two colours: plain (0), a gradient (1), lights out of focus (2), or the bars of a bright window (3)."""
    top, bottom = who.backdrop
    kind = who.background_kind
    slant = ((c.y + 0.35 * who.light * c.x) * 0.5 + 0.5).clamp(0, 1)
    c.image.copy_(mix(top, bottom, torch.where(kind == 0, 0.35, slant)[:, None]).expand_as(c.image))
    c.image.add_((0.10 * c.blob(0.25 * who.light, -0.15, 1.0, 1.0))[:, None])
    bars = ramp((9.0 * c.x + 0.8 * c.y + 6 * who.traits["background_tone"]).sin(), -0.6, 0.6)
    c.image.add_((0.07 * (kind == 3) * bars)[:, None])
    bright = mix(top, 1.0, 0.55)
    spread = 1.0 + 0.3 * who.light
    for x, y, radius in LIGHTS:
        c.spot((x * spread, y), (radius, radius), 0.6 * (kind == 2).float(), bright)
    c.image.clamp_(max=1)


def body(c: Canvas, who: Look) -> None:
    """Neck and clothes: round neck (0), V neck (1), collar (2), hood (3), stripes (4), shirt and tie (5)."""
    kind, wide = who.cloth_kind, c.x.abs()
    shoulders = 0.90 + 0.20 * (wide / 0.95).square() - 0.05 * ramp(wide, 0.22, 0.40)
    neck_w = 0.255 + 0.03 * (who.jaw_power - 2.25) + 0.10 * ramp(c.y, 0.78, 1.0).square()
    cloth = inside(shoulders - c.y)
    light = 0.5 + 0.5 * torch.tanh(1.6 * who.light * c.x)
    c.paint(cloth, mix(who.cloth_shade, who.cloth, light[:, None]))
    pale = mix(who.cloth, 1.0, 0.55)
    c.paint(cloth * (kind == 4) * ramp((c.y * 60 - 8 * wide.square()).sin(), -0.4, 0.4) * 0.7, pale)
    pointed = (kind == 1) | (kind == 2)
    deep = torch.where(pointed, 1.08 - 1.1 * wide, 0.985 - 1.5 * c.x.square())
    deep = torch.where(kind == 5, 0.90 + 0.25 * wide, deep)
    c.paint(inside(wide - neck_w) * inside(c.y - deep) * (c.y > 0.4), who.skin)
    rim = between(deep - 0.005, deep + 0.05, c.y) * inside(wide - neck_w - 0.05) * cloth
    c.paint(rim * ((kind == 0) | (kind == 1) | (kind == 4)), who.cloth_shade * 0.85)
    flap = inside((wide - 0.24).abs() + 0.9 * (c.y - 0.92).abs() - 0.13) * (wide > 0.03)
    c.paint(flap * ((kind == 2) | (kind == 5)), pale)
    tie = inside(wide - 0.035 - 0.35 * (c.y - 0.90).abs()) * inside(0.90 - c.y)
    c.paint(tie * (kind == 5), who.cloth_shade * 0.6)


def hood(c: Canvas, who: Look) -> None:
    """The soft roll of a hood beside the neck."""
    for side in (1.0, -1.0):
        alpha = (who.cloth_kind == 3).float()
        c.dot((side * 0.36, 0.93), (0.22, 0.085), alpha, who.cloth)
        c.dot((side * 0.35, 0.955), (0.19, 0.055), alpha, who.cloth_shade)
        c.line((side * 0.17, 0.90), (side * 0.16, 0.95), (side * 0.17, 1.1), 0.011, alpha, who.cloth_shade * 0.6)


def light_and_noise(c: Canvas, who: Look) -> None:
    """Tint the picture by the colour of the light and add a smooth noise that belongs to the person."""
    seed = 17.0 * who.traits["background_hue"] + 29.0 * who.traits["skin_tone"]
    place = torch.arange(GRID * GRID, device=c.image.device).view(1, GRID, GRID)
    cells = torch.sin((seed + place * 0.7548777) * 57.0) * 91.0
    noise = (cells - cells.floor() - 0.5) * 2 * NOISE
    size = c.image.shape[-2:]
    noise = torch.nn.functional.interpolate(noise[:, None], size, mode="bilinear")
    c.image.mul_(who.warmth).add_(noise)
