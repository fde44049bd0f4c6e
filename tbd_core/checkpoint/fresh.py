"""What no file gives: the weights a new network starts with, one tensor at a time, the same for the same seed.

Layers start as torch's own do; what is added to a network that can already draw starts at zero, so that at first it
draws the same (as `models.build` does).
"""

from __future__ import annotations

import copy
import zlib
from typing import TYPE_CHECKING

from .key_maps import matches


if TYPE_CHECKING:
    import torch
    from torch import nn

# Outputs of what is added to SD 1.5 (paper; zero convolutions), and a vector that nothing uses at inference.
ZERO = (
    "*.audio_modules.*.proj_out.*", "*.temporal_transformer.proj_out.*", "*.zero_conv_*", "face_locator.conv_out.*",
    "*.attn2_text.to_out.*", "*.reference_in.*", "*.reference_out.*", "*.second_look.conv_out.*",
    "*.masked_spec_embed",
)  # fmt: skip


def how(key: str, seed: int) -> str:
    """In words, how `fresh` fills a key."""
    if matches(key, ZERO):
        return "zero"
    return "a table" if key.endswith(".pe") else f"random, seed {seed}"


def can_start(network: nn.Module, key: str) -> bool:
    """Whether `fresh` knows what `key` starts with: transformers' own forms of layers it does not."""
    layer = network.get_submodule(key.partition(".")[2].rpartition(".")[0])
    return matches(key, ZERO) or key.endswith(".pe") or hasattr(layer, "reset_parameters")


def fresh(network: nn.Module, key: str, seed: int) -> torch.Tensor:
    """The fp32 value that `key` ("denoising_unet.conv_in.weight") of `network` (may lie on the meta device) starts
    with."""
    import torch

    from ..models.motion import PositionalEncoding

    path, _, name = key.partition(".")[2].rpartition(".")
    layer = network.get_submodule(path)
    value = getattr(layer, name)
    if matches(key, ZERO):
        return torch.zeros(value.shape)
    if isinstance(layer, PositionalEncoding):
        return PositionalEncoding(value.shape[2], value.shape[1]).pe
    with torch.random.fork_rng(devices=[]):
        # Every layer has a stream of its own: what else starts fresh does not change it. (torch's generator on the CPU
        # takes the low 32 bits of a seed alone. `torch.manual_seed` would seed the other devices too and note for each
        # where it was called from: thousands of layers, 4 ms each.)
        torch.default_generator.manual_seed(zlib.crc32(f"{seed} {key.partition('.')[0]}.{path}".encode()))
        made = copy.deepcopy(layer).to_empty(device="cpu")
        made.reset_parameters()  # pyright: ignore[reportCallIssue]
    return getattr(made, name).detach()
