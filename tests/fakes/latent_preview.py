"""Previews while sampling: latents times a matrix."""

import torch
from PIL import Image


class _Latent2RGB:
    def __init__(self, factors, bias):
        self.factors, self.bias = torch.tensor(factors), torch.tensor(bias or [0.0, 0.0, 0.0])

    def decode_latent_to_preview_image(self, preview_format, x0):
        """x0 [F, C, h, w], the first frame is shown: (format, picture, largest side)."""
        pixels = torch.einsum("chw,cr->hwr", x0[0].float(), self.factors) + self.bias  # in [-1, 1]
        return "JPEG", Image.fromarray(pixels.add(1).mul(127.5).clamp(0, 255).byte().numpy()), 512


def get_previewer(device, latent_format):
    factors = latent_format.latent_rgb_factors
    return None if factors is None else _Latent2RGB(factors, latent_format.latent_rgb_factors_bias)
