"""Pictures of what is otherwise a table: the schedule of the prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .flow import Schedule


if TYPE_CHECKING:
    from PIL import Image

# Okabe and Ito's colours, told apart by colour-blind people too; stage j takes the j-th, from the first on again.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
INK, PAPER, GRID = "#222222", "#ffffff", "#888888"
SIZE = (640, 280)  # pixels, width and height
GAP_FROM = 6  # pixels per step from which steps are told apart by a line


def plot_area(size: tuple[int, int] = SIZE) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the bars in a plot of `size`, in pixels; right and bottom are excluded."""
    width, height = size
    return width // 12, height // 5, width - width // 24, height - height // 5


def schedule_plot(schedule: Schedule, size: tuple[int, int] = SIZE) -> Image.Image:
    """One bar for each of the S steps, shared among the K prompts by their weights, the first prompt at the bottom.

    `size`: width and height in pixels. RGB.
    """
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = plot_area(size)
    font = ImageFont.load_default(max(8, size[1] // 20))
    wide = (right - left) / schedule.steps
    for step, row in enumerate(schedule.weights):
        begin, end, height = left + round(step * wide), left + round((step + 1) * wide), 0.0
        for stage, weight in enumerate(row):
            low, height = bottom - round(height * (bottom - top)), height + weight
            high = bottom - round(height * (bottom - top))
            if high < low and begin < end:
                colour = COLOURS[stage % len(COLOURS)]
                draw.rectangle((begin, high, end - 1, low - 1), fill=colour)
        if wide >= GAP_FROM and step > 0:
            draw.line((begin, top, begin, bottom - 1), fill=PAPER)
    _words(draw, font, schedule, size)
    return picture


def _words(draw, font, schedule: Schedule, size: tuple[int, int]) -> None:
    """Title, legend and scales around the bars."""
    left, top, right, bottom = plot_area(size)
    unit = max(8, size[1] // 20)
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        draw.text((left - unit / 2, y), f"{share:g}", INK, font, anchor="rm")
        draw.line((left - unit / 4, y, left - 1, y), fill=GRID)
    below = bottom + unit
    draw.text((left, below), "step 1: pure noise", INK, font, anchor="lm")
    draw.text((right, below), f"step {schedule.steps}: the picture", INK, font, anchor="rm")
    for boundary in schedule.split:
        x = left + boundary * (right - left)
        draw.line((x, top - unit / 3, x, top - 1), fill=INK)
        draw.text((x, top - unit / 2), f"{boundary:.3g}", INK, font, anchor="ms")
    title = f"{schedule.blend}, {schedule.steps} steps"
    draw.text((left, top - 2 * unit), title, INK, font, anchor="ls")
    each = (right - left) / schedule.stages
    for stage in range(schedule.stages):
        x, y = left + stage * each, size[1] - unit
        draw.rectangle((x, y - unit / 2, x + unit, y + unit / 2), fill=COLOURS[stage % len(COLOURS)])
        draw.text((x + 1.5 * unit, y), _name(stage, schedule.stages), INK, font, anchor="lm")


def _name(stage: int, stages: int) -> str:
    end = {0: " (coarse)", stages - 1: " (fine)"} if stages > 1 else {}
    return f"prompt {stage + 1}{end.get(stage, '')}"
