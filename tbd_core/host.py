"""What a host (ComfyUI) hands over and gets back: pictures and sound as float tensors, models in its keeping."""

from __future__ import annotations

import logging
import re
import wave
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .speech import speech_from_samples
from .units import LATENT_SCALE


if TYPE_CHECKING:
    from numpy import ndarray
    from PIL import Image
    from torch import Tensor

    from .config import ModelConfig
    from .crops import Seen
    from .flow import Speech

KEY = "tbd"  # of what is attached to a MODEL
SAMPLE = Path(__file__).parent / "assets" / "sample"
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels of a picture -> Pillow's name
BOX = re.compile(r"\s*" + r"\s*,\s*".join([r"(-?\d{1,6}(?:\.\d*)?)"] * 4) + r"\s*")


@dataclass(frozen=True, eq=False)
class Parts:
    """What nodes need of a MODEL beside it; LoRA loaders and others hand it on with their copies."""

    config: ModelConfig
    bundle: Path
    dtype: Any  # torch's, that is computed in
    reference: Any  # ReferenceNet, in the host's keeping
    empty: Tensor  # [1, N, D], the empty prompt: ReferenceNet's own context
    face: Any = None  # Hallo's ImageProjection and FaceLocator by their names, in the host's keeping


@dataclass(frozen=True, eq=False)
class AudioEncoder:
    patcher: Any  # models.hosted.AudioEncoderModule, in the host's keeping
    bundle: Path | None  # None: it came by itself
    chunk: int | None  # frames listened to at once (ModelConfig.audio_chunk)


def tbd_parts(model: Any) -> Parts:
    """InputError when the MODEL is another's."""
    parts = model.get_attachment(KEY)
    if parts is None:
        kind = type(model.model).__name__
        raise InputError(f"this MODEL is of type {kind}, not Think-Before-Draw's; use Load TBD Model's")
    return parts


def check_vae(vae: Any, parts: Parts) -> tuple[str, ...]:
    """Warnings; InputError when the VAE's latents have another shape than the model's."""
    have, want = (vae.latent_channels, vae.spacial_compression_encode()), (parts.config.unet.in_channels, LATENT_SCALE)
    if have != want:
        raise InputError(
            f"the VAE has {have[0]} channels at 1/{have[1]} of the size, this model wants {want[0]} at 1/{want[1]}; "
            "use the VAE of Load TBD Model"
        )
    bundle = getattr(vae, "bundle", None)
    if bundle == parts.bundle:
        return ()
    kind = type(getattr(vae, "first_stage_model", vae)).__name__
    whose = f"of type {kind}" if bundle is None else f"{bundle.name}'s"
    return (f"the VAE is {whose}, the MODEL {parts.bundle.name}'s; colours may be wrong",)


def check_bundles(parts: Parts, **encoded: Path | None) -> tuple[str, ...]:
    """Warnings about what was encoded by another bundle than the MODEL's, `reference=…` and `audio=…`: of the same
    shape, but it means something else. None: an encoder that somebody chose is of no bundle."""
    return tuple(
        f"the {name} was encoded by {bundle.name}, the MODEL is {parts.bundle.name}'s; use one Load TBD Model for both"
        for name, bundle in encoded.items()
        if bundle is not None and bundle != parts.bundle
    )


def image_to_pil(images: Tensor) -> Image.Image:
    """[1, H, W, C] in [0, 1] → a Pillow picture of 8 bits. InputError for a batch and for other shapes."""
    from PIL import Image

    if len(images) != 1:
        raise InputError(f"got a batch of {len(images)} portraits; one is drawn at a time: use Batch Cases")
    image = images[0]
    if image.ndim != 3 or image.shape[2] not in MODES:
        raise InputError(f"the picture has the shape {list(image.shape)}; wanted are height, width and 1, 3 or 4")
    pixels = (image.detach().float().cpu().nan_to_num(0.0).clamp(0, 1) * 255).round().byte().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels, MODES[pixels.shape[2]])


def pil_to_image(picture: Image.Image) -> Tensor:
    """A Pillow picture → [1, H, W, 3] in [0, 1]."""
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)[None]


