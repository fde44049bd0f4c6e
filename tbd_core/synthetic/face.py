"""What a drawn face is made of: who it is, which action units act, how the mouth speaks.

`EFFECTS` is the whole knowledge of what an action unit does to the drawing: rows of lengths and strengths at
level E, added up, so that every unit grows evenly with its level and acts on each side by itself.
Directions follow FACS (Ekman, Friesen & Hager 2002); the magnitudes are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..flow import LEVELS, ActionUnit


IDENTITY = (
    "skin_tone", "skin_warmth", "hair_tone", "hair_shade", "hair_style", "hair_volume", "hair_part",
    "face_width", "jaw_width", "chin_length", "eye_size", "eye_distance", "eye_tilt", "eye_colour",
    "eye_height", "brow_thickness", "brow_arch", "brow_height", "nose_length", "nose_width",
    "mouth_width", "lip_fullness", "lip_redness", "lashes", "blush", "beard", "glasses", "cloth_hue",
    "cloth_style", "background_hue", "background_tone", "light",
    "age", "nose_shape", "lip_shape", "brow_shape", "face_shape", "facial_hair", "glasses_shape", "glasses_tone",
    "cloth_kind", "background_kind", "marks", "light_warmth",
)  # fmt: skip
NUM_IDENTITY = len(IDENTITY)

MOUTH = ("opening", "rounding", "spread")

# Lengths in picture units (the picture is 2 wide), strengths 0..1. Both per side, at level E.
EFFECTS: dict[int | str, dict[str, float]] = {
    1: {"brow_inner": 0.12, "brow_middle": 0.03, "forehead_inner": 1.0},
    2: {"brow_outer": 0.11, "brow_middle": 0.08, "forehead_outer": 1.0},
    4: {"brow_inner": -0.09, "brow_middle": -0.06, "brow_in": 0.05, "frown": 1.0, "upper_lid": -0.12},
    5: {"upper_lid": 0.55},
    6: {"lower_lid": 0.42, "cheek": 1.0, "crow": 1.0, "fold": 0.3},
    7: {"lower_lid": 0.55, "upper_lid": -0.42, "lid_tense": 1.0},
    9: {"wrinkle": 1.0, "nose_up": 0.05, "brow_inner": -0.05, "brow_in": 0.025, "lower_lid": 0.2,
        "fold": 0.5, "upper_lip": 0.012},
    10: {"upper_lip": 0.065, "nose_up": 0.012, "fold": 0.8, "part_up": 0.05},
    12: {"corner_up": 0.115, "corner_out": 0.08, "fold": 0.75, "cheek": 0.4, "lower_lid": 0.08},
    14: {"dimple": 1.0, "corner_up": 0.03, "corner_out": 0.045, "thin": 0.15},
    15: {"corner_up": -0.12, "marionette": 1.0},
    16: {"part_down": 0.075, "lower_lip": 0.035, "lower_teeth": 1.0},
    17: {"lip_up": 0.05, "chin": 1.0, "corner_up": -0.045, "pout": 0.35},
    18: {"narrow": 0.62, "pout": 0.6, "pucker": 1.0},
    20: {"corner_out": 0.13, "corner_up": -0.02, "thin": 0.3, "neck": 1.0, "stretch": 1.0},
    22: {"narrow": 0.36, "pout": 1.1, "part_up": 0.06, "part_down": 0.07, "funnel": 1.0},
    23: {"thin": 0.65, "narrow": 0.3, "tight": 1.0},
    24: {"thin": 1.3, "press": 1.0},
    25: {"part_up": 0.035, "part_down": 0.06},
    26: {"part_up": 0.025, "part_down": 0.16, "jaw": 0.09},
    27: {"part_up": 0.05, "part_down": 0.28, "jaw": 0.15, "narrow": 0.16},
    43: {"closed": 1.0},
    "opening": {"part_up": 0.03, "part_down": 0.20, "jaw": 0.08},
    "rounding": {"narrow": 0.4, "pout": 0.5},
    "spread": {"corner_out": 0.08, "thin": 0.15, "stretch": 0.3},
    "blink": {"closed": 1.0},
}  # fmt: skip

AU_NUMBERS: tuple[int, ...] = tuple(key for key in EFFECTS if isinstance(key, int))
MIDDLE_UNITS = (26, 27)  # the jaw drops on both sides
SIDED_UNITS: tuple[int, ...] = tuple(number for number in AU_NUMBERS if number not in MIDDLE_UNITS)
CONTROLS = tuple(dict.fromkeys(name for row in EFFECTS.values() for name in row))


@dataclass(frozen=True)
class Face:
    """B faces, whose labels are exact because they are what the picture is drawn from."""

    identity: Tensor  # [B, NUM_IDENTITY] in [0, 1]
    units: Tensor  # [B, len(AU_NUMBERS), 2] in [0, 1]; subject's left, right; levels A..E are 0.2..1.0
    mouth: Tensor  # [B, 3] in [0, 1]: opening, rounding, spread of speech, on top of the units
    blink: Tensor  # [B] in [0, 1], 1 = shut
    pose: Tensor = field(default_factory=lambda: torch.zeros(1, 3))  # [B or 1, 3] in [-1, 1]: turn, nod, tilt
    gaze: Tensor = field(default_factory=lambda: torch.zeros(1, 2))  # [B or 1, 2] in [-1, 1]: subject's left, up

    def __len__(self) -> int:
        return len(self.identity)

    def __getitem__(self, rows: slice) -> Face:
        pose, gaze = self.pose.expand(len(self), 3)[rows], self.gaze.expand(len(self), 2)[rows]
        return Face(self.identity[rows], self.units[rows], self.mouth[rows], self.blink[rows], pose, gaze)


def neutral_face(identity: Tensor) -> Face:
    """The faces `identity` [B, NUM_IDENTITY] at rest."""
    batch = len(identity)
    zeros = identity.new_zeros
    return Face(
        identity, zeros(batch, len(AU_NUMBERS), 2), zeros(batch, 3), zeros(batch), zeros(batch, 3), zeros(batch, 2)
    )


def random_identity(generator: torch.Generator, count: int) -> Tensor:
    """`count` people nobody knows: [count, NUM_IDENTITY], evenly spread over [0, 1]."""
    return torch.rand(count, NUM_IDENTITY, generator=generator)


def random_pose(generator: torch.Generator, count: int) -> Tensor:
    """Heads that are held almost straight: [count, 3] in [-1, 1], 19 in 20 within ±0.5."""
    return (0.25 * torch.randn(count, 3, generator=generator)).clamp(-1, 1)


def random_gaze(generator: torch.Generator, count: int) -> Tensor:
    """Eyes that mostly look at the viewer, [count, 2] in [-0.5, 0.5]: every third looks aside."""
    aside = (torch.rand(count, 1, generator=generator) < 1 / 3).float()
    return aside * (torch.rand(count, 2, generator=generator) - 0.5)


def unit_levels(units: Sequence[ActionUnit]) -> Tensor:
    """A row of `Face.units`, [len(AU_NUMBERS), 2]: level A is 0.2, E is 1.0. Units that are not drawn are left out."""
    row = torch.zeros(len(AU_NUMBERS), 2)
    for unit in units:
        if unit.number in AU_NUMBERS:
            sides = {"both": [0, 1], "left": [0], "right": [1]}[unit.side]
            row[AU_NUMBERS.index(unit.number), sides] = (LEVELS.index(unit.level) + 1) / len(LEVELS)
    return row


def controls(face: Face) -> dict[str, tuple[Tensor, Tensor]]:
    """How far each part of the drawing moves: name -> (subject's left, right), each [B, 1, 1]."""
    units = face.units.float()
    sided = torch.tensor([number in SIDED_UNITS for number in AU_NUMBERS], device=units.device)
    units = torch.where(sided[None, :, None], units, units.amax(-1, keepdim=True).expand_as(units))
    speech = torch.cat([face.mouth, face.blink[:, None]], dim=1)[..., None].expand(-1, -1, 2)
    table = torch.tensor([[row.get(name, 0.0) for name in CONTROLS] for row in EFFECTS.values()], device=units.device)
    moved = torch.einsum("bns,nc->cbs", torch.cat([units, speech.float()], dim=1), table)
    return {name: (m[:, 0, None, None], m[:, 1, None, None]) for name, m in zip(CONTROLS, moved, strict=True)}
