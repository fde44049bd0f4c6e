"""Sizes and options as data: the two presets side by side, and what one generation can be asked for.

The numbers of `sd15` are SD 1.5's, AnimateDiff's and Hallo's; those of `tiny` are ours.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .units import AUDIO_CHUNK, AUDIO_WINDOW, LATENT_CHANNELS


ENTRY = "conv_in"  # the feature, beside those of the transformer blocks, that `reference_in` takes
LATENTS = "latents"  # and that `reference_out` takes


@dataclass(frozen=True)
class UNetConfig:
    """Both U-Nets: SD 1.5's topology, four levels, two layers a block on the way down, three up."""

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    num_heads: int = 8
    norm_num_groups: int = 32
    cross_attention_dim: int = 768  # width of the text tokens
    audio_attention_dim: int = 768  # width of the audio tokens
    audio: str = "single"  # none | single (the paper) | hierarchical (Hallo)
    context: str = "text"  # what attn2 hears: text (the paper) | face (Hallo) | both (face, and text by attn2_text)
    motion: bool = True
    motion_num_heads: int = 8
    in_channels: int = LATENT_CHANNELS
    # Whether the denoiser meets the portrait cell by cell too, where its own latents come in (ours: decision 0021).
    reference_in: bool = False
    # For how many timesteps it knows by itself what to give where nothing differs from the portrait, so that its layers
    # have only to say what does (ours: decision 0023); 0: for none, as in SD 1.5.
    reference_out: int = 0

    @property
    def entries(self) -> dict[str, int]:
        """What the denoiser takes of the portrait beside the features of the transformer blocks: {name: width}."""
        first = {ENTRY: self.block_out_channels[0]} if self.reference_in else {}
        return first | ({LATENTS: self.in_channels} if self.reference_out else {})

    @property
    def wants_face(self) -> bool:
        """Whether it is of Hallo's kinds, which are told of a face besides the portrait (face_guide.py)."""
        return self.context != "text" or self.audio == "hierarchical"

    def __post_init__(self) -> None:
        problems = [
            f"width {width} is not a multiple of {name} ({n})"
            for width in self.block_out_channels
            for name, n in (("norm_num_groups", self.norm_num_groups), ("num_heads", self.num_heads))
            if width % n
        ]
        if len(self.block_out_channels) != 4:
            problems.append(f"block_out_channels has {len(self.block_out_channels)} widths; SD 1.5 has 4")
        if self.audio not in ("none", "single", "hierarchical"):
            problems.append(f"audio is {self.audio!r}; choose none, single or hierarchical")
        if self.context not in ("text", "face", "both"):
            problems.append(f"context is {self.context!r}; choose text, face or both")
        if problems:
            raise ValueError("; ".join(problems))


@dataclass(frozen=True)
class AudioProjectionConfig:
    """Windows of wav2vec2 layer outputs [window, L, C] -> N audio tokens of width D."""

    window: int = AUDIO_WINDOW
    layers: int = 12
    channels: int = 768
    intermediate: int = 512
    tokens: int = 32
    width: int = 768


@dataclass(frozen=True)
class SchedulerConfig:
    """Arguments of diffusers' DDIMScheduler, the same in training and inference (DESIGN: Objective)."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    prediction_type: str = "v_prediction"
    rescale_betas_zero_snr: bool = True
    timestep_spacing: str = "trailing"
    clip_sample: bool = False


@dataclass(frozen=True)
class SamplingDefaults:
    """What a bundle is drawn with when the user says nothing."""

    steps: int = 40
    guidance: float = 3.5
    split: tuple[float, ...] = (0.4,)
    blend: str = "hard"
    size: int = 512  # pixels, the trained square


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build the networks of one bundle. `vae`, `text_encoder` and `audio_encoder` hold the
    arguments of diffusers' AutoencoderKL (FoldedAutoencoderKL: with 3p² channels it takes squares of p × p pixels, with
    `second_look_width` it looks twice) and of transformers' CLIPTextConfig and Wav2Vec2Config. `audio_chunk`: how many
    frames of speech its encoder listens to at once; None: all of them, as public encoders did when they learnt."""

    preset: str
    unet: UNetConfig
    audio_projection: AudioProjectionConfig
    vae: dict = field(default_factory=dict)
    text_encoder: dict = field(default_factory=dict)
    audio_encoder: dict = field(default_factory=dict)
    scheduler: SchedulerConfig = SchedulerConfig()
    defaults: SamplingDefaults = SamplingDefaults()
    audio_chunk: int | None = AUDIO_CHUNK

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> ModelConfig:
        def build(kind, fields):
            return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})

        return cls(
            preset=values["preset"],
            unet=build(UNetConfig, values["unet"]),
            audio_projection=build(AudioProjectionConfig, values["audio_projection"]),
            vae=values["vae"],
            text_encoder=values["text_encoder"],
            audio_encoder=values["audio_encoder"],
            scheduler=build(SchedulerConfig, values["scheduler"]),
            defaults=build(SamplingDefaults, values["defaults"]),
            audio_chunk=values.get("audio_chunk", AUDIO_CHUNK),  # all bundles before there was a choice
        )


