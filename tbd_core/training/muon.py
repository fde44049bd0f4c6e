"""Muon: momentum whose matrix is made orthogonal before each step, for the weights inside a network.

After K. Jordan et al. 2024 (kellerjordan.github.io/posts/muon); the other parameters are AdamW's. torch's own Muon
takes matrices alone; here a convolution's kernel is the matrix [out, in · k · k], and matrices of one shape are
computed together.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..devices import multiplies_bf16


COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that pulls all singular values towards 1
ROUNDS = 5
# Where pictures, latents and words come and go. (Not `reference_in`, which takes features, nor the second look's
# `place`, which takes latents beside them.)
OUTER = ("conv_in", "conv_out", "quant_conv", "embedding", "position")


def inner(name: str, parameter: Tensor) -> bool:
    """Whether `parameter` is a weight inside the network, to be trained by Muon."""
    return parameter.ndim >= 2 and not any(part in name for part in OUTER)


def orthogonal(matrices: Tensor) -> Tensor:
    """[n, rows, columns] → the nearest orthogonal matrices, roughly: singular values between about 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if multiplies_bf16(matrices.device) else matrices.float()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """`lr` is the spectral size of a step; 0.01 to 0.02 is usual."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.01):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                momenta = [self._momentum(parameter) for parameter in parameters]
                gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov's
                steps = orthogonal(torch.stack([step.reshape(shape[0], -1) for step in ahead]))
                size = group["lr"] * max(1.0, shape[0] / (shape.numel() / shape[0])) ** 0.5
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, [step.view(shape) for step in steps], alpha=-size)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]
