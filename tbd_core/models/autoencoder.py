"""diffusers' AutoencoderKL over folded pictures: no convolution runs at full resolution (ours).

Import it where a VAE is built, not before: diffusers is heavy.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from ..units import LATENT_SCALE


class SecondLook(nn.Module):
    """What the decoder made of the first latents, held against the picture → what is added to them: [B, C, h, w]
    (ours: docs/decisions/0024). An encoder alone would have to know the decoder by heart; small errors of its own show
    when they are looked at. `fold` divides 8, and with 1 it sees but 3 of 8 pixels a side: made for folded pictures."""

    def __init__(self, fold: int, latents: int, width: int, groups: int):
        super().__init__()

        def block() -> ResnetBlock2D:
            return ResnetBlock2D(in_channels=width, out_channels=width, temb_channels=None, groups=groups, eps=1e-6)  # pyright: ignore

        self.fold = fold
        self.conv_in = nn.Conv2d(2 * 3 * fold**2, width, 3, padding=1)
        self.fine = block()
        self.down = nn.Conv2d(width, width, 3, stride=LATENT_SCALE // fold, padding=1)
        self.place = nn.Conv2d(latents, width, 1)
        self.coarse = nn.ModuleList([block(), block()])
        self.norm_out = nn.GroupNorm(groups, width, eps=1e-6)
        self.conv_out = nn.Conv2d(width, latents, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, pictures: Tensor, drawn: Tensor, latents: Tensor) -> Tensor:
        """Both pictures [B, 3, H, W] in [-1, 1]; `drawn` is what the decoder makes of `latents` [B, C, h, w]."""
        missed = 4 * (pictures - drawn)  # a few hundredths, brought to the size of a picture
        hidden = self.conv_in(pixel_unshuffle(torch.cat([missed, pictures], dim=1), self.fold))
        hidden = self.down(self.fine(hidden, None)) + self.place(latents)
        for block in self.coarse:
            hidden = block(hidden, None)
        return self.conv_out(silu(self.norm_out(hidden)))


class FoldedAutoencoderKL(AutoencoderKL):
    """Pictures [B, 3, H, W] in [-1, 1] ↔ latents [B, C, h, w]; each square of p × p pixels enters and leaves as the
    3p² channels of one place. p follows from `in_channels`; with p = 1 (3 channels) this is AutoencoderKL itself.
    `second_look_width` is that of a `SecondLook`, which ends `encode`; 0: none."""

    def __init__(self, second_look_width: int = 0, **arguments: Any):
        super().__init__(**arguments)
        self.register_to_config(second_look_width=second_look_width)
        latents, groups = self.config["latent_channels"], self.config["norm_num_groups"]
        look = SecondLook(self.fold, latents, second_look_width, groups) if second_look_width else None
        self.second_look = look

    @property
    def fold(self) -> int:
        return round((self.config["in_channels"] / 3) ** 0.5)

    def first_look(self, x: Tensor) -> DiagonalGaussianDistribution:
        """What the encoder alone says."""
        return super().encode(pixel_unshuffle(x, self.fold), return_dict=False)[0]

    def look_again(self, x: Tensor, mean: Tensor) -> Tensor:
        """What is to be added to `mean`, the first look's. No gradient reaches what it rests on."""
        with torch.no_grad():
            drawn = self.decode(mean, return_dict=False)[0]
        # Before torch 2.11 autocast keeps the weights it cast here, and who decodes next would teach them nothing.
        torch.clear_autocast_cache()
        return self.second_look(x, drawn, mean)  # pyright: ignore[reportOptionalCall]

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        posterior = self.first_look(x)
        if self.second_look is not None:
            mean = posterior.mean + self.look_again(x, posterior.mean)
            posterior = DiagonalGaussianDistribution(torch.cat([mean, posterior.logvar], dim=1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True, generator=None) -> DecoderOutput | tuple:  # pyright: ignore
        folded = super().decode(z, return_dict=False, generator=generator)[0]  # pyright: ignore[reportArgumentType]
        sample = pixel_shuffle(folded, self.fold)
        return DecoderOutput(sample=sample) if return_dict else (sample,)
