"""What is built for its shapes alone."""

import pytest
import torch
from torch import nn

from tbd_core.devices import shapes_alone
from tbd_core.models.build import build_unets


def test_networks_built_for_their_shapes_alone_are_whole_and_not_initialised(small_config, monkeypatch):
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in build_unets(small_config)]
    with monkeypatch.context() as patches, shapes_alone():
        patches.setattr(torch.Tensor, "uniform_", lambda *_: pytest.fail("a weight was initialised"))
        nets = build_unets(small_config)
    for net, expected in zip(nets, shapes, strict=True):
        state = net.state_dict()
        assert {key: value.shape for key, value in state.items()} == expected
        assert all(value.is_meta for value in state.values())


def test_layers_made_afterwards_are_initialised_again():
    with shapes_alone():
        assert nn.Linear(2, 2).weight.is_meta
    assert nn.Linear(2, 2).weight.any()
