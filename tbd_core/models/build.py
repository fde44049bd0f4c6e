"""ModelConfig → the networks of one bundle, with fresh weights; `checkpoint.store` fills them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..config import ModelConfig, UNetConfig
from ..units import TEXT_TOKENS
from .audio_projection import AudioProjection, ImageProjection
from .face_locator import FaceLocator
from .unet import UNet


if TYPE_CHECKING:
    from transformers import CLIPTextModel, Wav2Vec2Model

    from .autoencoder import FoldedAutoencoderKL

CLIP_BEGIN, CLIP_END, CLIP_VOCABULARY = 49406, 49407, 49408
# Arguments of transformers' CLIPTextConfig and Wav2Vec2Config that no configuration changes: CLIP's words, and none of
# the tricks of training.
TEXT_FIXED: dict[str, Any] = dict(
    vocab_size=CLIP_VOCABULARY, max_position_embeddings=TEXT_TOKENS, bos_token_id=CLIP_BEGIN, eos_token_id=CLIP_END,
    pad_token_id=CLIP_END,
)  # fmt: skip
HEARING_FIXED: dict[str, Any] = dict(
    hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0, layerdrop=0.0,
    apply_spec_augment=False,
)  # fmt: skip


@dataclass(frozen=True)
class Networks:
    """All networks of a bundle; the field names are the key prefixes in its file. None: it has no such network."""

    vae: FoldedAutoencoderKL
    text_encoder: CLIPTextModel
    audio_encoder: Wav2Vec2Model
    audioproj: AudioProjection
    reference_unet: UNet
    denoising_unet: UNet
    imageproj: ImageProjection | None = None  # this and the next with Hallo's weights alone
    face_locator: FaceLocator | None = None

    def items(self) -> list[tuple[str, nn.Module]]:
        return [(f.name, net) for f in fields(self) if (net := getattr(self, f.name)) is not None]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Networks:
        for _, module in self.items():
            # On the CPU convolutions in channels-last memory are 2.4 times as fast. (nn.Module's own `to`: diffusers'
            # warns about layers to be kept in fp32 even when there are none.)
            nn.Module.to(module, device, dtype, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return self

    def eval(self) -> Networks:
        for _, module in self.items():
            module.eval().requires_grad_(False)
        return self


def reference_config(config: UNetConfig) -> UNetConfig:
    """ReferenceNet: the same U-Net without audio and motion, and with one context, text or face."""
    return replace(config, audio="none", motion=False, context="text" if config.context == "text" else "face")


def unbuildable() -> tuple[type[Exception], ...]:
    """What the networks' classes raise for values they cannot take; transformers 5 has errors of its own."""
    from huggingface_hub import errors

    own = getattr(errors, "StrictDataclassError", ValueError)
    return (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError, own)


def build_vae(config: ModelConfig) -> FoldedAutoencoderKL:
    from .autoencoder import FoldedAutoencoderKL

    return FoldedAutoencoderKL(**config.vae)


def build_text_encoder(config: ModelConfig) -> CLIPTextModel:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**TEXT_FIXED, **config.text_encoder))


def build_audio_encoder(config: ModelConfig) -> Wav2Vec2Model:
    return wav2vec2(config.audio_encoder)


def wav2vec2(values: dict[str, Any]) -> Wav2Vec2Model:
    """Of these arguments of transformers' Wav2Vec2Config, without the tricks of training."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return Wav2Vec2Model(Wav2Vec2Config(**values, **HEARING_FIXED))


def build_unets(config: ModelConfig, ops: Any = nn, attend: Any = None) -> tuple[UNet, UNet]:
    """(ReferenceNet, denoiser). What is added to SD 1.5 starts as nothing: the outputs of fresh motion modules and
    of fresh `single` audio modules (`hierarchical` ones are only ever loaded), and all of `reference_in` and
    `reference_out`, are zero."""
    reference = UNet(reference_config(config.unet), head=False, ops=ops, attend=attend)
    denoiser = UNet(config.unet, ops=ops, attend=attend)
    if config.unet.audio == "single":
        for name, parameter in denoiser.named_parameters():
            if "audio_modules" in name and ".proj_out." in name:
                nn.init.zeros_(parameter)
    for name, parameter in denoiser.named_parameters():
        if "temporal_transformer.proj_out." in name or name.startswith(("reference_in.", "reference_out.")):
            nn.init.zeros_(parameter)
    return reference, denoiser


def build_face(config: ModelConfig, ops: Any = nn) -> dict[str, nn.Module]:
    """What Hallo's weights have besides, {key prefix: network}; {} when attn2 hears text."""
    if config.unet.context == "text":
        return {}
    return {
        "imageproj": ImageProjection(width=config.unet.cross_attention_dim, ops=ops),
        "face_locator": FaceLocator(config.unet.block_out_channels[0], ops),
    }


def build(config: ModelConfig, ops: Any = nn, attend: Any = None) -> Networks:
    reference, denoiser = build_unets(config, ops, attend)
    return Networks(
        vae=build_vae(config),
        text_encoder=build_text_encoder(config),
        audio_encoder=build_audio_encoder(config),
        audioproj=AudioProjection(config.audio_projection, ops),
        reference_unet=reference,
        denoising_unet=denoiser,
        **build_face(config, ops),  # pyright: ignore[reportArgumentType]
    )
