"""Averages of two networks' weights, and a discriminator's gradient, reversed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_semisup.networks.bilateral import average_both_ways
from nnunet_semisup.networks.discriminator import PatchDiscriminator, judged, reversed_gradient


def test_both_are_averaged_at_the_same_time_buffers_included():
    one, other = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    for network, value in ((one, 1.0), (other, 3.0)):
        network.weight.data.fill_(value)
        network.running_mean.fill_(value)
    average_both_ways(one, other, 0.75)
    assert one.weight.item() == one.running_mean.item() == 1.5
    assert other.weight.item() == other.running_mean.item() == 2.5
    assert one.num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_limits(decay):
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    before = one.weight.clone(), other.weight.clone()
    average_both_ways(one, other, decay)
    mean = (before[0] + before[1]) / 2
    expected = before if decay == 1 else (mean, mean)
    assert torch.allclose(one.weight, expected[0])
    assert torch.allclose(other.weight, expected[1])


def test_gradient_is_reversed_and_weighted():
    x = torch.tensor([2.0], requires_grad=True)
    y = reversed_gradient(x, 0.25)
    (3 * y).sum().backward()
    assert y.item() == pytest.approx(2.0)
    assert x.grad.item() == pytest.approx(-0.75)


@pytest.mark.parametrize("size", [(16, 16), (7, 16, 9)])
def test_the_discriminator_learns_while_the_maps_learn_the_reverse(size):
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(2, len(size))
    maps = torch.rand(3, 2, *size, requires_grad=True)
    judged(discriminator(maps), labeled=False).backward()
    straight = maps.grad.clone()
    maps.grad = None
    before = [p.grad.clone() for p in discriminator.parameters()]
    discriminator.zero_grad()
    judged(discriminator(reversed_gradient(maps, 0.5)), labeled=False).backward()
    assert torch.allclose(maps.grad, -0.5 * straight, atol=1e-9)
    for parameter, gradient in zip(discriminator.parameters(), before, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)


def test_judgement_is_the_binary_cross_entropy():
    logits = torch.tensor([0.0, 2.0])
    expected = torch.nn.functional.softplus(-logits).mean()
    assert torch.isclose(judged(logits, labeled=True), expected)
    assert torch.isclose(judged(logits, labeled=False), torch.nn.functional.softplus(logits).mean())


def test_parts_count_by_their_share_of_what_is_no_padding():
    logits = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1)
    valid = torch.tensor([0, 0, 0, 1, 1, 1], dtype=torch.bool).view(1, 1, 6, 1)
    losses = torch.nn.functional.softplus(logits).flatten()
    expected = (0.5 * losses[1] + losses[2]) / 1.5
    assert torch.isclose(judged(logits, False, valid), expected)
    assert judged(logits, False, torch.zeros_like(valid)) == 0
