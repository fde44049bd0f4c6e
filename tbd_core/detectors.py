"""Pictures in, faces out: detectors of faces, all of them optional packages.

Nothing is downloaded: `lbp` has its cascade in scikit-image's wheel, the others read a file that the user has.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .errors import InputError
from .files import require_file


if TYPE_CHECKING:
    from numpy import ndarray

Box = tuple[int, int, int, int]  # x, y, w, h in pixels of the picture

# Where the lips of a face at rest lie in `lbp`'s box, as shares of its sides: left, top, width, height. Ours, seen on
# photographs, paintings, a statue and the project's own drawn faces.
LIPS = (0.30, 0.71, 0.40, 0.18)


@dataclass(frozen=True)
class Words:
    """What a user sets, in the words of the place where it is set, for messages; by default the command line's."""

    model: str = "--face-model"
    by_hand: str = "set face to its X,Y,W,H in pixels, or to whole"
    another: str = "set face to another number"
    not_pasted: str = "leave --paste-back out"


COMMAND_LINE = Words()


@dataclass(frozen=True)
class Face:
    """One face of a picture.

    box    inside the picture; `lbp`'s reaches from the forehead to the chin
    score  on the detector's own scale, more is surer; None: it has none
    lips   None: the detector does not tell
    """

    box: Box
    score: float | None = None
    detector: str = "by hand"
    lips: Box | None = None
    points: tuple[tuple[float, float], ...] | None = None  # both eyes, nose, both corners of the mouth; insightface's

    def lip_box(self) -> Box:
        """The detector's, or where lips mostly are in such a face (LIPS)."""
        x, y, w, h = self.box
        left, top, width, height = LIPS
        return self.lips or (round(x + left * w), round(y + top * h), round(width * w), round(height * h))


class Detector(Protocol):
    """`hint` says which faces it misses."""

    name: str
    hint: str

    def least(self, size: tuple[int, int]) -> int:
        """The smallest side in pixels of a face that it looks for in a picture of `size` (W, H); 0: not known."""
        ...

    def find(self, pixels: ndarray) -> list[Face]:
        """uint8 [H, W, 3] RGB → the faces, in any order."""
        ...


class Lbp:
    """Local binary patterns in a cascade (OpenCV's frontal face, BSD licence) by scikit-image, whose wheel brings it.

    The cascade says yes or no to a window. Many windows around a real face are yes, few around a chance likeness: so
    windows are gathered where they overlap, and a face needs VOTES of them (its score). Ours; the numbers were tried
    on photographs, paintings, a statue, drawn faces and pictures without any (tests hold some of them).
    """

    name = "lbp"
    hint = "it sees faces from the front: profiles, covered, small and some drawn ones it misses"
    WINDOW = 24  # pixels, the cascade's own
    SEARCHED = 480  # pixels: larger pictures are made so small, for time and against chance likenesses
    VOTES = 10

    def __init__(self, words: Words = COMMAND_LINE) -> None:
        feature = optional("skimage.feature", "scikit-image>=0.22", self.name, words)
        data = optional("skimage.data", "scikit-image>=0.22", self.name, words)
        self._cascade = feature.Cascade(data.lbp_frontal_face_cascade_filename())

    def least(self, size: tuple[int, int]) -> int:
        return round(self.WINDOW * max(1.0, max(size) / self.SEARCHED))

    def find(self, pixels: ndarray) -> list[Face]:
        import numpy as np
        from PIL import Image

        height, width = pixels.shape[:2]
        scale = max(1.0, max(width, height) / self.SEARCHED)
        small = Image.fromarray(pixels).resize(
            (max(1, round(width / scale)), max(1, round(height / scale))), Image.Resampling.LANCZOS
        )
        if min(small.size) < self.WINDOW:
            return []
        windows = self._cascade.detect_multi_scale(
            np.asarray(small), scale_factor=1.1, step_ratio=1, min_size=(self.WINDOW,) * 2,
            max_size=(min(small.size),) * 2, min_neighbor_number=0, intersection_score_threshold=2.0,  # ungrouped
        )  # fmt: skip
        found = gather([(one["c"] * scale, one["r"] * scale, one["width"] * scale) for one in windows])
        faces: list[Face] = []
        for votes, (x, y, side) in found:  # strongest first
            box = clip_box((x, y, x + side, y + side), (width, height))
            if votes >= self.VOTES and box and not any(_inside(box, other.box) > 0.5 for other in faces):
                faces.append(Face(box, float(votes), self.name))
        return faces


def gather(windows: Sequence[tuple[float, float, float]]) -> list[tuple[int, tuple[float, float, float]]]:
    """Square windows (x, y, side) → (how many, their median) of each group that overlaps, the most first."""
    from statistics import median

    groups: list[list[tuple[float, float, float]]] = []
    middles: list[tuple[float, float, float]] = []
    for window in sorted(windows, key=lambda one: -one[2]):
        shares = [_shared(window, middle) for middle in middles]
        best = max(range(len(shares)), key=shares.__getitem__, default=None)
        if best is None or shares[best] < 0.3:
            groups.append([window])
            middles.append(window)
            continue
        groups[best].append(window)
        x, y, side = (median(values) for values in zip(*groups[best], strict=True))
        middles[best] = x, y, side
    pairs = [(len(group), middle) for group, middle in zip(groups, middles, strict=True)]
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1]))


