"""A face's part of the picture, as the model's square sees it, and the drawn frames back into the picture.

picture [W, H] ──crop_around──► Crop ──take──► the drawn size ──► frames ──Paste──► frames of the picture's own size
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .faces import COMMAND_LINE, Choice, Request, Words, find_face
from .flow import Portrait
from .portrait import CENTERING, fit_portrait


if TYPE_CHECKING:
    from numpy import ndarray
    from PIL import Image

FEATHER = 0.1  # of the shorter side of what is pasted: the width over which it fades into the picture
MOST_PASTED = 4096  # pixels, each side of a video into which frames are pasted back

Rect = tuple[float, float, float, float]  # x, y, w, h in pixels, fractions too


@dataclass(frozen=True)
class Crop:
    """A rectangle of a picture, of the drawn size's shape.

    box      in pixels of the picture; what lies beyond its borders is mirrored
    picture  W, H pixels of the picture
    target   W, H pixels that are drawn
    """

    box: Rect
    picture: tuple[int, int]
    target: tuple[int, int]

    @property
    def scale(self) -> float:
        """Drawn pixels for each pixel of the picture."""
        return self.target[0] / self.box[2]

    def take(self, picture: Image.Image) -> Image.Image:
        """The crop of an RGB picture, as large as it is drawn."""
        import numpy as np
        from PIL import Image

        left, top, right, bottom = self._inside()
        (x0, y0), (x1, y1) = self._from_target(left, top), self._from_target(right, bottom)
        width, height = map(float, self.picture)
        edges = max(0.0, x0), max(0.0, y0), min(width, x1), min(height, y1)
        part = picture.resize((right - left, bottom - top), Image.Resampling.LANCZOS, box=edges)
        if part.size == self.target:
            return part
        beyond = ((top, self.target[1] - bottom), (left, self.target[0] - right), (0, 0))
        return Image.fromarray(np.pad(np.asarray(part), beyond, mode="reflect"))

    def into(self, box: Rect) -> Rect:
        """A box of the picture in drawn pixels."""
        across, down = self.target[0] / self.box[2], self.target[1] / self.box[3]
        x, y, w, h = box
        return (x - self.box[0]) * across, (y - self.box[1]) * down, w * across, h * down

    def back(self, box: Rect) -> Rect:
        """A box in drawn pixels as one of the picture: the inverse of `into`."""
        across, down = self.box[2] / self.target[0], self.box[3] / self.target[1]
        x, y, w, h = box
        return self.box[0] + x * across, self.box[1] + y * down, w * across, h * down

    def _from_target(self, x: int, y: int) -> tuple[float, float]:
        # A share of 1 is the far edge to the bit, so that a crop inside the picture is just what ImageOps.fit cuts.
        return self.box[0] + self.box[2] * (x / self.target[0]), self.box[1] + self.box[3] * (y / self.target[1])

    def _inside(self) -> tuple[int, int, int, int]:
        """left, top, right, bottom in drawn pixels of what shows the picture itself."""
        found = []
        for i in (0, 1):
            scale = self.target[i] / self.box[2 + i]
            begin, end = -self.box[i] * scale, (self.picture[i] - self.box[i]) * scale
            first = max(0, math.ceil(begin - 1e-6))
            found.append((first, max(first + 1, min(self.target[i], math.floor(end + 1e-6)))))
        (left, right), (top, bottom) = found
        return left, top, right, bottom


def whole_crop(
    picture: tuple[int, int], target: tuple[int, int], centering: tuple[float, float] = CENTERING
) -> Crop:  # fmt: skip
    """What `fit_portrait` cuts: the largest of the target's shape, when nothing is said of a face a little high."""
    width, height = picture
    shape = target[0] / target[1]
    if width / height >= shape:
        size = (float(width), float(height)) if width / height == shape else (shape * height, float(height))
    else:
        size = (float(width), width / shape)
    x, y = (width - size[0]) * centering[0], (height - size[1]) * centering[1]
    return Crop((x, y, *size), picture, target)


