"""What a clip is guided by besides its words, as one object that a host's sampler can carry along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .config import ModelConfig, SamplingDefaults
from .errors import InputError
from .progressive import MAX_STEPS
from .units import LATENT_SCALE, MOTION_FRAMES, num_clips


if TYPE_CHECKING:
    from .face_guide import FaceGuide

Features = dict[str, Tensor]
FIRST_LAYER = "down_blocks.0.attentions.0"
TRAILING = "trailing"  # the timesteps of training and of the command line
MOST_SCALE = 30.0


@dataclass(frozen=True)
class DrawOptions:
    """How one run is drawn. 0 steps and negative scales mean: what the bundle says; `text_scale` and `audio_scale`:
    as hard as all together (denoise.Guidance)."""

    seed: int = 0
    steps: int = 0
    guidance: float = -1.0
    sampler: str = "euler"
    scheduler: str = TRAILING
    text_scale: float | None = None
    audio_scale: float | None = None

    @property
    def separate_scales(self) -> dict[str, float]:
        """Of what pulls for itself, by the name of the pass that lacks just that."""
        scales = {"no_text": self.text_scale, "no_audio": self.audio_scale}
        return {name: scale for name, scale in scales.items() if scale is not None}

    def settled(self, defaults: SamplingDefaults) -> DrawOptions:
        """With the bundle's numbers in place; a scale of its own stays only where it differs from `guidance`.
        InputError for numbers out of range: a host checks those of its widgets, not those that are linked."""
        if not 0 <= self.steps <= MAX_STEPS:
            raise InputError(
                f"steps is {self.steps}; give a whole number from 1 to {MAX_STEPS}, or 0 for the model's own"
            )
        for name in ("guidance", "text_scale", "audio_scale"):
            scale = getattr(self, name)
            if scale is not None and not -1 <= scale <= MOST_SCALE:  # NaN is not between either
                raise InputError(f"{name} is {scale:g}; give a number from 0 to {MOST_SCALE:g}, or -1")
        guidance = self.guidance if self.guidance >= 0 else defaults.guidance

        def own(scale: float | None) -> float | None:
            return None if scale is None or scale < 0 or scale == guidance else scale

        return replace(
            self,
            steps=self.steps or defaults.steps,
            guidance=guidance,
            text_scale=own(self.text_scale),
            audio_scale=own(self.audio_scale),
        )


# eq=False: samplers ask whether two passes may be one batch, and `==` over tensors has no single answer.
@dataclass(frozen=True, eq=False, repr=False)
class Guide:
    """One clip's portrait, motion and sound. None: without. The same object in two passes lets them be one batch."""

    reference: Features | None  # {layer: [1, h·w, C]}
    motion: Features | None  # {layer: [1, M, h·w, C]}
    windows: Tensor | None  # [F, window, L, C]
    size: tuple[int, int]  # W, H pixels that they were made at
    face: FaceGuide | None = None  # with Hallo's weights, in every pass

    def __repr__(self) -> str:
        parts = {"portrait": self.reference, "motion": self.motion, "sound": self.windows}
        return f"Guide({', '.join(name for name, part in parts.items() if part is not None)})"

    def without_sound(self) -> Guide:
        return replace(self, windows=None)

    def unguided(self) -> Guide:
        """What the joint unconditional pass keeps: motion alone (docs/decisions/0004)."""
        return replace(self, reference=None, windows=None, face=self.face and self.face.unguided())

    def on(self, project: Callable[[Tensor], Tensor], rows: int, frames: int, like: Tensor) -> dict[str, Any]:
        """Context's `reference`, `motion` and `audio` for `rows` samples of `frames` frames, and the `face`, where
        `like` [rows·F, C, h, w] lies and in its type. `project` is the bundle's AudioProjection. InputError when the
        latents are of another size or number than the guide was made for."""
        size = (like.shape[3] * LATENT_SCALE, like.shape[2] * LATENT_SCALE)
        if size != self.size:
            raise InputError(
                f"the latents are {size[0]} x {size[1]} px, but the portrait was encoded at {self.size[0]} x "
                f"{self.size[1]}; take the latent that Apply Conditions gives, and no areas"
            )
        if self.windows is not None and len(self.windows) != frames:
            raise InputError(
                f"{frames} frames are drawn at once, but the guide hears {len(self.windows)}; take the latent that "
                "Apply Conditions gives, without context windows"
            )

        def bring(value: Tensor) -> Tensor:
            return value.to(like.device, like.dtype).expand(rows, *value.shape[1:])

        def bring_all(features: Features | None) -> Features | None:
            return features and {name: bring(value) for name, value in features.items()}

        heard = None
        if self.windows is not None:
            tokens = project(self.windows.unsqueeze(0).to(like.device, like.dtype))
            heard = tokens.expand(rows, *tokens.shape[1:])
        parts = {"reference": bring_all(self.reference), "motion": bring_all(self.motion), "audio": heard}
        return {**parts, "face": self.face and self.face.on(like)}


def check_guide(
    config: ModelConfig, reference: Features, face: FaceGuide | None, features: Tensor, num_frames: int, clip: int
) -> None:  # fmt: skip
    """InputError when the portrait's `reference` {layer: [1, h·w, C]} and `face` or the sound's `features` [F', L, C]
    are another model's, or when `num_frames` frames have no such clip."""
    width, wanted = reference[FIRST_LAYER].shape[-1], config.unet.block_out_channels[0]
    if width != wanted:
        raise InputError(
            f"the reference is {width} wide, this model wants {wanted}; connect the same MODEL to ReferenceNet Encode "
            "and here"
        )
    for name in config.unet.entries:
        if name not in reference:
            raise InputError(
                f"the reference has {len(reference)} features and none called {name}, which this model wants; connect "
                "the same MODEL to ReferenceNet Encode and here"
            )
    if config.unet.wants_face != (face is not None):
        kind, has = ("Hallo's kind, which wants", "none") if face is None else ("a kind without", "some")
        raise InputError(
            f"this model is of {kind} face tokens or masks, and the reference has {has}; "
            "connect the same MODEL to ReferenceNet Encode and here"
        )
    hears = config.audio_projection
    if features.shape[1:] != (hears.layers, hears.channels):
        raise InputError(
            f"the sound has {features.shape[1]} layers of {features.shape[2]} numbers, this model wants {hears.layers} "
            f"of {hears.channels}; use the audio encoder of the same Load TBD Model"
        )
    if not 0 <= clip < num_clips(num_frames):
        raise InputError(f"clip {clip} is not there: the recording has {num_clips(num_frames)} clips, counted from 0")


def last_frames(previous: Tensor | None, clip: int, portrait: Tensor) -> Tensor | None:
    """What clip `clip` goes on from: the last M of the `previous` clip's latents [F, C, h, w]; None for the first clip.
    InputError when they are missing or unlike the portrait's [1, C, h, w]."""
    if previous is None:
        if clip:
            raise InputError(f"clip {clip} goes on from clip {clip - 1}: connect that clip's latent as previous")
        return None
    if len(previous) < MOTION_FRAMES or previous.shape[1:] != portrait.shape[1:]:
        raise InputError(
            f"the clip before has latents of {list(previous.shape)}; at least {MOTION_FRAMES} of "
            f"{list(portrait.shape[1:])} are needed, as the portrait's"
        )
    return previous[-MOTION_FRAMES:]
