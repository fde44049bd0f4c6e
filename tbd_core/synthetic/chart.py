"""Pictures side by side: contact sheets of people and emotions, and the chart of all action units at all levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..facs.emotions import EMOTIONS, INTENSITIES, units_for
from ..flow import LEVELS, ActionUnit
from .face import AU_NUMBERS, Face, neutral_face, random_gaze, random_identity, random_pose, unit_levels
from .portrait import render


if TYPE_CHECKING:
    from PIL import Image

CHART_SEED = 92799  # the sample portrait: an identity whose brows, lids and lips are easy to see
LEVEL_COLOURS = ("#c7dcef", "#94c4df", "#4a97c9", "#1764ab", "#08306b")  # A .. E


def contact_sheet(images: Tensor, columns: int) -> Image.Image:
    """`images` [B, 3, H, W] in [0, 1], row by row, `columns` to a row; missing ones are white."""
    from PIL import Image

    count, _, height, width = images.shape
    rows = -(-count // columns)
    sheet = torch.ones(rows * columns, 3, height, width)
    sheet[:count] = images
    grid = sheet.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    return Image.fromarray((grid.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def face_chart(size: int, identity: Tensor | None = None, blocks: int = 2) -> Image.Image:
    """Each action unit of `AU_NUMBERS` in a row: at A-E on both sides, then at E on the subject's left alone.

    `size`: pixels of one face. `identity` [1, NUM_IDENTITY]. `blocks`: the rows stand in this many columns.
    """
    from PIL import Image, ImageDraw, ImageFont

    if identity is None:
        identity = random_identity(torch.Generator().manual_seed(CHART_SEED), 1)
    count, levels = len(AU_NUMBERS), len(LEVELS)
    units = torch.zeros(count, levels + 1, count, 2)
    for row in range(count):
        units[row, :levels, row] = (torch.arange(levels) + 1.0)[:, None] / levels
        units[row, levels, row, 0] = 1.0
    units = units.flatten(0, 1)
    rest = neutral_face(identity[:1].expand(len(units), -1))
    faces = contact_sheet(render(Face(rest.identity, units, rest.mouth, rest.blink), size), levels + 1)

    rows, margin, wide = -(-count // blocks), max(12, size // 6), faces.width
    label = size // 2
    chart = Image.new("RGB", ((wide + label) * blocks, rows * size + margin), "white")
    draw, font = ImageDraw.Draw(chart), ImageFont.load_default(max(8, size // 8))
    for block in range(blocks):
        x = block * (wide + label)
        here = min(rows, count - block * rows)
        chart.paste(faces.crop((0, block * rows * size, wide, (block * rows + here) * size)), (x + label, margin))
        for column, title in enumerate((*LEVELS, "E, left")):
            draw.text((x + label + (column + 0.5) * size, margin / 2), title, "black", font, anchor="mm")
        for row in range(here):
            number = AU_NUMBERS[block * rows + row]
            draw.text((x + label / 2, margin + (row + 0.5) * size), f"AU{number}", "black", font, anchor="mm")
    return chart


def emotion_sheet(size: int, identity: Tensor | None = None) -> Image.Image:
    """The eight emotions of FACS rules in columns, Mild, Moderate and Intense below each other; names above.

    `size`: pixels of one face. `identity` [1, NUM_IDENTITY].
    """
    from PIL import Image, ImageDraw, ImageFont

    if identity is None:
        identity = random_identity(torch.Generator().manual_seed(CHART_SEED), 1)
    units = torch.stack([unit_levels(units_for(e, intensity)) for intensity in INTENSITIES for e in EMOTIONS])
    rest = neutral_face(identity[:1].expand(len(units), -1))
    faces = contact_sheet(render(Face(rest.identity, units, rest.mouth, rest.blink), size), len(EMOTIONS))
    margin = max(12, size // 6)
    sheet = Image.new("RGB", (faces.width, faces.height + margin), "white")
    sheet.paste(faces, (0, margin))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(max(8, size // 8))
    for column, name in enumerate(EMOTIONS):
        draw.text(((column + 0.5) * size, margin / 2), name, "black", font, anchor="mm")
    return sheet


def plan_chart(units: Sequence[ActionUnit], size: int) -> Image.Image:
    """A plan before it is drawn: the face at rest, the same face with `units`, and a bar for each, A to E.

    `size`: pixels of one face, at least 64; the chart is 4 faces wide and 1 high. Units that the drawn face does
    not have are named "not drawn".
    """
    from PIL import Image, ImageDraw, ImageFont

    rest = neutral_face(random_identity(torch.Generator().manual_seed(CHART_SEED), 1).expand(2, -1))
    levels = torch.stack([torch.zeros(len(AU_NUMBERS), 2), unit_levels(units)])
    faces = contact_sheet(render(Face(rest.identity, levels, rest.mouth, rest.blink), size), 2)
    chart = Image.new("RGB", (4 * size, size), "white")
    chart.paste(faces)
    draw = ImageDraw.Draw(chart)
    font = ImageFont.load_default(max(7, size // 16))
    for column, title in enumerate(("at rest", "planned")):
        at = ((column + 0.5) * size, 0.97 * size)
        draw.text(at, title, "white", font, anchor="ms", stroke_width=max(1, size // 128), stroke_fill="black")
    left, wide = 2 * size + size / 12, size * 11 / 6
    if not units:
        draw.text((left, size / 2), "no action units: the face stays at rest", "black", font, anchor="lm")
    row = size / max(8, len(units))
    for i, unit in enumerate(units):
        _bar(draw, unit, (left, i * row + (size - len(units) * row) / 2, wide, row))
    return chart


def _bar(draw, unit: ActionUnit, box: tuple[float, float, float, float]) -> None:
    """`unit` in `box` (left, top, width, height in pixels): its name, then a cell for each level up to its own."""
    from PIL import ImageFont

    left, top, wide, high = box
    named = f"AU{unit.number} {unit.name}" + ("" if unit.side == "both" else f", {unit.side}")
    named += "" if unit.number in AU_NUMBERS else " (not drawn)"
    room, points = 0.66 * wide, max(6.0, 0.55 * high)
    font = ImageFont.load_default(points)
    font = ImageFont.load_default(max(6.0, points * min(1.0, room / font.getlength(named))))
    draw.text((left, top + high / 2), named, "black", font, anchor="lm")
    cell, reached = (wide - room) / (len(LEVELS) + 1), LEVELS.index(unit.level)
    for i in range(len(LEVELS)):
        x = left + room + (i + 0.5) * cell
        inside = LEVEL_COLOURS[reached] if i <= reached else None
        draw.rectangle((x, top + 0.2 * high, x + 0.85 * cell, top + 0.8 * high), inside, outline="#888888")
    letter = ImageFont.load_default(max(6.0, min(0.55 * high, 0.9 * cell)))
    x = left + room + (reached + 0.5 + 0.42) * cell
    draw.text((x, top + high / 2), unit.level, "white" if reached > 1 else "black", letter, anchor="mm")


def people_sheet(size: int, count: int = 24, columns: int = 8, seed: int = 1) -> Image.Image:
    """`count` people at rest as the corpus draws them: any person, pose and gaze."""
    generator = torch.Generator().manual_seed(seed)
    rest = neutral_face(random_identity(generator, count))
    pose, gaze = random_pose(generator, count), random_gaze(generator, count)
    return contact_sheet(render(Face(rest.identity, rest.units, rest.mouth, rest.blink, pose, gaze), size), columns)


def faces_sheet(size: int) -> Image.Image:
    """All that the renderer can do, one below the other: action units, emotions, people. `docs/faces.png`."""
    from PIL import Image

    parts = [face_chart(size), emotion_sheet(size), people_sheet(size)]
    sheet = Image.new("RGB", (max(p.width for p in parts), sum(p.height for p in parts) + size), "white")
    top = 0
    for part in parts:
        sheet.paste(part, ((sheet.width - part.width) // 2, top))
        top += part.height + size // 2
    return sheet
