"""Everything but the features: backdrop, clothes, neck, head, hair, glasses."""

from __future__ import annotations

import torch
from torch import Tensor

from .look import Look, mix
from .shapes import Canvas, between, inside, pixel_slope, ramp


HEAD_TOP = 0.64  # from the middle of the face to the top of the skull


def backdrop(c: Canvas, who: Look) -> None:
    """A gradient of two colours, lighter where the light comes from."""
    top, bottom = who.backdrop
    slant = ((c.y + 0.35 * who.light * c.x) * 0.5 + 0.5).clamp(0, 1)
    c.image.copy_(mix(top, bottom, slant[:, None]).expand_as(c.image))
    glow = c.blob(0.25 * who.light, -0.15, 1.0, 1.0)
    c.image.add_(0.10 * glow[:, None]).clamp_(max=1)


def skull(c: Canvas, who: Look, widen: Tensor | float, raise_: Tensor | float) -> Tensor:
    """The round of the head with hair: implicit, negative inside."""
    rx, ry = who.face_x + widen, HEAD_TOP + raise_
    return ((c.x / rx).square() + ((c.y - who.face_y + 0.05) / ry).square()).sqrt() - 1


def curls(c: Canvas, who: Look) -> Tensor:
    """Waves along the outline of the hair."""
    angle = torch.atan2(c.x, -(c.y - who.face_y))
    return who.hair["curls"] * (torch.cos(15 * angle) + 0.5 * torch.cos(23 * angle + 1.0))


def strands(c: Canvas, who: Look, amount: float) -> Tensor:
    """Hair colour [B, 3, H, W]: fine streaks from the parting and a band of gloss."""
    angle = torch.atan2(c.x - 0.35 * (who.traits["hair_part"] - 0.5), -(c.y - 0.55))
    along = mix(angle, 0.9 * c.x, ramp(c.y, -0.2, 0.3)) + 0.02 * torch.sin(7 * c.y)
    streak = torch.sin(38 * along) * 0.6 + torch.sin(23 * along + 2.0) * 0.4
    radius = (c.x.square() + (c.y - 0.02).square()).sqrt()
    gloss = torch.exp(-((radius - 0.60) / 0.055).square()) * (0.5 + 0.5 * torch.cos(2.4 * (angle - 0.5 * who.light)))
    shade = 1 + amount * 0.10 * streak + 0.30 * gloss
    return (who.hair_colour * shade[:, None] + 0.05 * gloss[:, None]).clamp(0, 1)


def hair_behind(c: Canvas, who: Look) -> None:
    h, volume = who.hair, 0.7 + 0.6 * who.traits["hair_volume"]
    wave = curls(c, who)
    bun = c.ellipse(0.0, who.face_y - HEAD_TOP - 0.10, 0.20 * volume, 0.17 * volume) * h["bun"]
    cap = inside(skull(c, who, h["sides"] * volume, h["crown"] * volume) - wave)
    wide = who.face_x + h["sides"] * volume + wave * 0.6 + 0.04 * ramp(c.y, 0.1, 0.9)
    corner = (c.y - h["ends"] + 0.12).clamp(min=0)
    mane = inside(c.x.abs() + 1.2 * corner.square() - wide) * inside(c.y - h["ends"]) * (c.y > who.face_y - 0.05)
    cover = torch.maximum(torch.maximum(cap, mane), bun)
    c.paint(cover, strands(c, who, 0.7) * 0.80)


def body(c: Canvas, who: Look) -> None:
    """Clothes and neck."""
    style = who.traits["cloth_style"]
    shoulders = 0.90 + 0.20 * (c.x.abs() / 0.95).square() - 0.05 * ramp(c.x.abs(), 0.22, 0.40)
    neck_w = 0.255 + 0.03 * (who.jaw_power - 2.25) + 0.10 * ramp(c.y, 0.78, 1.0).square()
    cloth = inside(shoulders - c.y)
    light = 0.5 + 0.5 * torch.tanh(1.6 * who.light * c.x)
    c.paint(cloth, mix(who.cloth_shade, who.cloth, light[:, None]))
    neck = inside(c.x.abs() - neck_w)
    deep = torch.where(style > 0.6, 1.08 - 1.1 * (c.x.abs()), 0.985 - 1.5 * c.x.square())
    throat = neck * inside(c.y - deep) * (c.y > 0.4)
    c.paint(throat, who.skin)
    rim = between(deep - 0.005, deep + 0.05, c.y) * inside(c.x.abs() - neck_w - 0.05) * cloth
    c.paint(rim, who.cloth_shade * 0.85)


