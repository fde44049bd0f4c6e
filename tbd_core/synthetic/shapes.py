"""Antialiased shapes, composited back to front.

A shape is an implicit function of the picture's coordinates, negative inside. One function gives the share of
each pixel that it covers, at any size: the value divided by its own slope per pixel is the distance to the
edge in pixels, and a pixel is about as wide as that distance's step from 0 to 1.

Coordinates: x to the right, y downward, lengths in half pictures over `ZOOM`. Shapes as in `flow`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def pixel_slope(field: Tensor) -> Tensor:
    """How much `field` [B, H, W] changes from one pixel to the next, never 0."""
    rows, columns = torch.gradient(field, dim=(-2, -1))
    return (rows.square() + columns.square()).sqrt_().clamp_(min=1e-6)


def inside(field: Tensor) -> Tensor:
    """Share of each pixel where `field` [B, H, W] is negative, in [0, 1]."""
    return (0.5 - field / pixel_slope(field)).clamp_(0, 1)


def between(upper: Tensor, lower: Tensor, y: Tensor) -> Tensor:
    """Share of each pixel below the curve `upper` and above the curve `lower`; right for hair lines too."""
    return (inside(upper - y) + inside(y - lower) - 1).clamp_(min=0)


def stroke(offset: Tensor, half_width: Tensor, pixel: float) -> Tensor:
    """Share of each pixel on the line where the smooth function `offset` [B, H, W] is 0.

    `half_width` in picture units. A line thinner than a pixel grows paler, not jagged.
    """
    distance = offset.abs() / pixel_slope(offset)
    half = half_width / pixel
    drawn = half.clamp(min=0.5)
    return (0.5 + drawn - distance).clamp_(0, 1) * (half / drawn)


def ramp(value: Tensor, start: float | Tensor, end: float | Tensor) -> Tensor:
    """Smooth step from 0 at `start` to 1 at `end`."""
    t = ((value - start) / (end - start)).clamp(0, 1)
    return t * t * (3 - 2 * t)


ZOOM, MIDDLE_Y = 1.09, 0.045  # the picture shows x within ±1/ZOOM, y around MIDDLE_Y: the face fills it


@dataclass(frozen=True)
class Canvas:
    """A picture to paint on, or a window of one (it shares the pixels)."""

    image: Tensor  # [B, 3, H, W], painted in place
    x: Tensor  # [B or 1, H, W]
    y: Tensor
    pixel: float  # size of a pixel in picture units

    @classmethod
    def blank(cls, batch: int, size: int, device: torch.device | None = None) -> Canvas:
        line = ((torch.arange(size, device=device) + 0.5) * (2 / size) - 1) / ZOOM
        y, x = torch.meshgrid(line + MIDDLE_Y, line, indexing="ij")
        return cls(torch.zeros(batch, 3, size, size, device=device), x[None], y[None], 2 / size / ZOOM)

    def window(self, left: float, right: float, top: float, bottom: float) -> Canvas:
        """The part of a whole picture within these coordinates, so that small parts cost little."""
        size = self.image.shape[-1]
        edges = (left, right, top - MIDDLE_Y, bottom - MIDDLE_Y)
        x0, x1, y0, y1 = (max(0, round((edge * ZOOM + 1) * size / 2)) for edge in edges)
        x0, y0 = min(x0, size - 2), min(y0, size - 2)
        rows, columns = slice(y0, max(y1, y0 + 2)), slice(x0, max(x1, x0 + 2))
        return Canvas(
            self.image[..., rows, columns], self.x[..., rows, columns], self.y[..., rows, columns], self.pixel
        )

    def moved(self, shift_x: Tensor, shift_y: Tensor, angle: Tensor, pivot_y: float) -> Canvas:
        """The same pixels in a frame shifted by (x, y) and turned by `angle` radians about (0, pivot_y)."""
        x, y = self.x - shift_x, self.y - shift_y - pivot_y
        cos, sin = angle.cos(), angle.sin()
        return Canvas(self.image, x * cos + y * sin, y * cos - x * sin + pivot_y, self.pixel)

    def paint(self, cover: Tensor, colour: Tensor) -> None:
        """Lay `colour` ([B, 3, 1, 1] or [B, 3, H, W]) over the picture where `cover` [B, H, W] says."""
        self.image.add_(cover.unsqueeze(1) * (colour - self.image))

    def blob(self, x: Tensor | float, y: Tensor | float, radius_x: Tensor | float, radius_y: Tensor | float) -> Tensor:
        """A soft round spot, 1 in its middle."""
        return torch.exp(-(((self.x - x) / radius_x).square() + ((self.y - y) / radius_y).square()))

    def ellipse(self, x: Tensor | float, y: Tensor | float, rx: Tensor | float, ry: Tensor | float) -> Tensor:
        """Share of each pixel within an ellipse."""
        return inside(((self.x - x) / rx).square() + ((self.y - y) / ry).square() - 1)

    def curve(self, start, bend, end, half_width: Tensor | float, steps: int = 6) -> Tensor:
        """A line from `start` to `end` pulled by `bend` (a quadratic Bezier curve), thin at its ends.

        Points are pairs of [B, 1, 1] tensors or floats; `half_width` that of the middle.
        """
        points = []
        for i in range(steps + 1):
            t = i / steps
            a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
            points.append([torch.as_tensor(start[k] * a + bend[k] * b + end[k] * c) for k in (0, 1)])
        cover = torch.zeros(1)
        for i, ((x0, y0), (x1, y1)) in enumerate(zip(points[:-1], points[1:], strict=True)):
            dx, dy = x1 - x0, y1 - y0
            px, py = self.x - x0, self.y - y0
            t = ((px * dx + py * dy) / (dx * dx + dy * dy).clamp(min=1e-9)).clamp(0, 1)
            distance = ((px - t * dx).square() + (py - t * dy).square()).sqrt() / self.pixel
            along = (i + t) / steps
            half = half_width * (4 * along * (1 - along)).clamp(min=0).sqrt() / self.pixel
            drawn = half.clamp(min=0.5)
            cover = torch.maximum(cover, (0.5 + drawn - distance).clamp(0, 1) * (half / drawn))
        return cover