def crop_around(face: Rect, picture: tuple[int, int], target: tuple[int, int], margin: float) -> Crop:
    """The smallest rectangle of the target's shape with `face` and `margin` times its sides around it (ours).

    It is made smaller where the picture does not hold so much, but never smaller than the face; then it is shifted
    inside. Only a face whose shape cannot be widened inside the picture leaves a crop with mirrored borders.
    """
    x, y, w, h = face
    shape = target[0] / target[1]
    wanted = max(w * (1 + 2 * margin), h * (1 + 2 * margin) * shape)  # widths of crops of that shape
    width = max(min(wanted, picture[0], picture[1] * shape), w, h * shape)
    sides = (width, width / shape)
    corner = []
    for begin, face_side, side, whole in zip((x, y), (w, h), sides, picture, strict=True):
        low, high = sorted((0.0, whole - side))  # a crop that is larger than the picture holds all of it
        corner.append(min(high, max(low, begin + face_side / 2 - side / 2)))
    return Crop((corner[0], corner[1], *sides), picture, target)


@dataclass(frozen=True)
class Seen:
    """The face that is drawn, where it was cut from, and, when it is to go back there, the way."""

    choice: Choice
    crop: Crop
    paste: Paste | None = None

    def record(self) -> dict[str, Any]:
        """For the result and the video's metadata: boxes as x, y, w, h in pixels of the picture."""
        face = self.choice.face
        return {
            "said": self.choice.said,
            "box": None if face is None else list(face.box),
            "detector": None if face is None else face.detector,
            "score": None if face is None else face.score,
            "crop": [round(side, 2) for side in self.crop.box],
            "picture": list(self.crop.picture),
            "pasted_back": self.paste is not None,
        }


def see(
    picture: Image.Image, asked: Request, target: tuple[int, int], paste_back: bool, source: str
) -> tuple[Portrait, Seen]:
    """An upright RGB picture → what is drawn of it, [1, 3, H, W] in [-1, 1], and where that lies in it.

    target  W, H pixels that are drawn
    source  the picture's name, for messages
    Raises InputError: no such face, or a picture too large for a video.
    """
    if paste_back:
        check_pasted(picture.size, source, asked.words)
    return cut(picture, find_face(picture, asked, source), asked.margin, target, paste_back, source)


def cut(
    picture: Image.Image, choice: Choice, margin: float, target: tuple[int, int], paste_back: bool, source: str
) -> tuple[Portrait, Seen]:
    """As `see`, of a face that was chosen already."""
    if choice.face is None:
        crop = whole_crop(picture.size, target)
        portrait = fit_portrait(picture, target, target[0], source)
        notes = portrait.warnings
    else:
        crop = crop_around(choice.face.box, picture.size, target, margin)
        portrait = fit_portrait(crop.take(picture), target, target[0], source)
        notes = crop_notes(crop, choice.face.box, margin, source)
    notes = (*choice.warnings, *notes)
    paste = None
    if paste_back:
        paste = Paste(picture, crop)
        if paste.size != picture.size:
            notes += (
                f"{source} is {picture.width} x {picture.height} px and a video needs even sides; "
                f"pasted back into its first {paste.size[0]} x {paste.size[1]} px",
            )
    return Portrait(portrait.pixels, source, notes), Seen(choice, crop, paste)


def crop_notes(crop: Crop, face: Rect, margin: float, source: str) -> tuple[str, ...]:
    """What a crop around a face could not hold, and how far it is enlarged."""
    _, _, w, h = face
    shape = crop.target[0] / crop.target[1]
    wanted = max(w, h * shape) * (1 + 2 * margin)
    x, y, width, height = crop.box
    shown = f"{width:.0f} x {height:.0f} px"
    notes = []
    if wanted > width + 0.5:
        notes.append(
            f"{source}: a margin of {margin:g} around the face wants {wanted:.0f} x {wanted / shape:.0f} px, "
            f"of {crop.picture[0]} x {crop.picture[1]} px; {shown} are taken"
        )
    beyond = max(-x, x + width - crop.picture[0], -y, y + height - crop.picture[1])
    if beyond > 0.5:
        notes.append(
            f"{source}: the crop of {shown} around the face reaches {beyond:.0f} px over the picture's border, "
            "which is mirrored there; a face of another shape, or another size, has no need of it"
        )
    if crop.scale > 1:
        notes.append(
            f"{source}: the face is {w:.0f} x {h:.0f} px and its crop of {shown} is enlarged {crop.scale:.2g} times, "
            "so it will look soft; give a larger picture of it"
        )
    return tuple(notes)


