from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from nnunet_semisup.networks.bfloat16 import use_bfloat16


class Result(NamedTuple):
    features: torch.Tensor
    indices: torch.Tensor


class Recorder(nn.Module):
    """A linear layer that notes in which precision it computed."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x, scale=1.0):
        y = self.layer(x) * scale
        self.computed_in = y.dtype
        return [Result(y, y.argmax(1)), {"y": y}]


def test_computes_in_bfloat16_and_returns_float32():
    torch.manual_seed(0)
    network, x = Recorder(), torch.randn(5, 4)
    plain = network(x, scale=2.0)
    use_bfloat16(network)
    result, named = network(x, scale=2.0)
    assert network.computed_in == torch.bfloat16
    assert result.features.dtype == named["y"].dtype == torch.float32
    assert result.indices.dtype == torch.int64
    torch.testing.assert_close(result.features, plain[0].features, atol=0.05, rtol=0.02)


def test_parameters_and_gradients_stay_float32():
    network = Recorder()
    keys = list(network.state_dict())
    use_bfloat16(network)
    network(torch.randn(5, 4))[0].features.sum().backward()
    assert network.layer.weight.dtype == network.layer.weight.grad.dtype == torch.float32
    assert list(network.state_dict()) == keys
