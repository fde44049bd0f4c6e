"""The head without its features: face, ears, beard, marks of the skin, glasses."""

from __future__ import annotations

import torch
from torch import Tensor

from .hair import HEAD_TOP
from .look import Look, mix
from .shapes import Canvas, between, inside, pixel_slope, ramp


JAW_TOP = 0.20  # the jaw stretches the face below this y
# Freckles: x and y from the middle of the cheek, mirrored on the other one
FRECKLES = ((-0.13, 0.02), (-0.06, -0.025), (-0.035, 0.05), (0.03, 0.005), (0.10, -0.02), (0.085, 0.06))
FRECKLED, MOLED = 0.8, 0.66  # identity numbers above these


def at_rest(y: Tensor, rest: Tensor, drop: Tensor) -> Tensor:
    """Where a point of the face would be were the jaw shut. `rest` y of the chin, `drop` how far it went down."""
    stretched = rest + drop - JAW_TOP
    return y - drop * ((y - JAW_TOP) / stretched).clamp(0, 1)


def head(c: Canvas, who: Look, drop: Tensor) -> Tensor:
    """Shadow on the neck, ears, face; returns the share of each pixel that is face."""
    chin = who.chin_y
    y = at_rest(c.y, chin, drop)
    shadow = ((c.x / (who.face_x * 0.72)).square() + ((y - 0.45) / (chin - 0.45 + 0.10)).square()).sqrt() - 1
    throat = (1 - ramp(shadow, -0.05, 0.12)) * inside(c.x.abs() - 0.255) * (c.y > 0.5)
    c.paint(throat * 0.75, who.skin_shade * 0.92)
    for side in (1.0, -1.0):
        x, always = side * (who.face_x - 0.005), torch.ones_like(who.age)
        c.dot((x, 0.03), (0.075, 0.125), always, who.skin)
        c.dot((x + side * 0.014, 0.035), (0.042, 0.085), 0.55 * always, who.skin_shade)
    above = (y < who.face_y).float()
    ry = above * HEAD_TOP + (1 - above) * (chin - who.face_y)
    power = above * 2.3 + (1 - above) * who.jaw_power
    height = ((y - who.face_y).abs() / ry).clamp(min=1e-4)
    width = (c.x / (who.face_x * (1 - who.taper * (1 - above) * height))).abs().clamp(min=1e-4)
    field = width.pow(power) + height.pow(power) - 1
    cover = inside(field)
    side_light = torch.tanh(2.0 * who.light * c.x)
    rim = ramp(field, -0.62, 0.0)
    colour = mix(who.skin, who.skin_shade, (rim * (0.42 - 0.32 * side_light))[:, None])
    bright = 0.30 * c.blob(0.16 * who.light, -0.28, 0.42, 0.26)
    bright = bright + 0.28 * torch.exp(-((c.x / 0.13).square() + ((y - chin + 0.11) / 0.07).square()))
    c.paint(cover, mix(colour, who.skin_light, bright[:, None]))
    return cover


def beard(c: Canvas, who: Look, face: Tensor, drop: Tensor) -> None:
    """Stubble or a full beard, a goatee, a moustache."""
    y = at_rest(c.y, who.chin_y, drop)
    x, on = c.x.abs(), who.hair_on
    edge = who.mouth_y - 0.05 - 0.55 * (x - 0.16).clamp(min=0) - 0.22 * ramp(x, 0.40, 0.56)
    cheeks = ramp(y, edge - 0.05, edge + 0.05) * torch.maximum(on["cheeks"], 1 - ramp(x, 0.17, 0.27)) * on["chin"]
    bare = torch.exp(-((c.x / 0.17).square() + ((y - who.mouth_y - 0.02) / 0.07).square()))
    cheeks = cheeks * (1 - 0.8 * bare)
    moustache = inside((x / 0.21).square() + ((c.y - who.mouth_y + 0.075 - 0.9 * x.square()) / 0.034).square() - 1)
    amount = torch.maximum(cheeks, moustache * on["lip"]) * face * 0.88 * who.beard
    c.paint(amount, mix(who.hair_colour, who.skin_shade, 0.22))


def marks(c: Canvas, who: Look) -> None:
    """Freckles or a mole, and what age leaves: far weaker than what any action unit draws."""
    chance = who.traits["marks"]
    freckled = (chance > FRECKLED).float() * 0.22
    mole = ((chance > MOLED) & (chance <= FRECKLED)).float()
    left = torch.where((chance * 50).floor() % 2 == 0, 1.0, -1.0)
    c.dot((left * 0.27, 0.40 - 0.5 * (chance - MOLED)), (0.014, 0.014), mole * 0.8, who.crease * 0.8)
    c.spot((0.0, 0.17), (0.34, 0.09), freckled * 0.3, who.crease)
    for side in (1.0, -1.0):
        for x, y in FRECKLES:
            c.spot((side * (0.26 + x), 0.20 + y), (0.017, 0.017), freckled, who.crease)
        c.line(
            (side * (who.nose_w + 0.045), who.nose_y), (side * (who.mouth_w + 0.02), who.nose_y + 0.08),
            (side * (who.mouth_w + 0.055), who.mouth_y - 0.01), 0.010, 0.30 * who.age, who.crease,
        )  # fmt: skip
        x, y, w = who.eye_x, who.eye_y, who.eye_w
        c.line(
            (side * (x - w * 0.8), y + 0.12), (side * x, y + 0.175), (side * (x + w * 0.8), y + 0.12),
            0.010, 0.25 * who.age, who.crease,
        )  # fmt: skip
        c.spot((side * 0.36, 0.56), (0.10, 0.10), 0.25 * who.age, who.skin_shade)
    for y in (-0.44, -0.50):
        c.line((-0.24, y + 0.01), (0.0, y - 0.02), (0.24, y + 0.01), 0.008, 0.22 * who.age, who.crease)


def glasses(c: Canvas, who: Look) -> None:
    """Round or square rims, thin or thick."""
    shape = who.traits["glasses_shape"]
    rx, ry = who.eye_w + 0.040 - 0.01 * shape, mix(0.188, 0.158, shape)
    half, power = 0.010 + 0.008 * ((shape * 7) % 1), 2 + 2.6 * shape
    for side in (1.0, -1.0):
        u, v = (c.x - side * who.eye_x) / rx, (c.y - who.eye_y - 0.012) / ry
        ring = (u.abs().clamp(min=1e-3).pow(power) + v.abs().clamp(min=1e-3).pow(power)).pow(1 / power) - 1
        line = (0.5 + half / c.pixel - ring.abs() / pixel_slope(ring)).clamp(0, 1)
        c.paint(line * who.glasses * (c.x * side > 0), who.frame)
        glare = inside(ring) * torch.exp(-((u + v * 0.6 - 0.55 * who.light) / 0.3).square())
        c.paint(glare * who.glasses * 0.10, torch.ones_like(who.frame))
        arm = between(who.eye_y - 0.05, who.eye_y - 0.02, c.y) * inside(who.eye_x + rx - c.x * side)
        c.paint(arm * inside(c.x.abs() - who.face_x - 0.02) * who.glasses, who.frame)
    bridge = inside(c.x.abs() - who.eye_x + rx) * between(who.eye_y - 0.03, who.eye_y - 0.004, c.y)
    c.paint(bridge * who.glasses, who.frame)
