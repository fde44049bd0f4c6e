"""The portrait: any picture file to [1, 3, H, W] in [-1, 1], upright, opaque, of the size that is drawn."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError
from .files import require_file
from .flow import Portrait
from .units import LATENT_SCALE


if TYPE_CHECKING:
    from PIL import Image

MIN_SIDE = 64  # pixels, of the shorter side
MAX_MEGAPIXELS = 100
MIN_SIZE, MAX_SIZE = 64, 2048  # pixels, each side of the drawn picture
CENTERING = (0.5, 0.4)  # where a crop lies, 0.5 the centre: faces sit above the middle of a picture
BACKGROUND = (128, 128, 128)  # behind transparent portraits: mid-grey, the networks' zero

WANTED = "a PNG, JPEG or WebP picture"
# What Pillow's readers raise on damaged data, each in its own way.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error)


def parse_size(text: str) -> tuple[int, int]:
    """Width and height in pixels: "128" is (128, 128), "256x128" is (256, 128). Raises InputError."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*(?:[xX×]\s*(\d{1,6})\s*)?", text)
    if not match:
        raise InputError(f"size is {text!r}; give one number or WxH, such as 128 or 256x128")
    width = int(match[1])
    return check_size((width, int(match[2]) if match[2] else width))


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """(W, H) in pixels, each a multiple of 8 from 64 to 2048. Raises InputError."""
    shown = f"{size[0]}x{size[1]}"
    for side in size:
        if not MIN_SIZE <= side <= MAX_SIZE:
            raise InputError(f"size {shown} has a side of {side} px; each is {MIN_SIZE} to {MAX_SIZE} px")
        if side % LATENT_SCALE:
            near = side // LATENT_SCALE * LATENT_SCALE
            raise InputError(f"size {shown} has a side of {side} px, no multiple of {LATENT_SCALE}; use {near}")
    return size


def check_portrait(path: str | Path) -> tuple[int, int]:
    """Everything that can be wrong with the file, without a network: decodes all of it.

    Returns the upright picture's (W, H) in pixels. Raises InputError.
    """
    image, _ = read_portrait(path)
    return image.size


def load_portrait(path: str | Path, size: tuple[int, int] | None, trained_square: int) -> Portrait:
    """The portrait as [1, 3, H, W] in [-1, 1].

    size  (W, H) pixels, multiples of 8: scaled to cover, then cropped. None: the square of `trained_square`
          pixels, cropped from the middle, a little above it for tall portraits.
    Works with grey, palette, CMYK, 16-bit, EXIF-rotated and transparent pictures (laid on mid-grey), and
    with the first frame of animated ones. `warnings` says what was cut, enlarged or laid on grey.
    Raises InputError.
    """
    image, notes = read_portrait(path)
    portrait = fit_portrait(image, size, trained_square, Path(path).name)
    return replace(portrait, warnings=(*notes, *portrait.warnings))


def fit_portrait(
    image: Image.Image,
    size: tuple[int, int] | None,
    trained_square: int,
    source: str,
    face: tuple[float, float, float, float] | None = None,
) -> Portrait:
    """As `load_portrait`, of an upright picture that is there already, in any mode.

    source  its name, for warnings and errors
    face    left, top, right, bottom in pixels of `image`: the crop, as large as ever, lies with its centre as close to
            the face's as the borders allow. None: a little above the middle.
    Raises InputError.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    target = check_size(size or (trained_square, trained_square))
    _check_dimensions(source, image.width, image.height)
    notes: list[str] = []
    image = _to_rgb(source, image, notes)
    notes += _size_notes(source, image.size, target)
    centering = CENTERING if face is None else centre_on(source, image.size, target, face)
    fitted = ImageOps.fit(image, target, method=Image.Resampling.LANCZOS, centering=centering)
    pixels = torch.from_numpy(np.asarray(fitted, dtype=np.float32) / 127.5 - 1.0)
    return Portrait(pixels.permute(2, 0, 1)[None].contiguous(), source=source, warnings=tuple(notes))


def centre_on(
    source: str, have: tuple[int, int], target: tuple[int, int], face: tuple[float, float, float, float]
) -> tuple[float, float]:
    """`ImageOps.fit`'s shares of what is cut off that lie left of and above a crop with the face in its centre."""
    left, top, right, bottom = face
    shown = f"the face of {source}, {left:g},{top:g} to {right:g},{bottom:g}"
    if not (left < right and top < bottom):
        raise InputError(f"{shown}, has no area; give its left, top, right and bottom in pixels")
    if not (left < have[0] and right > 0 and top < have[1] and bottom > 0):
        raise InputError(f"{shown}, lies outside the picture of {have[0]} x {have[1]} px; mark it inside")
    scale = max(target[0] / have[0], target[1] / have[1])
    shares = []
    for begin, end, whole, drawn in ((left, right, have[0], target[0]), (top, bottom, have[1], target[1])):
        spare = whole - drawn / scale
        share = ((begin + end) / 2 - drawn / scale / 2) / spare if spare > 0.5 else 0.5  # half a pixel: nothing is cut
        shares.append(min(1.0, max(0.0, share)))
    return shares[0], shares[1]