def head(c: Canvas, who: Look, chin: Tensor) -> Tensor:
    """Shadow on the neck, ears, face; returns the share of each pixel that is face."""
    shadow = ((c.x / (who.face_x * 0.72)).square() + ((c.y - 0.45) / (chin - 0.45 + 0.10)).square()).sqrt() - 1
    throat = (1 - ramp(shadow, -0.05, 0.12)) * inside(c.x.abs() - 0.255) * (c.y > 0.5)
    c.paint(throat * 0.75, who.skin_shade * 0.92)
    for side in (1.0, -1.0):
        x = side * (who.face_x - 0.005)
        c.paint(c.ellipse(x, 0.03, 0.075, 0.125), who.skin)
        c.paint(c.ellipse(x + side * 0.014, 0.035, 0.042, 0.085) * 0.55, who.skin_shade)
    above = (c.y < who.face_y).float()
    ry = above * HEAD_TOP + (1 - above) * (chin - who.face_y)
    power = above * 2.3 + (1 - above) * who.jaw_power
    height = ((c.y - who.face_y).abs() / ry).clamp(min=1e-4)
    width = (c.x / (who.face_x * (1 - 0.07 * (1 - above) * height))).abs().clamp(min=1e-4)
    field = width.pow(power) + height.pow(power) - 1
    cover = inside(field)
    side_light = torch.tanh(2.0 * who.light * c.x)
    rim = ramp(field, -0.62, 0.0)
    colour = mix(who.skin, who.skin_shade, (rim * (0.42 - 0.32 * side_light))[:, None])
    colour = mix(colour, who.skin_light, (0.30 * c.blob(0.16 * who.light, -0.28, 0.42, 0.26))[:, None])
    colour = mix(colour, who.skin_light, (0.28 * c.blob(0.0, chin - 0.11, 0.13, 0.07))[:, None])
    c.paint(cover, colour)
    return cover


def beard(c: Canvas, who: Look, face: Tensor) -> None:
    """From stubble to a full beard, around the lips."""
    edge = who.mouth_y - 0.05 - 0.55 * (c.x.abs() - 0.16).clamp(min=0) - 0.22 * ramp(c.x.abs(), 0.40, 0.56)
    soft = 0.10 - 0.05 * who.beard
    cheeks = ramp(c.y, edge - soft, edge + soft)
    moustache = c.blob(0.0, who.mouth_y - 0.085, 0.20, 0.05)
    amount = torch.maximum(cheeks, moustache) * face * (0.90 * who.beard).clamp(max=0.88) ** 0.7
    c.paint(amount, mix(who.hair_colour, who.skin_shade, 0.22))


def hair_front(c: Canvas, who: Look) -> None:
    h, volume = who.hair, 0.7 + 0.6 * who.traits["hair_volume"]
    part = 0.36 * (who.traits["hair_part"] - 0.5) * (h["fall"] > 0.12)
    wave = curls(c, who)
    away = ((c.x - part).abs() / 0.58).clamp(max=1.3)
    line = h["line"] + h["fall"] * away.square() + 0.34 * ramp(c.x.abs(), 0.46, 0.60) + 0.25 * wave
    cap = inside(skull(c, who, h["sides"] * volume * 0.9, h["crown"] * volume) - wave)
    face_shadow = ramp(line + 0.07 - c.y, 0.0, 0.09) * inside(skull(c, who, 0.0, 0.0)) * 0.28
    c.paint(face_shadow * (c.y < 0.3), who.skin_shade * 0.85)
    below = inside(c.y - line)
    c.paint(cap * below, strands(c, who, 1.0))
    edge = torch.exp(-((c.y - line) / 0.03).square()) * below * cap
    c.paint(edge * 0.25, who.hair_colour * 0.6)


def glasses(c: Canvas, who: Look) -> None:
    frame = mix(who.cloth * 0.35, who.cloth * 0.7, who.traits["hair_shade"][:, None])
    width, rx, ry = 0.013, who.eye_w + 0.048, 0.168
    for side in (1.0, -1.0):
        u, v = (c.x - side * who.eye_x) / rx, (c.y - who.eye_y - 0.012) / ry
        ring = (u.square().square() + v.square().square()).clamp(min=1e-6).sqrt().sqrt() - 1
        line = (0.5 + (width / c.pixel) - ring.abs() / pixel_slope(ring)).clamp(0, 1)
        c.paint(line * who.glasses * (c.x * side > 0), frame)
        glare = inside(ring) * torch.exp(-((u + v * 0.6 - 0.55 * who.light) / 0.22).square())
        c.paint(glare * who.glasses * 0.13, torch.ones_like(frame))
        arm = between(who.eye_y - 0.05, who.eye_y - 0.02, c.y) * inside(who.eye_x + rx - c.x * side)
        c.paint(arm * inside(c.x.abs() - who.face_x - 0.02) * who.glasses, frame)
    bridge = inside(c.x.abs() - who.eye_x + rx) * between(who.eye_y - 0.03, who.eye_y - 0.004, c.y)
    c.paint(bridge * who.glasses, frame)
