"""The pack's own kinds of wires, and what travels on them. Everything else uses ComfyUI's types."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io


if TYPE_CHECKING:
    from torch import Tensor

    from ..tbd_core.face_guide import FaceGuide
    from ..tbd_core.flow import Speech

# A type's name is part of every saved graph: never rename one.
AUDIO_ENCODER = io.Custom("TBD_AUDIO_ENCODER")  # tbd_core.host.AudioEncoder
AUDIO = io.Custom("TBD_AUDIO")  # EncodedSpeech
REFERENCE = io.Custom("TBD_REFERENCE")  # EncodedReference
THOUGHT = io.Custom("TBD_THOUGHT")  # tbd_core.flow.Thought
CROP = io.Custom("TBD_CROP")  # tbd_core.cutouts.Cutout


# eq=False: ComfyUI compares such objects with `!=`, and `==` over tensors has no single answer.
@dataclass(frozen=True, eq=False, repr=False)
class EncodedSpeech:
    """Speech as the model hears it (shape legend in tbd_core/flow.py)."""

    features: Tensor  # [F', L, C] fp32 on the CPU; F' fills whole clips, silence behind the speech's last frame
    speech: Speech  # num_frames of it are drawn
    digest: str  # of the samples and the encoder: equal digests, equal features
    bundle: Path | None  # the encoder's; None: it came by itself

    def __repr__(self) -> str:
        return f"EncodedSpeech({self.speech.num_frames} frames, {self.speech.seconds:.2f} s, {self.speech.source})"


@dataclass(frozen=True, eq=False, repr=False)
class EncodedReference:
    """A portrait as the model sees it."""

    latents: Tensor  # [1, 4, h, w] times the model's latent scale
    features: dict[str, Tensor]  # by name (models.attention.Context): [1, h·w, C] on the CPU
    size: tuple[int, int]  # width, height of the video in pixels
    source: str
    warnings: tuple[str, ...]
    digest: str  # of the pixels and the networks: equal digests, equal reference
    bundle: Path  # ReferenceNet's
    face: FaceGuide | None = None  # with Hallo's weights

    def __repr__(self) -> str:
        return f"EncodedReference({self.size[0]} x {self.size[1]}, {self.source})"
