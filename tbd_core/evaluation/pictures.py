"""The proof's pictures: labelled grids of faces, and curves. Everything is drawn with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate


if TYPE_CHECKING:
    from PIL import Image

INK, GREY, RED = (20, 20, 20), (215, 215, 215), (200, 40, 40)
TITLE = 14  # pixels of a line of text


def grid(
    rows: Sequence[Sequence[Tensor]], row_titles: Sequence[str], column_titles: Sequence[str], cell: int,
    blocks: int = 1,
) -> Image.Image:  # fmt: skip
    """Pictures (uint8 [3, H, W]) in rows with a title each, `cell` pixels a side, in `blocks` columns of rows."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(TITLE - 3)
    left = 12 + max((int(font.getlength(text)) for text in row_titles), default=0)
    per, columns = -(-len(rows) // blocks), max(map(len, rows))
    width = left + columns * cell
    sheet = Image.new("RGB", (blocks * width, TITLE + 4 + per * cell), "white")
    draw = ImageDraw.Draw(sheet)
    for block in range(blocks):
        for column, title in enumerate(column_titles):
            x = block * width + left + (column + 0.5) * cell
            draw.text((x, TITLE / 2 + 1), title, INK, font, anchor="mm")
    for i, (row, title) in enumerate(zip(rows, row_titles, strict=True)):
        x, y = i // per * width, TITLE + 4 + i % per * cell
        draw.text((x + left - 6, y + cell / 2), title, INK, font, anchor="rm")
        for column, picture in enumerate(row):
            sheet.paste(to_image(picture, cell), (x + left + column * cell, y))
    return sheet


def to_image(picture: Tensor, side: int) -> Image.Image:
    """uint8 [3, H, W] → a square picture of `side` pixels."""
    from PIL import Image

    if picture.shape[-1] != side:
        small = interpolate(picture[None].float(), (side, side), mode="bilinear", antialias=True)
        picture = small[0].round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


def curves(lines: Sequence[tuple[str, Sequence[float], Sequence[float]]], width: int = 900) -> Image.Image:
    """For each (title, asked, read) a plot over the frames from 0 to 1: asked grey and filled, read red."""
    from PIL import Image, ImageDraw, ImageFont

    font, height, left = ImageFont.load_default(TITLE - 3), 130, 34
    sheet = Image.new("RGB", (width, height * len(lines)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (title, asked, read) in enumerate(lines):
        top, bottom = i * height + TITLE + 8, (i + 1) * height - 10

        def points(values: Sequence[float], top: int = top, bottom: int = bottom) -> list[tuple[float, float]]:
            x = np.linspace(left, width - 8, len(values))
            y = bottom - np.clip(np.asarray(values), -0.1, 1.1) * (bottom - top)
            return list(zip(x.tolist(), y.tolist(), strict=True))

        for value in (0, 1):
            y = bottom - value * (bottom - top)
            draw.line([(left, y), (width - 8, y)], GREY)
            draw.text((left - 6, y), str(value), INK, font, anchor="rm")
        draw.polygon([(left, bottom), *points(asked), (width - 8, bottom)], GREY)
        draw.line(points(read), RED, 2)
        draw.text((left, i * height + TITLE / 2 + 2), title, INK, font, anchor="lm")
    return sheet
