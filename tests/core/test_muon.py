"""Muon: what an orthogonal step is, and which weights take it."""

import torch
from torch import nn

from tbd_core.config import tiny
from tbd_core.models.build import build_vae
from tbd_core.training.muon import Muon, inner, orthogonal


def test_all_singular_values_of_a_step_are_near_one():
    matrices = torch.randn(3, 24, 60, generator=torch.Generator().manual_seed(0))
    for made in (orthogonal(matrices), orthogonal(matrices.mT)):
        values = torch.linalg.svdvals(made)
        assert values.min() > 0.5 and values.max() < 1.4


def test_the_orthogonal_matrix_points_where_the_gradient_points():
    matrix = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(matrix[0])
    assert torch.nn.functional.cosine_similarity(orthogonal(matrix).flatten(), (left @ right).flatten(), dim=0) > 0.97


def test_parameters_of_one_shape_step_as_each_would_alone():
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(8, 3, 3, 3, generator=generator) for _ in range(2)]
    gradients = [torch.randn(8, 3, 3, 3, generator=generator) for _ in range(2)]

    def stepped(chosen: list[int]) -> list[torch.Tensor]:
        parameters = [nn.Parameter(weights[i].clone()) for i in chosen]
        for parameter, i in zip(parameters, chosen, strict=True):
            parameter.grad = gradients[i]
        optimizer = Muon(parameters, lr=0.1)
        for _ in range(2):
            optimizer.step()
        return [parameter.detach() for parameter in parameters]

    together = stepped([0, 1])
    assert torch.allclose(together[0], stepped([0])[0], atol=1e-3)
    assert torch.allclose(together[1], stepped([1])[0], atol=1e-3)


def test_it_solves_what_it_is_given():
    generator = torch.Generator().manual_seed(3)
    target, weight = torch.randn(6, 6, generator=generator), nn.Parameter(torch.zeros(6, 6))
    optimizer = Muon([weight], lr=0.05, decay=0.0)
    for _ in range(200):
        weight.grad = weight.detach() - target
        optimizer.step()
    assert (weight - target).norm() < 0.2 * target.norm()


def test_norms_biases_and_the_outermost_layers_are_left_to_adamw():
    inside = {name for name, parameter in build_vae(tiny()).named_parameters() if inner(name, parameter)}
    assert "encoder.mid_block.resnets.0.conv1.weight" in inside
    assert not any(name.endswith("bias") or ".norm" in name for name in inside)
    assert not any(name.startswith(("encoder.conv_in", "decoder.conv_out", "quant_conv")) for name in inside)
