"""Stages that run once more in the backward pass: the same gradients, less kept, alone or not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.decoders import decoder_like
from nnunet_semisup.networks.members import Members
from nnunet_semisup.networks.recomputed import recompute_stages
from tests.unit.networks.shared import small_unet


def pair(dims, residual=False, dropout=0.0):
    """Two decoders on one encoder, and the same ones whose stages are recomputed."""
    predictor = small_unet(dims, residual, deep_supervision=True)
    for stage in predictor.encoder.stages:
        if isinstance(stage, nn.Sequential):
            stage.append(nn.Dropout(dropout))
    usual = Members(predictor, [decoder_like(predictor.decoder, "linear")], shared_encoder=True)
    again = copy.deepcopy(usual)
    recompute_stages(again)
    return usual, again


def gradients(network, x):
    torch.manual_seed(0)
    parts = network(x).parts
    sum(level.square().mean() for part in parts for level in part.logits).backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_gradients_are_the_same_with_dropout_too(dims, residual):
    usual, again = pair(dims, residual, dropout=0.5)
    x = torch.randn(2, 2, *[8] * dims)
    expected, found = gradients(usual, x), gradients(again, x)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


def test_a_distributed_step_of_two_groups_is_the_same(one_process):
    """Each group of losses has a backward pass of its own, as in training."""
    usual, again = (DistributedDataParallel(n, find_unused_parameters=True) for n in pair(3))
    for seed in range(2):
        torch.manual_seed(seed)
        x = torch.randn(2, 2, 8, 8, 8)
        expected, found = gradients(usual, x), gradients(again, x)
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


def test_stages_run_once_where_nothing_is_propagated_back():
    _, again = pair(2)
    calls = []
    again.encoder.stages[0][0].register_forward_pre_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 2, 8, 8)
    with torch.no_grad():
        again(x)
    assert len(calls) == 1
    gradients(again, x)
    assert len(calls) == 3


def test_running_means_of_batches_are_refused():
    """The second run would move them again, and the network predict otherwise."""
    network = nn.Module()
    network.stages = nn.ModuleList([nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))])
    with pytest.raises(UserError, match="count each batch twice"):
        recompute_stages(network)
    network.stages[0][1] = nn.BatchNorm2d(2, track_running_stats=False)
    recompute_stages(network)
