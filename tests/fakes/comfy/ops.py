"""Layers: torch's own, under the names that networks written for ComfyUI ask for."""

from torch import nn


class disable_weight_init:
    Linear, Embedding, LayerNorm, GroupNorm = nn.Linear, nn.Embedding, nn.LayerNorm, nn.GroupNorm
    Conv1d, Conv2d, Conv3d = nn.Conv1d, nn.Conv2d, nn.Conv3d
    ConvTranspose1d, ConvTranspose2d = nn.ConvTranspose1d, nn.ConvTranspose2d


class manual_cast(disable_weight_init):
    """ComfyUI's cast weights to the input's dtype at every call; here both must be equal from the start."""


def pick_operations(
    weight_dtype, compute_dtype, load_device=None, disable_fast_fp8=False, fp8_optimizations=False, model_config=None
):
    return disable_weight_init if compute_dtype in (None, weight_dtype) else manual_cast
