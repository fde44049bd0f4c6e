"""diffusers' AutoencoderKL over folded pictures: no convolution runs at full resolution (ours).

Import it where a VAE is built, not before: diffusers is heavy.
"""

from __future__ import annotations

from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle


class FoldedAutoencoderKL(AutoencoderKL):
    """Pictures [B, 3, H, W] in [-1, 1] ↔ latents [B, C, h, w]; each square of p × p pixels enters and leaves as the
    3p² channels of one place. p follows from `in_channels`; with p = 1 (3 channels) this is AutoencoderKL itself."""

    @property
    def fold(self) -> int:
        return round((self.config["in_channels"] / 3) ** 0.5)

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        return super().encode(pixel_unshuffle(x, self.fold), return_dict)

    def decode(self, z: Tensor, return_dict: bool = True, generator=None) -> DecoderOutput | tuple:  # pyright: ignore
        folded = super().decode(z, return_dict=False, generator=generator)[0]  # pyright: ignore[reportArgumentType]
        sample = pixel_shuffle(folded, self.fold)
        return DecoderOutput(sample=sample) if return_dict else (sample,)
