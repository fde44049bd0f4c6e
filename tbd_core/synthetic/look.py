"""From the identity numbers to the dimensions and colours of a drawn person. All choices are ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .face import IDENTITY
from .shapes import ramp


SKIN = (
    (1.0, 0.89, 0.82),
    (0.98, 0.82, 0.70),
    (0.90, 0.70, 0.54),
    (0.74, 0.52, 0.36),
    (0.54, 0.36, 0.25),
    (0.38, 0.25, 0.18),
)
HAIR = (
    (0.11, 0.09, 0.11),
    (0.22, 0.14, 0.11),
    (0.42, 0.25, 0.15),
    (0.66, 0.30, 0.13),
    (0.90, 0.72, 0.42),
    (0.80, 0.79, 0.80),
)
IRIS = (
    (0.30, 0.17, 0.09),
    (0.46, 0.30, 0.12),
    (0.33, 0.45, 0.18),
    (0.20, 0.47, 0.62),
    (0.30, 0.52, 0.85),
    (0.45, 0.52, 0.58),
)
LIP = (0.78, 0.22, 0.28)

GREY = (0.74, 0.73, 0.74)
FRAMES = ((0.10, 0.09, 0.11), (0.33, 0.19, 0.11), (0.55, 0.16, 0.20), (0.18, 0.26, 0.48), (0.52, 0.53, 0.56))

# A hair style: crown above the head, sides beyond the face, y where it ends behind, y of the hairline in the
# middle, how far the hairline falls at the temples, curls, bun, tail, how far the fringe slants.
# The first SHORT_STYLES go with beards.
HAIR_NAMES = ("crown", "sides", "ends", "line", "fall", "curls", "bun", "tail", "sweep")
STYLES = (
    # crown  sides   ends   line   fall  curls  bun  tail  sweep
    (-0.08, -0.08, -0.02, -0.95, 0.00, 0.000, 0.0, 0.0, 0.00),  # bald
    (0.02, 0.02, 0.02, -0.66, 0.46, 0.000, 0.0, 0.0, 0.00),  # receding
    (0.06, 0.03, -0.02, -0.50, 0.20, 0.000, 0.0, 0.0, 0.00),  # cropped
    (0.14, 0.06, 0.02, -0.46, 0.30, 0.000, 0.0, 0.0, 0.00),  # short, parted
    (0.17, 0.06, 0.02, -0.46, 0.14, 0.000, 0.0, 0.0, 0.20),  # side-swept
    (0.26, 0.25, 0.16, -0.45, 0.22, 0.018, 0.0, 0.0, 0.00),  # afro
    (0.17, 0.12, 0.10, -0.43, 0.24, 0.030, 0.0, 0.0, 0.00),  # short curls
    (0.13, 0.12, 0.52, -0.36, 0.10, 0.000, 0.0, 0.0, 0.00),  # bob with a fringe
    (0.12, 0.13, 1.20, -0.52, 0.44, 0.000, 0.0, 0.0, 0.00),  # long, parted
    (0.20, 0.20, 0.34, -0.44, 0.26, 0.030, 0.0, 0.0, 0.00),  # curls
    (0.10, 0.05, 0.02, -0.50, 0.34, 0.000, 1.0, 0.0, 0.00),  # bun
    (0.16, 0.17, 1.20, -0.42, 0.40, 0.022, 0.0, 0.0, 0.00),  # long waves
    (0.11, 0.05, 0.02, -0.49, 0.26, 0.000, 0.0, 1.0, 0.12),  # ponytail
    (0.14, 0.13, 1.20, -0.46, 0.26, 0.000, 0.0, 0.0, -0.22),  # long, side-swept
    (0.13, 0.07, 0.14, -0.40, 0.16, 0.000, 0.0, 0.0, -0.14),  # pixie
)
SHORT_STYLES, BARE_STYLES = 7, 2
BEARDED, SPECTACLED = 0.72, 0.78  # identity numbers above these have a beard, glasses


@dataclass(frozen=True)
class Look:
    """Dimensions [B, 1, 1] in picture units, colours [B, 3, 1, 1] in [0, 1]."""

    traits: dict[str, Tensor]  # the identity numbers by name, [B, 1, 1]
    face_x: Tensor
    face_y: Tensor
    chin_y: Tensor
    jaw_power: Tensor
    eye_x: Tensor
    eye_y: Tensor
    eye_w: Tensor
    eye_h: Tensor
    eye_tilt: Tensor
    brow_y: Tensor
    brow_half: Tensor
    brow_arch: Tensor
    nose_y: Tensor
    nose_w: Tensor
    mouth_y: Tensor
    mouth_w: Tensor
    lip: Tensor
    tip: Tensor  # how round the nose ends
    bridge: Tensor  # strength of the light on its bridge
    bow: Tensor  # how deep the upper lip dips in its middle
    upper_share: Tensor  # fullness of the upper lip against the lower one
    brow_straight: Tensor
    taper: Tensor  # how much narrower than its middle the face is at the chin
    age: Tensor  # 0 young .. 1 old: lines at rest
    beard: Tensor  # 0 none .. 1 dense
    hair_on: dict[str, Tensor]  # how far a beard covers cheeks, chin and the upper lip
    mannish: Tensor  # 1 without long lashes and red lips
    glasses: Tensor  # 0 or 1
    frame: Tensor
    cloth_kind: Tensor  # 0 .. 5, see `scene.body`
    background_kind: Tensor  # 0 .. 3, see `scene.backdrop`
    warmth: Tensor  # tint of the light
    light: Tensor  # -1 from the left .. 1 from the right
    hair: dict[str, Tensor]  # a row of STYLES by name, [B, 1, 1]
    skin: Tensor
    skin_shade: Tensor
    skin_light: Tensor
    crease: Tensor  # wrinkles and lid folds
    hair_colour: Tensor
    brow_colour: Tensor
    iris: Tensor
    lip_colour: Tensor
    blush: Tensor
    cloth: Tensor
    cloth_shade: Tensor
    backdrop: tuple[Tensor, Tensor]


def mix(a: Tensor | float, b: Tensor | float, share: Tensor | float) -> Tensor:
    return torch.as_tensor(a + (b - a) * share)


def step(value: Tensor, count: int) -> Tensor:
    """Which of `count` equal parts of [0, 1] `value` lies in: 0 .. count - 1."""
    return (value * count).long().clamp(0, count - 1)


def on_scale(stops: tuple, position: Tensor) -> Tensor:
    """The colour at `position` [B] in [0, 1] along `stops`: [B, 3, 1, 1]."""
    table = torch.tensor(stops, device=position.device)
    place = position.clamp(0, 1) * (len(stops) - 1)
    low = place.floor().clamp(max=len(stops) - 2)
    below, share = low.long(), (place - low)[:, None]
    return mix(table[below], table[below + 1], share)[..., None, None]


def hsv(hue: Tensor, saturation: Tensor | float, value: Tensor | float) -> Tensor:
    """Colours [B, 3, 1, 1] from `hue` [B] in turns."""
    offsets = torch.tensor([5.0, 3.0, 1.0], device=hue.device)
    k = (offsets + 6 * hue[:, None]) % 6
    part = torch.minimum(k, 4 - k).clamp(0, 1)
    saturation, value = (torch.as_tensor(n).expand(len(hue))[:, None] for n in (saturation, value))
    return (value * (1 - saturation * part))[..., None, None]


def complexion(t: dict[str, Tensor], mannish: Tensor) -> dict[str, Tensor]:
    """Colours of skin, hair and lips from the traits `t` [B, 1, 1]."""
    flat = {name: t[name][:, 0, 0] for name in ("skin_tone", "hair_tone")}
    skin = on_scale(SKIN, flat["skin_tone"])
    warmth = torch.tensor([0.015, 0.0, -0.04], device=flat["skin_tone"].device)[None, :, None, None]
    skin = (skin + warmth * (2 * t["skin_warmth"] - 1)[:, None]).clamp(0, 1)
    tint = skin.new_tensor([0.80, 0.66, 0.62])[None, :, None, None]
    hair_tone = flat["hair_tone"] * (1 - 0.6 * ramp(flat["skin_tone"], 0.45, 0.9))  # dark skin seldom has fair hair
    hair_colour = on_scale(HAIR, hair_tone) * (0.85 + 0.3 * t["hair_shade"][:, None])
    hair_colour = mix(
        hair_colour, hair_colour.new_tensor(GREY)[None, :, None, None], 0.85 * ramp(t["age"], 0.68, 1.0)[:, None]
    )
    lip_base = skin * skin.new_tensor([0.86, 0.54, 0.54])[None, :, None, None]
    rosy = skin.new_tensor([0.66, 0.32, 0.33])[None, :, None, None]  # lips stand out from dark skin too
    lip_base = mix(lip_base, rosy, 0.5 * ramp(flat["skin_tone"], 0.4, 1.0)[:, None, None, None])
    lip_red = skin.new_tensor(LIP)[None, :, None, None]
    return {
        "skin": skin,
        "skin_shade": skin * tint,
        "skin_light": mix(skin, 1.0, 0.35),
        "crease": skin * skin.new_tensor([0.56, 0.40, 0.37])[None, :, None, None],
        "hair_colour": hair_colour.clamp(0, 1),
        "brow_colour": (hair_colour * hair_colour.new_tensor([0.66, 0.52, 0.42])[None, :, None, None]).clamp(0, 1),
        "lip_colour": mix(lip_base, lip_red, 0.65 * (t["lip_redness"].square() * (1 - 0.8 * mannish))[:, None]),
        "blush": mix(skin, skin.new_tensor([0.90, 0.35, 0.33])[None, :, None, None], 0.5),
    }


def surroundings(flat: dict[str, Tensor]) -> dict[str, Any]:
    """Colours of clothes and backdrop from the identity numbers `flat` [B]."""
    cloth = hsv(flat["cloth_hue"], 0.25 + 0.5 * flat["cloth_style"], 0.35 + 0.55 * ((flat["cloth_style"] * 7) % 1))
    tone, hue = flat["background_tone"], flat["background_hue"]
    backdrop = (
        hsv(hue, 0.12 + 0.22 * tone, 0.96 - 0.34 * tone),
        hsv((hue + 0.08) % 1, 0.17 + 0.26 * tone, 0.82 - 0.40 * tone),
    )
    return {"cloth": cloth, "cloth_shade": cloth * 0.72, "backdrop": backdrop}


def look(identity: Tensor) -> Look:
    """Who `identity` [B, NUM_IDENTITY] in [0, 1] is."""
    flat: dict[str, Tensor] = dict(zip(IDENTITY, identity.float().unbind(1), strict=True))
    t = {name: value[:, None, None] for name, value in flat.items()}
    centred = {name: 2 * value - 1 for name, value in t.items()}
    bearded = flat["beard"] > BEARDED
    choices = torch.where(bearded, SHORT_STYLES, len(STYLES)).float()
    style = torch.minimum(flat["hair_style"] * choices, choices - 1e-3).long()
    rows = torch.tensor(STYLES, device=identity.device)[style]
    hair = {name: value[:, None, None] for name, value in zip(HAIR_NAMES, rows.unbind(1), strict=True)}
    mannish = (bearded | (style < BARE_STYLES)).float()[:, None, None]
    age = ramp(t["age"], 0.45, 1.0)
    kind = step(t["facial_hair"], 4)  # full beard, goatee, moustache, stubble
    beard = (
        bearded.float()[:, None, None]
        * mix(0.75, 1.0, ramp(t["beard"], BEARDED, 1.0))
        * torch.where(kind == 3, 0.38, 1.0)
    )
    hair_on = {
        "cheeks": ((kind == 0) | (kind == 3)).float(),
        "chin": (kind != 2).float(),
        "lip": torch.where(kind == 2, 1.0, 0.8),
    }

    frames = torch.tensor(FRAMES, device=identity.device)
    frame = frames[step(flat["glasses_tone"], len(FRAMES))][..., None, None]
    hour = 2 * flat["light_warmth"] - 1
    warmth = (
        1 + hour[:, None, None, None] * torch.tensor([0.05, 0.0, -0.07], device=identity.device)[None, :, None, None]
    )
    brow_y = -0.300 - 0.03 * centred["brow_height"]
    return Look(
        traits=t,
        face_x=0.575 + 0.045 * centred["face_width"],
        face_y=torch.full_like(t["light"], 0.02),
        chin_y=0.775 + 0.035 * centred["chin_length"],
        jaw_power=2.25 + 0.35 * centred["jaw_width"] + 0.15 * centred["face_shape"],
        eye_x=0.262 + 0.02 * centred["eye_distance"],
        eye_y=-0.055 + 0.025 * centred["eye_height"],
        eye_w=0.168 + 0.014 * centred["eye_size"],
        eye_h=0.108 + 0.016 * centred["eye_size"],
        eye_tilt=0.022 * centred["eye_tilt"] + 0.008,
        brow_y=brow_y,
        brow_half=0.022 + 0.013 * t["brow_thickness"],
        brow_arch=0.035 + 0.022 * centred["brow_arch"],
        nose_y=0.225 + 0.03 * centred["nose_length"],
        nose_w=0.105 + 0.025 * centred["nose_width"],
        mouth_y=0.475 + 0.015 * centred["nose_length"],
        mouth_w=0.235 + 0.03 * centred["mouth_width"],
        lip=0.050 + 0.017 * centred["lip_fullness"],
        tip=0.75 + 0.6 * t["nose_shape"],
        bridge=1.25 - 0.7 * t["nose_shape"],
        bow=0.10 + 0.26 * t["lip_shape"],
        upper_share=0.95 - 0.25 * t["lip_shape"],
        brow_straight=t["brow_shape"],
        taper=0.09 - 0.08 * centred["face_shape"],
        age=age,
        beard=beard,
        hair_on=hair_on,
        mannish=mannish,
        glasses=(t["glasses"] > SPECTACLED).float(),
        frame=frame,
        cloth_kind=step(t["cloth_kind"], 6),
        background_kind=step(t["background_kind"], 4),
        warmth=warmth,
        light=centred["light"],
        hair=hair,
        iris=on_scale(IRIS, flat["eye_colour"]),
        **complexion(t, mannish),
        **surroundings(flat),
    )
