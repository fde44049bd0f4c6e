"""A host's picture → the face cut out of it, with the way back; the host's frames → pasted back there.

IMAGE [1, H, W, C] ──cut_out──► Found: IMAGE [1, h, w, 3], mask, box, Cutout ──paste_back(frames)──► IMAGE [F, H, W, 3]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .crops import FEATHER, Crop, Paste, check_pasted, crop_around, cut, whole_crop
from .detectors import DETECTORS, InsightFace, Lbp, MediaPipe
from .errors import InputError
from .faces import DEFAULT_MARGIN, MOST_MARGIN, Request, Words, find_face
from .host import MODES, face_box, image_to_pil, to_bytes, to_image
from .portrait import MAX_SIZE, MIN_SIZE, check_size, opaque
from .units import LATENT_SCALE


if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

PICTURE = "the picture"  # its name in messages
FACES = ("largest", "number", "box", "whole")
ENDINGS = {MediaPipe.name: (".tflite", ".task"), InsightFace.name: (".onnx",)}
MOST_FEATHER = 0.5
SHAPE_TOLERANCE = 0.02  # how far frames' width/height may differ from the crop's: what multiples of 8 px make of it
WORDS = Words(
    model="model_file",
    by_hand="set face to box and give its x,y,width,height in pixels, or set face to whole",
    another="set face to number and choose another",
    not_pasted="leave Paste Face Back out",
)


@dataclass(frozen=True, eq=False, repr=False)
class Cutout:
    """Where a face was cut out of which picture."""

    picture: Image.Image  # RGB, whole
    crop: Crop
    said: str

    def __repr__(self) -> str:
        x, y, w, h = self.crop.box
        return f"Cutout({w:.0f} x {h:.0f} px at {x:.0f},{y:.0f} of {self.picture.width} x {self.picture.height})"


@dataclass(frozen=True, eq=False)
class Found:
    """What `cut_out` gives."""

    image: Tensor  # [1, h, w, 3] in [0, 1]
    mask: Tensor  # [1, h, w], 1 on the face; all 0: the whole picture was taken
    box: str  # "x,y,width,height" of the face in pixels of `image`; "": the whole picture was taken
    cutout: Cutout
    said: str  # what was found and taken, with the warnings, a line each
    warnings: tuple[str, ...]


def ask(
    face: str, number: int = 1, box: str = "", margin: float = DEFAULT_MARGIN, detector: str = Lbp.name,
    model: Path | None = None,
) -> Request:  # fmt: skip
    """What a host's fields say, as a Request; what another choice of `face` leaves unused is not looked at.

    face   of FACES. number: counted from 1, from left to right. box: "x,y,width,height" in pixels
    Raises InputError.
    """
    if face not in FACES:
        raise InputError(f"face is {face!r}; choose {', '.join(FACES)}")
    if face == "whole":
        return Request("whole", words=WORDS)
    if not 0 <= margin <= MOST_MARGIN:  # NaN is not between either
        raise InputError(f"margin is {margin:g}; give a number from 0 to {MOST_MARGIN:g}")
    if face == "box":
        edges = face_box(box, None, (0, 0))
        if edges is None:
            raise InputError("face is box, and box is blank; give x,y,width,height of the face in pixels")
        left, top, right, bottom = (round(edge) for edge in edges)
        return Request((left, top, right - left, bottom - top), margin, words=WORDS)
    if detector not in DETECTORS:
        raise InputError(f"detector is {detector!r}; choose {', '.join(DETECTORS)}")
    if detector == Lbp.name:
        model = None  # it brings its own
    elif model is not None and model.suffix.lower() not in ENDINGS[detector]:
        endings = " or ".join(ENDINGS[detector])
        raise InputError(f"model_file {model.name} is no file of {detector}'s; give one that ends in {endings}")
    if face == "number" and number < 1:
        raise InputError(f"number is {number}; faces are numbered from 1, from left to right")
    return Request(number if face == "number" else "largest", margin, detector, model, WORDS)


def cut_out(image: Tensor, asked: Request, width: int = 0, height: int = 0) -> Found:
    """The face of one picture [1, H, W, C] in [0, 1] that is asked for.

    width, height  of what is cut out, in pixels, multiples of 8; one of them 0: as the other; both: a square as large
                   as the crop is in the picture (to the next 8)
    InputError: a batch, no such face, a box outside, a size that cannot be drawn, a detector that is not installed.
    """
    import torch

    picture, notes = opaque(PICTURE, image_to_pil(image))
    target = check_size((width or height, height or width)) if width or height else None
    choice = find_face(picture, asked, PICTURE)
    if target is None:
        side = _side(picture.size, None if choice.face is None else choice.face.box, asked.margin)
        target = (side, side)
    portrait, seen = cut(picture, choice, asked.margin, target, False, PICTURE)
    mask = torch.zeros((1, target[1], target[0]))
    box = ""
    if choice.face is not None:
        x, y, w, h = seen.crop.into(choice.face.box)
        left, right = (min(target[0], max(0, round(edge))) for edge in (x, x + w))
        top, bottom = (min(target[1], max(0, round(edge))) for edge in (y, y + h))
        mask[:, top:bottom, left:right] = 1
        box = f"{left},{top},{right - left},{bottom - top}"
    warnings = (*notes, *portrait.warnings)
    said = "\n".join([choice.said, *warnings])
    return Found(to_image(portrait.pixels), mask, box, Cutout(picture, seen.crop, choice.said), said, warnings)


def _side(picture: tuple[int, int], face: tuple[int, int, int, int] | None, margin: float) -> int:
    """Pixels of the square around the face (None: of the whole picture) as it lies in the picture, a multiple of 8."""
    square = (LATENT_SCALE, LATENT_SCALE)
    crop = whole_crop(picture, square) if face is None else crop_around(face, picture, square, margin)
    side = crop.box[2]
    return min(MAX_SIZE, max(MIN_SIZE, round(side / LATENT_SCALE) * LATENT_SCALE))


def paste_back(
    frames: Tensor, cutout: Cutout, feather: float = FEATHER, free: float = float("inf"),
    on_frame: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, tuple[str, ...]]:  # fmt: skip
    """Frames [F, h, w, C] in [0, 1], of the crop's shape and any size → ([F, H, W, 3] of the picture's size, warnings).

    C         1 (grey), 3 or 4
    feather   over which the frames fade into the picture, as a share of the crop's shorter side, 0 to 0.5
    free      bytes of memory that the result may take
    on_frame  (frames done, frames in all), after each; it may raise to cancel
    InputError: frames of another shape or of 2 channels, more than fits into memory, a picture too large for a video.
    """
    import torch

    if not 0 <= feather <= MOST_FEATHER:
        raise InputError(f"feather is {feather:g}; give a number from 0 to {MOST_FEATHER:g}")
    if frames.ndim != 4 or frames.shape[3] not in MODES:
        raise InputError(f"the frames have the shape {list(frames.shape)}; give frames x height x width x 1, 3 or 4")
    if frames.shape[3] == 1:
        frames = frames.expand(-1, -1, -1, 3)
    count, height, width = frames.shape[:3]
    crop, size = cutout.crop, cutout.picture.size
    _check_shape((width, height), crop)
    check_pasted(size, PICTURE, WORDS)
    paste = Paste(cutout.picture, replace(crop, target=(width, height)), feather)
    shape = (count, paste.size[1], paste.size[0], 3)
    needed = 4 * count * paste.size[0] * paste.size[1] * 3
    if needed > free:
        raise InputError(
            f"{count} frames of {paste.size[0]} x {paste.size[1]} px take {needed / 1e9:.2f} GB of memory, "
            f"{free / 1e9:.2f} GB are free; give a smaller picture or fewer frames"
        )
    out = torch.empty(shape)
    for i in range(count):  # one at a time: nothing but the result grows with their number
        (whole,) = paste.frames(to_bytes(frames[i : i + 1]))
        out[i] = torch.from_numpy(whole[0]).float() / 255
        if on_frame:
            on_frame(i + 1, count)
    if paste.size == size:
        return out, ()
    return out, (
        f"{PICTURE} is {size[0]} x {size[1]} px and a video needs even sides; pasted back into its first "
        f"{paste.size[0]} x {paste.size[1]} px",
    )


def _check_shape(frame: tuple[int, int], crop: Crop) -> None:
    """InputError when the frames show something else than the crop."""
    have, want = frame[0] / frame[1], crop.target[0] / crop.target[1]
    if abs(have / want - 1) > SHAPE_TOLERANCE:
        raise InputError(
            f"the frames are {frame[0]} x {frame[1]} px, and what was cut out is {crop.target[0]} x {crop.target[1]} "
            "px; draw frames of the same shape (width and height), and of nothing but what was cut out"
        )


__all__ = ["FACES", "WORDS", "Cutout", "Found", "ask", "cut_out", "paste_back"]