def _size_notes(name: str, have: tuple[int, int], target: tuple[int, int]) -> list[str]:
    """What is lost or made up by fitting a picture of `have` pixels into `target`."""
    (width, height), (new_width, new_height) = have, target
    scale = max(new_width / width, new_height / height)
    kept = (min(width, round(new_width / scale)), min(height, round(new_height / scale)))
    shown = f"{name} is {width} x {height} px"
    notes = []
    if kept != have:
        shape = "a square" if new_width == new_height else f"the shape of {new_width} x {new_height}"
        notes.append(f"{shown}; cropped to {shape} of {kept[0]} x {kept[1]} px")
    if scale > 1:
        notes.append(f"{shown}; enlarged {scale:.2g} times, so it will look soft")
    return notes


def read_portrait(path: str | Path) -> tuple[Image.Image, list[str]]:
    """The whole file as an upright RGB picture, and what was done to it. Raises InputError."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = require_file(path, WANTED)
    name = path.name
    # Pillow warns from 89 megapixels on and refuses from 179; our limit lies between, in our own words.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                _check_dimensions(name, image.width, image.height)
                image.load()
                notes = _page_notes(name, image)
                return _to_rgb(name, ImageOps.exif_transpose(image), notes), notes
        except InputError:
            raise
        except Image.DecompressionBombError as error:
            pixels = re.search(r"\d{6,}", str(error))
            raise _too_large(name, int(pixels[0]) if pixels else 0) from error
        except UnidentifiedImageError as error:
            raise InputError(f"{name} is not a picture that can be read; give {WANTED}") from error
        except DECODE_ERRORS as error:
            raise InputError(f"{name} is damaged or truncated ({error}); give a whole picture") from error


def _check_dimensions(name: str, width: int, height: int) -> None:
    """From the header alone, before anything is decoded."""
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise _too_large(name, width * height)
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{name} is {width} x {height} px; the shorter side must have at least {MIN_SIDE}")


def _too_large(name: str, pixels: int) -> InputError:
    amount = f"{pixels / 1e6:.2f}" if pixels else "far too many"
    return InputError(f"{name} has {amount} megapixels; at most {MAX_MEGAPIXELS} are allowed, so scale it down first")


def _page_notes(name: str, image: Image.Image) -> list[str]:
    """Animations and multi-page files: the first picture is used. (MPO: extra views in a phone's JPEG.)"""
    if image.format != "MPO" and getattr(image, "is_animated", False):
        return [f"{name} holds {getattr(image, 'n_frames', 'several')} pictures; the first is used"]
    return []


def opaque(name: str, image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """A picture of any mode as 8-bit RGB, and what was done to it (transparent parts are laid on mid-grey)."""
    notes: list[str] = []
    return _to_rgb(name, image, notes), tuple(notes)


def _to_rgb(name: str, image: Image.Image, notes: list[str]) -> Image.Image:
    """Any mode to 8-bit RGB; adds to `notes` when something transparent was laid on mid-grey."""
    from PIL import Image

    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        image = _to_8_bit(image)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() != (255, 255):
        notes.append(f"{name} is partly transparent; laid on mid-grey")
    ground = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    return Image.alpha_composite(ground, image).convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit grey (also when stored in 32-bit integers) and floating-point grey, in [0, 1] or [0, 255]."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    float_scale = 1.0 if values.max() <= 1.0 else 255.0
    full_scale = float_scale if image.mode == "F" else 65535.0
    return Image.fromarray(np.clip(values / full_scale * 255.0 + 0.5, 0, 255).astype(np.uint8))
