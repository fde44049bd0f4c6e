"""Hair of the head: what is behind the face, and what falls over the forehead."""

from __future__ import annotations

import torch
from torch import Tensor

from .look import Look, mix
from .shapes import Canvas, inside, ramp


HEAD_TOP = 0.64  # from the middle of the face to the top of the skull


def skull(c: Canvas, who: Look, widen: Tensor | float, raise_: Tensor | float) -> Tensor:
    """The round of the head with hair: implicit, negative inside."""
    rx, ry = who.face_x + widen, HEAD_TOP + raise_
    return ((c.x / rx).square() + ((c.y - who.face_y + 0.05) / ry).square()).sqrt() - 1


def curls(c: Canvas, who: Look) -> Tensor:
    """Waves along the outline of the hair."""
    angle = torch.atan2(c.x, -(c.y - who.face_y))
    return who.hair["curls"] * (torch.cos(15 * angle) + 0.5 * torch.cos(23 * angle + 1.0))


def strands(c: Canvas, who: Look, amount: float) -> Tensor:
    """Hair colour [B, 3, H, W]: soft streaks from the parting and a band of gloss."""
    angle = torch.atan2(c.x - 0.35 * (who.traits["hair_part"] - 0.5), -(c.y - 0.55))
    along = mix(angle, 0.9 * c.x, ramp(c.y, -0.2, 0.3)) + 0.02 * torch.sin(7 * c.y)
    streak = torch.sin(25 * along)
    radius = (c.x.square() + (c.y - 0.02).square()).sqrt()
    gloss = torch.exp(-((radius - 0.60) / 0.09).square()) * (0.5 + 0.5 * torch.cos(2.4 * (angle - 0.5 * who.light)))
    shade = 1 + amount * 0.05 * streak + 0.22 * gloss
    return (who.hair_colour * shade[:, None] + 0.04 * gloss[:, None]).clamp(0, 1)


def volume(who: Look) -> Tensor:
    return 0.7 + 0.6 * who.traits["hair_volume"]


def hair_behind(c: Canvas, who: Look) -> None:
    h, more = who.hair, volume(who)
    wave = curls(c, who)
    colour = strands(c, who, 0.7) * 0.80
    tail_side = torch.where(who.traits["hair_part"] > 0.5, 1.0, -1.0)
    lean = c.x - tail_side * (who.face_x + 0.06 + 0.22 * (c.y + 0.25) - 0.25 * (c.y + 0.25).square())
    tail = inside((lean / (0.14 * more)).square() + ((c.y - 0.16) / 0.52).square() - 1)
    bun = c.ellipse(0.0, who.face_y - HEAD_TOP - 0.10, 0.20 * more, 0.17 * more)
    cap = inside(skull(c, who, h["sides"] * more, h["crown"] * more) - wave)
    wide = who.face_x + h["sides"] * more + wave * 0.6 + 0.04 * ramp(c.y, 0.1, 0.9)
    corner = (c.y - h["ends"] + 0.12).clamp(min=0)
    mane = inside(c.x.abs() + 1.2 * corner.square() - wide) * inside(c.y - h["ends"]) * (c.y > who.face_y - 0.05)
    cover = torch.maximum(torch.maximum(cap, mane), torch.maximum(bun * h["bun"], tail * h["tail"]))
    c.paint(cover, colour)


def hair_front(c: Canvas, who: Look) -> None:
    h, more = who.hair, volume(who)
    part = 0.36 * (who.traits["hair_part"] - 0.5) * (h["fall"] > 0.12)
    wave = curls(c, who)
    away = ((c.x - part).abs() / 0.58).clamp(max=1.3)
    line = h["line"] + h["fall"] * away.square() + 0.34 * ramp(c.x.abs(), 0.46, 0.60) + 0.25 * wave
    line = line + h["sweep"] * (c.x - part).clamp(-0.5, 0.5)
    cap = inside(skull(c, who, h["sides"] * more * 0.9, h["crown"] * more) - wave)
    face_shadow = ramp(line + 0.07 - c.y, 0.0, 0.09) * inside(skull(c, who, 0.0, 0.0)) * 0.28
    c.paint(face_shadow * (c.y < 0.3), who.skin_shade * 0.85)
    below = inside(c.y - line)
    c.paint(cap * below, strands(c, who, 1.0))
    edge = torch.exp(-((c.y - line) / 0.04).square()) * below * cap
    c.paint(edge * 0.2, who.hair_colour * 0.6)