def _shared(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """Intersection over union of two squares."""
    common = _common((*one, one[2]), (*other, other[2]))
    return common / (one[2] ** 2 + other[2] ** 2 - common)


def _inside(box: Box, other: Box) -> float:
    """The share of the smaller box that both have."""
    return _common(box, other) / min(box[2] * box[3], other[2] * other[3])


def _common(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    across, down = (min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return max(0.0, across) * max(0.0, down)


class MediaPipe:
    """MediaPipe's face detector (Apache 2.0, and so is its model file, blaze_face_short_range.tflite)."""

    name = "mediapipe"
    hint = "its short-range model looks for faces near the camera"
    MOUTH = 3  # of its six points

    def __init__(self, model: Path, words: Words = COMMAND_LINE) -> None:
        package = optional("mediapipe", "mediapipe>=0.10.14", self.name, words)
        self._model = model
        vision = optional("mediapipe.tasks.python.vision", "mediapipe>=0.10.14", self.name, words)
        self._image, self._format = package.Image, package.ImageFormat.SRGB
        try:
            self._detector = vision.FaceDetector.create_from_model_path(str(model))
        except (RuntimeError, ValueError, OSError) as error:
            raise _no_model(self.name, model, error) from error

    def least(self, size: tuple[int, int]) -> int:
        return 0

    def find(self, pixels: ndarray) -> list[Face]:
        import numpy as np

        height, width = pixels.shape[:2]
        try:
            found = self._detector.detect(self._image(self._format, np.ascontiguousarray(pixels)))
        except RuntimeError as error:  # another model's outputs, the full-range one's for example
            raise _no_model(self.name, self._model, error) from error
        faces = []
        for one in found.detections:
            x, y, w, h = (getattr(one.bounding_box, key) for key in ("origin_x", "origin_y", "width", "height"))
            lips = None
            if one.keypoints and len(one.keypoints) > self.MOUTH:
                at = one.keypoints[self.MOUTH]
                lips = _lips(at.x * width, at.y * height, LIPS[2] * w, (width, height))
            if box := clip_box((x, y, x + w, y + h), (width, height)):
                faces.append(Face(box, float(one.categories[0].score), self.name, lips))
        return faces


class InsightFace:
    """insightface's SCRFD. The package is MIT; the **models its authors give out are for non-commercial research
    only**, so that this is for those who may use them."""

    name = "insightface"
    hint = "it looks for faces with a score of 0.5 or more"
    INPUT = (640, 640)
    packages = "insightface onnxruntime"

    def __init__(self, model: Path, words: Words = COMMAND_LINE) -> None:
        zoo = optional("insightface.model_zoo", self.packages, self.name, words)
        try:
            self._detector = zoo.get_model(str(model))
            self._detector.prepare(ctx_id=-1, input_size=self.INPUT)
        except Exception as error:  # onnxruntime's errors share no other base; a wrong model gives None
            raise _no_model(self.name, model, error) from error

    def least(self, size: tuple[int, int]) -> int:
        return 0

    def find(self, pixels: ndarray) -> list[Face]:
        size = (pixels.shape[1], pixels.shape[0])
        boxes, points = self._detector.detect(pixels[:, :, ::-1].copy(), input_size=self.INPUT)  # it wants BGR
        faces = []
        for i, (left, top, right, bottom, score) in enumerate(boxes.tolist()):
            lips, marks = None, None
            if points is not None:
                marks = tuple((float(x), float(y)) for x, y in points[i][:5].tolist())
                (ax, ay), (bx, by) = marks[3:5]  # the mouth's corners
                lips = _lips((ax + bx) / 2, (ay + by) / 2, abs(bx - ax), size)
            if box := clip_box((left, top, right, bottom), size):
                faces.append(Face(box, score, self.name, lips, marks))
        return faces


WITH_FILE = {kind.name: kind for kind in (MediaPipe, InsightFace)}
DETECTORS = (Lbp.name, *WITH_FILE)
LICENCES = {
    MediaPipe.name: "such as blaze_face_short_range.tflite, Apache 2.0",
    InsightFace.name: "such as det_10g.onnx; insightface's models are for non-commercial research only",
}


def load_detector(name: str, model: Path | None = None, words: Words = COMMAND_LINE) -> Detector:
    """A detector by its name. `model`: the file of those that bring none. Raises InputError."""
    if name == Lbp.name:
        return Lbp(words)
    if model is None:
        raise InputError(
            f"face detector {name} needs 1 model file, and 0 are given; set {words.model} ({LICENCES[name]}), "
            "or use lbp"
        )
    return WITH_FILE[name](require_file(model, f"the model of {name} ({LICENCES[name]})"), words)


def optional(module: str, wanted: str, detector: str, words: Words = COMMAND_LINE) -> Any:
    """An optional package's module. InputError that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        quoted = " ".join(f'"{one}"' for one in wanted.split())
        raise InputError(
            f"face detector {detector} needs {module.split('.')[0]}, which is not usable here ({error}); run "
            f'`"{sys.executable}" -m pip install {quoted}`, or {words.by_hand}'
        ) from error


def clip_box(edges: tuple[float, float, float, float], size: tuple[int, int]) -> Box | None:
    """left, top, right, bottom → what of it lies inside a picture of `size` (W, H), in whole pixels; None: nothing."""
    left, right = (min(size[0], max(0, round(edges[i]))) for i in (0, 2))
    top, bottom = (min(size[1], max(0, round(edges[i]))) for i in (1, 3))
    return (left, top, right - left, bottom - top) if left < right and top < bottom else None


def _lips(x: float, y: float, width: float, size: tuple[int, int]) -> Box | None:
    """A box around the middle of a mouth."""
    height = width * LIPS[3] / LIPS[2]
    return clip_box((x - width / 2, y - height / 2, x + width / 2, y + height / 2), size)


def _no_model(name: str, model: Path, error: Exception) -> InputError:
    said = " ".join(str(error).split())[:200]
    return InputError(f"{model} cannot be used by {name} ({said}); give 1 file of it: {LICENCES[name]}")
