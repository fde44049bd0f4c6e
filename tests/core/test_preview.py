"""Previews: the colours that the latents' own numbers tell, without the autoencoder."""

import json

import pytest
import torch

from tbd_core.errors import InputError
from tbd_core.preview import fit_preview


FACTORS = torch.tensor([[0.3, -0.2, 0.1], [0.05, 0.4, -0.1], [-0.25, 0.1, 0.2], [0.15, 0.0, -0.3]])
BIAS = torch.tensor([0.1, -0.05, 0.02])


def random_latents(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def colours(latents: torch.Tensor, preview: dict) -> torch.Tensor:
    """[B, C, h, w] as a viewer shows it, [B, 3, h, w]."""
    shown = latents.movedim(1, -1) @ torch.tensor(preview["factors"]) + torch.tensor(preview["bias"])
    return shown.movedim(-1, 1)


def test_factors_that_made_the_colours_are_found_again():
    latents = random_latents(2, 4, 6, 5)
    shown = colours(latents, {"factors": FACTORS.tolist(), "bias": BIAS.tolist()})
    pictures = shown.repeat_interleave(8, 2).repeat_interleave(8, 3)
    pictures = pictures + 0.3 * (-1.0) ** torch.arange(40)  # detail that a cell's mean does not have
    found = fit_preview(latents, pictures)
    assert torch.allclose(torch.tensor(found["factors"]), FACTORS, atol=1e-3)
    assert torch.allclose(torch.tensor(found["bias"]), BIAS, atol=1e-3)
    assert json.loads(json.dumps(found)) == found


def test_no_other_line_comes_closer():
    latents, pictures = random_latents(1, 4, 8, 8), random_latents(1, 3, 64, 64)
    found = fit_preview(latents, pictures)
    wanted = torch.nn.functional.avg_pool2d(pictures, 8)
    best = (colours(latents, found) - wanted).square().mean()
    for row in range(4):
        other = [list(values) for values in found["factors"]]
        other[row][0] += 0.05
        assert (colours(latents, {**found, "factors": other}) - wanted).square().mean() > best


def test_flat_latents_give_their_picture_s_mean_colour():
    found = fit_preview(torch.zeros(1, 4, 8, 8), torch.full((1, 3, 64, 64), 0.5))
    assert found == {"factors": [[0.0] * 3] * 4, "bias": [0.5] * 3}
    found = fit_preview(torch.ones(1, 4, 8, 8).half(), torch.full((1, 3, 64, 64), -0.25))  # undetermined, but finite
    assert colours(torch.ones(1, 4, 2, 2), found).sub(-0.25).abs().max() < 1e-3


def test_values_that_are_no_numbers_are_counted():
    latents = torch.zeros(1, 4, 8, 8)
    latents[0, 0, :3, 0] = float("nan")
    with pytest.raises(InputError, match="3 values of latents or pictures are not numbers; load the model as fp32"):
        fit_preview(latents, torch.zeros(1, 3, 64, 64))
