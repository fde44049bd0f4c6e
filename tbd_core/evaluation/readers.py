"""A picture of a drawn face → what it shows: action units, mouth, closed eyes, emotion; and who it is (ours).

Two small convolutional nets, trained on true renders alone (`training/reader.py`), never on anything a model drew. The
expression is read against the person's portrait at rest, as FACS has it: a unit is a change. Both lie in one
safetensors whose header holds their sizes, how they were trained and how far they err on true renders.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..config import TINY_BUNDLE
from ..errors import InputError
from ..facs.emotions import EMOTIONS
from ..files import atomic, write_error
from ..synthetic.face import AU_NUMBERS, IDENTITY, NUM_IDENTITY


READER_FILE = TINY_BUNDLE.with_name("reader.safetensors")
FORMAT = 1
PIXELS = 128  # the side the nets read at
PATCH = 4  # pixels that become channels first
MAP = 4  # cells a side of the map whose positions are kept
MAP_CHANNELS, HIDDEN = 16, 96
EXPRESSION_WIDTHS, IDENTITY_WIDTHS = (40, 64, 80), (32, 48, 64)
NUM_UNITS = len(AU_NUMBERS)
READ_AT_ONCE = 32
WAY_OUT = "train it again with `tbd train`, or install the package again"


@dataclass(frozen=True)
class Readings:
    """What B faces show."""

    units: Tensor  # [B, NUM_UNITS, 2] levels, about 0..1 (A is 0.2, E is 1); subject's left, right
    mouth: Tensor  # [B, 3] opening, rounding, spread, about 0..1
    closed: Tensor  # [B] how far the eyes are shut, about 0..1
    emotions: Tensor  # [B, 8] logits in the order of EMOTIONS


def convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1), nn.GroupNorm(8, out), nn.SiLU())


class Trunk(nn.Module):
    """[B, C, 128, 128] → [B, outputs]: three levels (32, 16, 8 cells a side), then the mean over the picture beside a
    coarse map that keeps positions."""

    def __init__(self, channels: int, widths: tuple[int, int, int], outputs: int):
        super().__init__()
        first, second, third = widths
        self.levels = nn.Sequential(
            nn.PixelUnshuffle(PATCH),
            convolution(channels * PATCH**2, first),
            convolution(first, first),
            convolution(first, second, 2),
            convolution(second, second),
            convolution(second, third, 2),
            convolution(third, third),
        )
        self.map = nn.Sequential(nn.Conv2d(third, MAP_CHANNELS, 1), nn.AdaptiveAvgPool2d(MAP), nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(third + MAP_CHANNELS * MAP**2, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, outputs)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        seen = self.levels(pictures.contiguous(memory_format=torch.channels_last))
        return self.head(torch.cat([seen.mean((2, 3)), self.map(seen)], dim=1))


class ExpressionReader(nn.Module):
    """A frame and the same person's portrait at rest → `Readings`."""

    def __init__(self, widths: tuple[int, int, int] = EXPRESSION_WIDTHS):
        super().__init__()
        self.trunk = Trunk(6, widths, 2 * NUM_UNITS + 3 + 1 + len(EMOTIONS))

    def forward(self, frames: Tensor, portraits: Tensor) -> Readings:
        """Both [B, 3, H, W] in [0, 1]."""
        frames, portraits = fit_size(frames), fit_size(portraits)
        read = self.trunk(torch.cat([frames - 0.5, 2 * (frames - portraits)], dim=1))
        units, mouth, closed, emotions = read.split([2 * NUM_UNITS, 3, 1, len(EMOTIONS)], dim=1)
        return Readings(units.unflatten(1, (NUM_UNITS, 2)), mouth, closed[:, 0], emotions)


class IdentityReader(nn.Module):
    """A frame alone → the numbers that drew the person."""

    def __init__(self, widths: tuple[int, int, int] = IDENTITY_WIDTHS):
        super().__init__()
        self.trunk = Trunk(3, widths, NUM_IDENTITY)

    def forward(self, frames: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] → [B, NUM_IDENTITY], about 0..1."""
        return self.trunk(fit_size(frames) - 0.5)


def fit_size(pictures: Tensor) -> Tensor:
    if pictures.shape[-2:] == (PIXELS, PIXELS):
        return pictures
    return interpolate(pictures, (PIXELS, PIXELS), mode="bilinear", antialias=True)


@dataclass(frozen=True)
class Readers:
    """Both nets and what is known about them: `about["errors"]` is measured on true renders of people held out."""

    expression: ExpressionReader
    identity: IdentityReader
    about: dict[str, Any]

    @torch.inference_mode()
    def read(self, frames: Tensor, portraits: Tensor) -> Readings:
        """`frames` [B, 3, H, W], `portraits` [B or 1, 3, H, W], both in [0, 1]; any number of them."""
        portraits = portraits.expand(len(frames), -1, -1, -1)
        pairs = zip(frames.split(READ_AT_ONCE), portraits.split(READ_AT_ONCE), strict=True)
        parts = [self.expression(frame, portrait) for frame, portrait in pairs]
        return Readings(*(torch.cat([getattr(p, name) for p in parts]) for name in Readings.__dataclass_fields__))

    @torch.inference_mode()
    def who(self, frames: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] → [B, NUM_IDENTITY]."""
        return torch.cat([self.identity(part) for part in frames.split(READ_AT_ONCE)])


def describe() -> dict[str, Any]:
    """What a file of readers must agree with."""
    return {
        "format": FORMAT, "pixels": PIXELS, "units": list(AU_NUMBERS), "identity": list(IDENTITY),
        "emotions": list(EMOTIONS), "expression_widths": list(EXPRESSION_WIDTHS),
        "identity_widths": list(IDENTITY_WIDTHS),
    }  # fmt: skip


def save_readers(path: Path, readers: Readers) -> None:
    """Both nets as fp16, whole or not at all. InputError when the disk does not take it."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    nets = {"expression": readers.expression, "identity": readers.identity}
    tensors = {f"{k}.{n}": v.half().contiguous().cpu() for k, net in nets.items() for n, v in net.state_dict().items()}
    entry = json.dumps({**readers.about, **describe()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as partial:
            partial.touch()
            mode = partial.stat().st_mode  # what the umask allows; safetensors itself would leave 0600
            save_file(tensors, str(partial), {"tbd_reader": entry})
            partial.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise write_error(path, error) from error


def load_readers(path: Path = READER_FILE) -> Readers:
    """InputError when the file is missing, damaged, or was trained on other drawings than today's."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path} does not exist, so nothing can be read from drawn faces; {WAY_OUT}")
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})["tbd_reader"])
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (no mapping)
        differ = [key for key, value in describe().items() if about[key] != value]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        size = path.stat().st_size
        raise InputError(f"{path} ({size} bytes) is no file of face readers; {WAY_OUT}") from error
    if differ:
        raise InputError(f"{path} was trained on other drawings ({', '.join(differ)} differ); {WAY_OUT}")
    readers = Readers(ExpressionReader(), IdentityReader(), about)
    for name in ("expression", "identity"):
        state = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}
        try:
            getattr(readers, name).load_state_dict(state)
        except RuntimeError as error:
            raise InputError(f"{path} does not fit its own description ({name}); {WAY_OUT}") from error
        getattr(readers, name).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return readers
