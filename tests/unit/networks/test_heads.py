"""Heads on a decoder's features."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from nnunet_semisup.networks.heads import WithHeads
from tests.unit.networks.shared import small_unet


def made(dims=2, stage=0, **options):
    network = small_unet(dims, **options)
    conv = network.encoder.conv_op
    width = (4, 8)[stage]
    heads = {"distance": conv(width, 1, 1), "mlp": nn.Sequential(conv(width, 6, 1), nn.ReLU())}
    return WithHeads(network, heads, stage)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("stage", [0, 1])
def test_heads_stand_on_the_chosen_stage(dims, residual, stage):
    network = made(dims, stage, residual=residual, deep_supervision=True)
    x = torch.randn(2, 2, *[8] * dims)
    output = network(x)
    assert all(map(torch.equal, output.logits, network.predictor(x)))
    size = 8 // 2**stage
    assert {name: tuple(value.shape) for name, value in output.parts.items()} == {
        "distance": (2, 1, *[size] * dims),
        "mlp": (2, 6, *[size] * dims),
    }


def test_a_head_teaches_the_network_below_it():
    network = made()
    network(torch.randn(1, 2, 8, 8)).parts["distance"].square().sum().backward()
    assert all(p.grad is not None for p in network.encoder.parameters())
    assert all(p.grad is not None for p in network.heads["distance"].parameters())
    assert all(p.grad is None for p in network.heads["mlp"].parameters())
    assert network.decoder.seg_layers[-1].weight.grad is None


def test_keys_are_the_predictors_and_the_heads():
    network = made()
    predictor = [f"predictor.{key}" for key in network.predictor.state_dict()]
    heads = [f"heads.{key}" for key in network.heads.state_dict()]
    assert list(network.state_dict()) == predictor + heads


def test_an_average_has_heads_of_its_own():
    network = made()
    average = AveragedModel(network, use_buffers=True)
    x = torch.randn(1, 2, 8, 8)
    before = network(x)
    nn.init.zeros_(network.heads["distance"].weight)
    after = average(x)
    assert torch.equal(after.logits, before.logits)
    assert torch.equal(after.parts["distance"], before.parts["distance"])
    assert not torch.equal(network(x).parts["distance"], before.parts["distance"])
