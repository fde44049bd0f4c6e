"""What flows between the stages: one frozen dataclass for each arrow of the pipeline.

Shape legend, the same letters everywhere:
    B batch · F frames · C channels · H W pixels · h w latent cells · T audio samples
    L encoder layers · N tokens · D width · S steps · K stages
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from torch import Tensor

LEVELS = ("A", "B", "C", "D", "E")  # FACS intensity: trace, slight, marked, severe, maximal
SIDES = ("both", "left", "right")  # the subject's own left and right


@dataclass(frozen=True)
class FaceInfo:
    """Step I: who is seen. The rules never guess it from pixels: without words it is "a person"."""

    subject: str = "a person"
    given: bool = False  # True when the words came from the user (or a vision model)
    portrait: str | None = None  # file name, for the record
    by: str | None = None  # the thinker that looked at the portrait, if the words are its own


@dataclass(frozen=True)
class ActionUnit:
    """Step II: one FACS action unit with its intensity level (A-E) and side."""

    number: int
    name: str
    level: str
    side: str
    muscles: tuple[str, ...]


@dataclass(frozen=True)
class MuscleMovement:
    """Step III: one muscle, what it does to the face, and which action units ask for it."""

    muscle: str
    movement: str
    units: tuple[int, ...]
    level: str
    side: str


@dataclass(frozen=True)
class Prompts:
    """Step IV: the words that guide the drawing. `tokens` counts each text with CLIP's vocabulary."""

    coarse: str
    fine: str
    negative: str
    style: str = "clip"
    tokens: tuple[int, int, int] = (0, 0, 0)  # coarse, fine, negative; begin and end token included


@dataclass(frozen=True)
class Thought:
    """The whole chain of thought, CoT-FA (paper section 3.2), readable and serialisable."""

    emotion: str  # canonical name: happy sad angry surprised fear disgusted contempt neutral
    intensity: str  # Mild Moderate Intense
    face: FaceInfo
    action_units: tuple[ActionUnit, ...]
    muscle_movements: tuple[MuscleMovement, ...]
    prompts: Prompts
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class Schedule:
    """How much each prompt weighs at each step: `weights` [S, K], rows sum to 1 (paper section 3.4)."""

    weights: tuple[tuple[float, ...], ...]
    split: tuple[float, ...]
    blend: str

    @property
    def steps(self) -> int:
        return len(self.weights)

    @property
    def stages(self) -> int:
        return len(self.weights[0])


@dataclass(frozen=True)
class Portrait:
    """The picture to bring to life."""

    pixels: Tensor  # [1, 3, H, W] in [-1, 1]
    source: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Speech:
    """The recording to speak, mono at 16 kHz, and the number of video frames it lasts."""

    waveform: Tensor  # [T] in [-1, 1], 16 kHz
    num_frames: int
    seconds: float  # of the file, before resampling
    source: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class StepReport:
    """Said after every denoising step; a callback may raise to interrupt."""

    clip: int  # 0-based
    num_clips: int
    step: int  # 1-based
    num_steps: int
    latents: Tensor | None = None  # [1, C, F, h, w], for previews


OnStep = Callable[[StepReport], None]
