"""Antialiased shapes, composited back to front.

A shape is an implicit function of the picture's coordinates, negative inside. One function gives the share of
each pixel that it covers, at any size: the value divided by its own slope per pixel is the distance to the
edge in pixels, and a pixel is about as wide as that distance's step from 0 to 1.

Coordinates: x to the right, y downward, lengths in half pictures over `ZOOM`. Shapes as in `flow`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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


Length = Tensor | float
Point = tuple[Length, Length]
Alpha = Tensor | tuple[Tensor, Tensor]
SOFT_REACH = 3.5  # radii; a soft spot is 5e-6 there


def across(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`left` on the subject's left, `right` on the other side, the smaller one in the middle."""
    least = torch.minimum(left, right)
    return least + (left - least) * ramp(x, 0.0, 0.10) + (right - least) * ramp(-x, 0.0, 0.10)


def extent(values: tuple[Length, ...]) -> tuple[float, float]:
    """Least and greatest of numbers and tensors."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    low = [float(value) for value in values if not isinstance(value, Tensor)]
    high = low + [float(value.amax()) for value in tensors]
    return min(low + [float(value.amin()) for value in tensors]), max(high)


@dataclass(frozen=True)
class Canvas:
    """A picture to paint on, or a window of one (it shares the pixels)."""

    image: Tensor  # [B, 3, H, W], painted in place
    x: Tensor  # [B or 1, H, W]
    y: Tensor
    pixel: float  # size of a pixel in picture units
    size: int  # pixels of the whole picture's side
    corner: tuple[int, int] = (0, 0)  # column and row of the window's first pixel
    reach: float = 0.0  # how far the frame has moved: windows grow to hold what moved

    @classmethod
    def blank(cls, batch: int, size: int, device: torch.device | None = None) -> Canvas:
        line = ((torch.arange(size, device=device) + 0.5) * (2 / size) - 1) / ZOOM
        y, x = torch.meshgrid(line + MIDDLE_Y, line, indexing="ij")
        return cls(torch.zeros(batch, 3, size, size, device=device), x[None], y[None], 2 / size / ZOOM, size)

    def window(self, left: float, right: float, top: float, bottom: float) -> Canvas:
        """The part within these coordinates (at least 2 x 2 pixels), so that small parts cost little."""
        r, (x0, y0) = self.reach, self.corner
        edges = (left - r, right + r, top - r - MIDDLE_Y, bottom + r - MIDDLE_Y)
        a, b, c, d = (round((edge * ZOOM + 1) * self.size / 2) for edge in edges)
        height, width = self.image.shape[-2:]
        a, c = min(max(a - x0, 0), width - 2), min(max(c - y0, 0), height - 2)
        b, d = max(b - x0, a + 2), max(d - y0, c + 2)
        return replace(
            self, image=self.image[..., c:d, a:b], x=self.x[..., c:d, a:b], y=self.y[..., c:d, a:b],
            corner=(x0 + a, y0 + c),
        )  # fmt: skip

    def moved(self, shift_x: Tensor, shift_y: Tensor, angle: Tensor, pivot_y: float) -> Canvas:
        """The same pixels in a frame shifted by (x, y) and turned by `angle` radians about (0, pivot_y)."""
        x, y = self.x - shift_x, self.y - shift_y - pivot_y
        cos, sin = angle.cos(), angle.sin()
        far = float(torch.maximum(shift_x.abs(), shift_y.abs()).amax() + 1.6 * angle.abs().amax())
        return replace(self, x=x * cos + y * sin, y=y * cos - x * sin + pivot_y, reach=far)

    def paint(self, cover: Tensor, colour: Tensor) -> None:
        """Lay `colour` ([B, 3, 1, 1] or [B, 3, H, W]) over the picture where `cover` [B, H, W] says."""
        self.image.add_(cover.unsqueeze(1) * (colour - self.image))

    def blob(self, x: Length, y: Length, radius_x: Length, radius_y: Length) -> Tensor:
        """A soft round spot, 1 in its middle."""
        return torch.exp(-(((self.x - x) / radius_x).square() + ((self.y - y) / radius_y).square()))

    def ellipse(self, x: Length, y: Length, rx: Length, ry: Length) -> Tensor:
        """Share of each pixel within an ellipse."""
        return inside(((self.x - x) / rx).square() + ((self.y - y) / ry).square() - 1)

    def curve(self, start: Point, bend: Point, end: Point, half_width: Length, steps: int = 6) -> Tensor:
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

    # Marks: small shapes painted where they are and on the faces that have them, so that they cost little.

    def spot(self, at: Point, radius: Point, alpha: Alpha, colour: Tensor, side: float = 0.0) -> None:
        """Paint a soft spot. `alpha`, `side`: see `mark`."""
        margin = tuple(SOFT_REACH * extent((r,))[1] for r in radius)
        self.mark(Canvas.blob, (*at, *radius), (at,), margin, alpha, colour, side)

    def dot(self, at: Point, radius: Point, alpha: Alpha, colour: Tensor, side: float = 0.0) -> None:
        """Paint an ellipse. `alpha`, `side`: see `mark`."""
        margin = tuple(extent((r,))[1] + 3 * self.pixel for r in radius)
        self.mark(Canvas.ellipse, (*at, *radius), (at,), margin, alpha, colour, side)

    def line(self, a: Point, b: Point, c: Point, half: Length, alpha: Alpha, colour: Tensor, side: float = 0.0) -> None:
        """Paint a curve from `a` over `b` to `c`, `half` its width wide. `alpha`, `side`: see `mark`."""
        margin = extent((half,))[1] + 2 * self.pixel
        shape = lambda canvas, ax, ay, bx, by, cx, cy, w: canvas.curve((ax, ay), (bx, by), (cx, cy), w, 4)  # noqa: E731
        self.mark(shape, (*a, *b, *c, half), (a, b, c), (margin, margin), alpha, colour, side)

    def mark(self, shape, numbers, points, margin, alpha: Alpha, colour: Tensor, side: float) -> None:
        """Paint `shape(canvas, *numbers)` near `points`.

        `alpha`: strength [B, 1, 1], or one for the subject's left and one for the right, blended in the middle.
        `side`: +1 or -1 keeps to that half, 0 paints both.
        """
        pair = alpha if isinstance(alpha, tuple) else (alpha,)
        batch = len(self.image)
        strongest = torch.stack([a.expand(batch, 1, 1) for a in pair]).amax(0).flatten()
        rows = (strongest > 1e-4).nonzero().flatten()
        if not len(rows):
            return
        some = len(rows) < batch

        def of(value):
            return value[rows] if some and isinstance(value, Tensor) and len(value) == batch > 1 else value

        points = [tuple(of(v) for v in point) for point in points]
        (left, right), (top, bottom) = (extent(tuple(point[k] for point in points)) for k in (0, 1))
        near = self.window(left - margin[0], right + margin[0], top - margin[1], bottom + margin[1])
        there = replace(near, image=of(near.image), x=of(near.x), y=of(near.y))
        pair = tuple(of(a) for a in pair)
        cover = shape(there, *(of(n) for n in numbers)) * (pair[0] if len(pair) == 1 else across(there.x, *pair))
        there.paint(cover * (there.x * side > 0) if side else cover, of(colour))
        if some:
            near.image[rows] = there.image
