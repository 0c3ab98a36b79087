"""Evaluation mode for the time of a pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_semisup.networks.evaluating import evaluating


def test_every_module_is_evaluated_inside_and_as_before_afterwards():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(nn.Dropout(0.5), nn.ReLU())).train()
    network[0].eval()
    modes = [module.training for module in network.modules()]
    x = torch.randn(3, 2, 4, 4)
    with evaluating(network):
        assert torch.equal(network(x), network(x))
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == modes
    with pytest.raises(KeyError), evaluating(network):
        raise KeyError
    assert [module.training for module in network.modules()] == modes