def tiny() -> ModelConfig:
    """The bundled model: the same classes, small enough for two CPU cores."""
    return ModelConfig(
        preset="tiny",
        unet=UNetConfig(
            block_out_channels=(64, 80, 64, 64),
            num_heads=2,  # wide heads: on the CPU the attention itself is the dearest part
            norm_num_groups=16,
            cross_attention_dim=64,
            audio_attention_dim=64,
            motion_num_heads=2,
            reference_in=True,
            reference_out=1000,
        ),
        audio_projection=AudioProjectionConfig(layers=4, channels=96, intermediate=128, tokens=4, width=64),
        vae=dict(
            in_channels=3 * 4 * 4,  # squares of 4 x 4 pixels (FoldedAutoencoderKL), then one level down: f8
            out_channels=3 * 4 * 4,
            block_out_channels=(64, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=2,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=4,  # many channels a group, as in SD: groups of one or two lose the picture's colours
            sample_size=128,
            scaling_factor=1.0,
            mid_block_add_attention=True,
            second_look_width=64,
        ),
        text_encoder=dict(
            hidden_size=64, intermediate_size=256, projection_dim=64, num_hidden_layers=4, num_attention_heads=4
        ),
        audio_encoder=dict(
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            conv_dim=(32, 48, 64, 64, 64, 64, 64),
            feat_extract_norm="layer",
            conv_bias=True,  # norms act at each moment: without a bias the first would take its loudness away
            do_stable_layer_norm=True,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
        ),
        # No guidance, and the coarse prompt leads for the first of five steps only: docs/decisions/0020 and 0022.
        defaults=SamplingDefaults(steps=5, guidance=1.0, split=(0.2,), size=128),
    )


def sd15() -> ModelConfig:
    """Full size: SD 1.5 + AnimateDiff + Hallo widths."""
    return ModelConfig(
        preset="sd15",
        unet=UNetConfig(),
        audio_projection=AudioProjectionConfig(),
        vae=dict(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=LATENT_CHANNELS,
            sample_size=512,
            scaling_factor=0.18215,
        ),
        text_encoder=dict(
            hidden_size=768,
            intermediate_size=3072,
            projection_dim=768,
            num_hidden_layers=12,
            num_attention_heads=12,
        ),
        audio_encoder=dict(),
        audio_chunk=None,
    )


PRESETS = {"tiny": tiny, "sd15": sd15}
TEXT_STRENGTH = 0.5  # of the words beside Hallo's face tokens (ours: nothing was trained with both)
TINY_BUNDLE = Path(__file__).parent / "assets" / "tiny" / "tbd_tiny.safetensors"


@dataclass(frozen=True)
class GenerateOptions:
    """One generation, as the command line and the nodes ask for it. None means: what the bundle's header says."""

    portrait: Path
    speech: Path
    output: Path
    emotion: str = "neutral"
    intensity: str = "Moderate"
    subject: str | None = None
    prompts: tuple[str, ...] = ()  # k stages in the user's own words, instead of coarse and fine
    coarse: str | None = None
    fine: str | None = None
    negative: str | None = None
    model: Path = TINY_BUNDLE
    steps: int | None = None
    guidance: float | None = None
    text_scale: float | None = None
    audio_scale: float | None = None
    blend: str | None = None
    split: tuple[float, ...] | None = None
    seed: int = 0
    size: tuple[int, int] | None = None  # (W, H) pixels
    device: str = "auto"
    dtype: str = "auto"
    face: str = "whole"  # the whole picture; auto (the largest face), a number from 1 (left to right), or X,Y,W,H
    face_margin: float | None = None  # around the face on each side, as a share of its own (faces.DEFAULT_MARGIN)
    face_detector: str | None = None  # faces.DETECTORS
    face_model: Path | None = None  # the file of a detector that brings none
    face_embedding: Path | None = None  # who it is, for Hallo's weights (face_guide.read_embedding)
    text_strength: float | None = None  # 0-1, of the words beside Hallo's face tokens; None: TEXT_STRENGTH
    paste_back: bool = False  # the video has the portrait's own size, with what was drawn put back in its place
    thinker: str = "rules"  # who thinks: rules, server or vlm (cot_fa/thinkers.py)
    thinker_url: str | None = None  # of a server; None: Ollama's on this machine
    thinker_model: str | None = None  # its name at the server, or a vlm's folder
    thinker_stays: bool = False  # a vlm, in memory while the video is drawn
    offload: str = "none"  # where weights wait that are not used: none (on the device), cpu or sequential (offload.py)
    audio_encoder: Path | None = None  # a wav2vec 2, folder or file, in place of the bundle's
    level_speech: bool = False  # loud and quiet parts of the speech equally loud (loudness.level)
    silence_gate: float | None = None  # dB below the speech that is heard as silence (loudness.gate); None: nothing


@dataclass(frozen=True)
class GenerateResult:
    """What `generate` did; the fields of the command line's JSON."""

    output: str
    frames: int
    fps: int
    seconds: float
    width: int
    height: int
    seed: int
    model: str
    wall_seconds: float
    peak_mb: float
    prompts: dict
    warnings: tuple[str, ...]
    face: dict | None = None  # crops.Seen.record; None: nothing was asked of the face


__all__ = [
    "PRESETS", "TEXT_STRENGTH", "TINY_BUNDLE", "AudioProjectionConfig", "GenerateOptions", "GenerateResult",
    "ModelConfig", "SamplingDefaults", "SchedulerConfig", "UNetConfig", "replace", "sd15", "tiny",
]  # fmt: skip