def face_box(box: str, mask: Tensor | None, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Where the face is: (left, top, right, bottom) in pixels of a picture of `size` (W, H); None: not said.

    `mask` [H', W'] or [1, H', W'] is white on the face; it wins over `box`, "x,y,width,height". An all-black mask says
    nothing (hosts send one with every picture). Raises InputError.
    """
    if mask is not None:
        if mask.ndim == 3 and len(mask) > 1:
            raise InputError(f"the face mask has {len(mask)} pictures; give the one that belongs to the portrait")
        white = mask.reshape(mask.shape[-2:]).detach().cpu() > 0.5
        if white.any():
            rows, columns = (white.any(dim).nonzero().flatten() for dim in (1, 0))
            across, down = size[0] / white.shape[1], size[1] / white.shape[0]
            left, right = int(columns[0]) * across, (int(columns[-1]) + 1) * across
            return left, int(rows[0]) * down, right, (int(rows[-1]) + 1) * down
    if not box.strip():
        return None
    found = BOX.fullmatch(box)
    if not found:
        raise InputError(f"box is {box!r}; give x,y,width,height of the face in pixels, such as 120,80,200,200")
    x, y, width, height = map(float, found.groups())
    return x, y, x + width, y + height


def marked_face(
    face: tuple[float, float, float, float] | None, have: tuple[int, int], target: tuple[int, int]
) -> Seen | None:
    """A face that a person marked, left, top, right, bottom in a picture of `have` (W, H) pixels, as `fit_portrait`
    cuts it for `target`; None: nothing was marked."""
    if face is None:
        return None
    from .crops import Seen, whole_crop
    from .detectors import Face
    from .faces import Choice, show
    from .portrait import centre_on

    left, top, right, bottom = map(round, face)
    marked = Face((left, top, max(1, right - left), max(1, bottom - top)))
    crop = whole_crop(have, target, centre_on("the portrait", have, target, face))
    return Seen(Choice(marked, f"the face by hand, {show(marked)}"), crop)


def to_image(pixels: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] → [B, H, W, 3] in [0, 1]."""
    return (pixels.movedim(1, -1) + 1) / 2


def to_bytes(images: Tensor) -> ndarray:
    """[F, H, W, C] in [0, 1] → uint8 [F, H, W, 3]."""
    return (images[..., :3] * 255).round().clamp(0, 255).byte().cpu().numpy()


def sample_inputs() -> tuple[Tensor, dict[str, Any]]:
    """The portrait [1, H, W, 3] and the speech, {waveform [1, C, T], sample_rate}, that come with the package."""
    import torch
    from PIL import Image

    with Image.open(SAMPLE / "portrait.png") as picture:
        image = pil_to_image(picture)
    samples, rate = read_wave(SAMPLE / "speech.wav")
    return image, {"waveform": torch.from_numpy(samples)[None], "sample_rate": rate}


def sound(audio: Mapping[str, Any] | None) -> tuple[ndarray, int]:
    """{waveform [1, C, T], sample_rate} → (samples [C, T], rate in Hz). InputError for no sound and for a batch."""
    samples = None if audio is None else audio["waveform"]
    if audio is None or samples is None:
        raise InputError("there is no sound (0 samples), as in a video without a track; connect Load Audio")
    if samples.ndim == 3 and len(samples) != 1:
        raise InputError(f"got a batch of {len(samples)} recordings; one is spoken at a time: use Batch Cases")
    return (samples[0] if samples.ndim == 3 else samples).float().cpu().numpy(), int(audio["sample_rate"])


def recording(audio: Mapping[str, Any] | None) -> Speech:
    """{waveform [1, C, T], sample_rate} → the speech. InputError also for what cannot be spoken."""
    return speech_from_samples(*sound(audio), "the recording")


def read_wave(path: str | Path) -> tuple[ndarray, int]:
    """A 16-bit WAV → (samples [C, T] in [-1, 1], rate in Hz), by the standard library alone."""
    import numpy as np

    with wave.open(str(path), "rb") as file:
        if file.getsampwidth() != 2:
            raise InputError(f"{path} has {8 * file.getsampwidth()} bits a sample; give a WAV of 16")
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return data.reshape(-1, file.getnchannels()).T.astype(np.float32) / 32768, file.getframerate()


def write_wave(path: str | Path, samples: Any, rate: int) -> None:
    """Samples [C, T] in [-1, 1] → a 16-bit WAV."""
    import numpy as np

    samples = np.nan_to_num(np.asarray(samples, dtype=np.float32)).clip(-1, 1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples.T * 32767).round().astype("<i2").tobytes())


def warn(lines: Iterable[str]) -> None:
    for line in lines:
        logging.getLogger("tbd").warning(line)


@contextmanager
def told_what_to_do(kind: Any, what: str, size: tuple[int, int] | None = None) -> Iterator[None]:
    """Out of memory, an error of `kind`, says so of `what` and how to go on: pictures of `size` (W, H); None: speech.
    It stays an error of its kind, upon which a host frees its memory."""
    where = "" if size is None else f" at {size[0]} x {size[1]} px"
    less = "give a shorter recording" if size is None else "choose a smaller width and height in ReferenceNet Encode"
    try:
        yield
    except kind as error:
        raise type(error)(
            f"{what}{where} ran out of memory; {less}, or fp16 in Load TBD Model, then queue again"
        ) from error


@contextmanager
def hide_log_lines(words: str) -> Iterator[None]:
    """Keeps lines with these words out of the root log."""
    root = logging.getLogger()

    def quiet(record: logging.LogRecord) -> bool:
        return words not in record.getMessage()

    root.addFilter(quiet)
    try:
        yield
    finally:
        root.removeFilter(quiet)
