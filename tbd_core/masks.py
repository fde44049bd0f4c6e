"""A face box and a lip box → where Hallo's three audio branches speak, and what its face locator is shown.

All boxes are x, y, w, h in pixels of the *drawn* picture (`Crop.into`). As Hallo makes them (utils/util.py and
datasets/image_processor.py there, read and written anew), in 8 bits like its PNG files, so that its weights see what
they were trained on. Not built again: a box wider than the picture, which there leaves an empty mask, is cut here; a
mask that is white all over stays white, where there it turns black.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .errors import InputError
from .models.attention import AudioMasks
from .units import CLIP_FRAMES, LATENT_SCALE


if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

LEVELS = 4  # of the U-Net: 64, 32, 16 and 8 cells for 512 pixels
GRID = 64  # cells each way of the masks as they are blurred, whatever the picture's size
FACE_RATIO, LIP_RATIO = 1.2, 2.0  # the boxes are widened so much
FACE_KERNEL, LIP_KERNEL = 51, 31  # cells, of the Gaussians

Rect = tuple[float, float, float, float]


def audio_masks(face: Rect, lips: Rect, size: tuple[int, int], num_frames: int = CLIP_FRAMES) -> AudioMasks:
    """[F, h·w] in [0, 1] for each branch and level, finest first, rows of the picture after each other.

    full  all but the face        face  the face without the lips        lip  the lips
    size  W, H pixels; the levels have W/8, H/8 cells and their halves, rounded up as the U-Net's
    Raises InputError for a box that does not meet the picture.
    """
    import numpy as np
    import torch
    from PIL import Image

    seen = _blurred(rectangle(face, size, FACE_RATIO), FACE_KERNEL)
    speaking = _blurred(rectangle(lips, size, LIP_RATIO), LIP_KERNEL)
    full = ((1.0 - seen / 255.0) * 255).astype(np.uint8)  # cut, not rounded, as there
    between = np.clip(seen.astype(np.int16) - speaking, 0, 255).astype(np.uint8)

    def levels(mask: ndarray) -> list[Tensor]:
        found = []
        for width, height in level_sizes(size):
            small = Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR)
            row = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).flatten()
            found.append(row.expand(num_frames, -1))
        return found

    return AudioMasks(levels(full), levels(between), levels(speaking))


def locator_mask(face: Rect, size: tuple[int, int]) -> Tensor:
    """What FaceLocator is shown: [1, 3, H, W], 1 in the widened box of the face and 0 outside. Raises InputError."""
    import torch

    mask = torch.from_numpy(rectangle(face, size, FACE_RATIO) // 255).float()
    return mask.expand(1, 3, -1, -1).contiguous()


def level_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """W, H pixels → (w, h) cells of each level; a stride of two rounds up."""
    cells = [(size[0] // LATENT_SCALE, size[1] // LATENT_SCALE)]
    while len(cells) < LEVELS:
        cells.append((-(-cells[-1][0] // 2), -(-cells[-1][1] // 2)))
    return cells


def rectangle(box: Rect, size: tuple[int, int], ratio: float) -> ndarray:
    """uint8 [H, W]: 255 in `box` made `ratio` times as large about its middle and shifted inside, 0 elsewhere."""
    import numpy as np

    x, y, w, h = box
    if not (w > 0 and h > 0 and x < size[0] and y < size[1] and x + w > 0 and y + h > 0):
        raise InputError(
            f"the box {x:g},{y:g},{w:g},{h:g} does not meet the picture of {size[0]} x {size[1]} px; "
            "give X,Y,W,H in pixels inside it"
        )
    (left, right), (top, bottom) = (
        _widened(round(at), round(at + side), whole, ratio) for at, side, whole in ((x, w, size[0]), (y, h, size[1]))
    )
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def _widened(begin: int, end: int, whole: int, ratio: float) -> tuple[int, int]:
    """Hallo's `expand_region`, one axis: in whole pixels, rounded down, shifted inside; cut when it is too wide."""
    middle, half = (begin + end) // 2, (end - begin) * ratio // 2
    low, high = middle - half, middle + half
    if low < 0:
        low, high = 0, high - low
    if high > whole:
        low, high = low - (high - whole), whole
    return round(max(0, low)), round(high)


def _blurred(mask: ndarray, kernel: int) -> ndarray:
    """uint8 [H, W] → uint8 [GRID, GRID], softened and stretched to 0 .. 255, as OpenCV's `resize`, `GaussianBlur` and
    `normalize` do it: to the bit at 512 px, elsewhere one level of 255 away in a few cells at most."""
    import numpy as np
    import torch
    from torch.nn.functional import conv2d, interpolate, pad

    cells = torch.from_numpy(mask)[None, None].double()
    cells = interpolate(cells, (GRID, GRID), mode="bilinear", align_corners=False).round()
    weights = torch.tensor(gaussian_256ths(kernel), dtype=torch.float64)  # all sums stay whole, and so exact
    half = kernel // 2
    cells = conv2d(pad(cells, (half,) * 4, mode="reflect"), weights[None, None, None, :])
    cells = (conv2d(cells, weights[None, None, :, None])[0, 0] / 2**16 + 0.5).floor()
    least, most = cells.min(), cells.max()
    if most > least:
        cells = (cells - least) * (255 / (most - least))
    return cells.round().numpy().astype(np.uint8)


def gaussian_256ths(kernel: int) -> list[int]:
    """The weights of OpenCV's Gaussian over 8-bit pictures, in 256ths: rounded from the ends inwards, what is lost
    being carried to the next; the middle makes the sum 256. Its sigma is the one OpenCV takes for a kernel's size."""
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    exact = [math.exp(-((i - kernel // 2) ** 2) / (2 * sigma**2)) for i in range(kernel)]
    side, carried = [], 0.0
    for value in exact[: kernel // 2]:
        wanted = 256 * value / sum(exact) + carried
        side.append(round(wanted))
        carried = wanted - side[-1]
    return [*side, 256 - 2 * sum(side), *reversed(side)]