def check_pasted(size: tuple[int, int], source: str, words: Words = COMMAND_LINE) -> None:
    """Raises InputError for a picture that is too large to be a video's frame."""
    if max(size) > MOST_PASTED:
        raise InputError(
            f"{source} is {size[0]} x {size[1]} px; to paste back, each side has at most {MOST_PASTED} px: "
            f"scale it down, or {words.not_pasted}"
        )


class Paste:
    """Drawn frames into the picture they were cut from, faded over FEATHER; at the picture's own border they end sharp.

    size   W, H of what comes out: the picture's, a last odd column or row left out (H.264 wants even sides)
    alpha  [h, w] in [0, 1], how much of the drawn frame shows in the region that it covers
    """

    def __init__(self, picture: Image.Image, crop: Crop, feather: float = FEATHER) -> None:
        import numpy as np

        self.crop = crop
        self.size = (picture.width // 2 * 2, picture.height // 2 * 2)
        x, y, w, h = crop.box  # of it the whole pixels that lie in the picture:
        self.left, self.right = math.ceil(max(0.0, x - 1e-6)), math.floor(min(float(self.size[0]), x + w + 1e-6))
        self.top, self.bottom = math.ceil(max(0.0, y - 1e-6)), math.floor(min(float(self.size[1]), y + h + 1e-6))
        width = feather * min(self.right - self.left, self.bottom - self.top)
        across = _ramp(self.left, self.right, self.size[0], width)
        down = _ramp(self.top, self.bottom, self.size[1], width)
        self.alpha = down[:, None] * across[None, :]
        self._picture = np.asarray(picture)[: self.size[1], : self.size[0]].copy()
        region = self._picture[self.top : self.bottom, self.left : self.right]
        self._kept = region * (1 - self.alpha)[..., None]

    def frames(self, drawn: ndarray) -> Iterator[ndarray]:
        """uint8 [F, h, w, 3] of the crop's target size → F times uint8 [1, H, W, 3], one at a time for memory."""
        import numpy as np
        from PIL import Image

        x, y, w, h = self.crop.into((self.left, self.top, self.right - self.left, self.bottom - self.top))
        target = self.crop.target
        edges = (max(0.0, x), max(0.0, y), min(float(target[0]), x + w), min(float(target[1]), y + h))
        for frame in drawn:
            part = Image.fromarray(frame).resize(self.alpha.shape[::-1], Image.Resampling.LANCZOS, box=edges)
            whole = self._picture.copy()
            mixed = self._kept + np.asarray(part) * self.alpha[..., None]
            whole[self.top : self.bottom, self.left : self.right] = (mixed + 0.5).astype(np.uint8)
            yield whole[None]


def _ramp(begin: int, end: int, whole: int, width: float) -> ndarray:
    """[end - begin], float32: from 0 at each edge smoothly to 1 over `width` pixels; an edge of the picture is 1."""
    import numpy as np

    at = np.arange(end - begin, dtype=np.float32) + 0.5
    near = np.full_like(at, np.inf)
    if begin > 0:
        near = np.minimum(near, at)
    if end < whole:
        near = np.minimum(near, end - begin - at)
    share = np.clip(near / max(width, 1e-6), 0, 1)
    return share * share * (3 - 2 * share)


__all__ = ["Crop", "Paste", "Seen", "check_pasted", "crop_around", "cut", "see", "whole_crop"]
