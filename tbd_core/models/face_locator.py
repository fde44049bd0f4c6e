"""Face mask image [B·F, 3, H, W] in [0, 1] → feature added right after the denoiser's first convolution (Hallo)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import silu


class FaceLocator(nn.Module):
    def __init__(self, channels: int = 320, ops: Any = nn):
        super().__init__()
        self.conv_in = ops.Conv2d(3, 16, 3, padding=1)
        steps = ((16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2))
        self.blocks = nn.ModuleList([ops.Conv2d(a, b, 3, padding=1, stride=s) for a, b, s in steps])
        self.conv_out = ops.Conv2d(128, channels, 3, padding=1)

    def forward(self, mask: Tensor) -> Tensor:
        """[B·F, 3, H, W] → [B·F, C, H/8, W/8]."""
        hidden = silu(self.conv_in(mask))
        for block in self.blocks:
            hidden = silu(block(hidden))
        return self.conv_out(hidden)
