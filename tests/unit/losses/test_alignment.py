from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nnunet_semisup.losses.alignment import patchwise_infonce


def random(seed, batch=2, positions=7, width=5):
    return torch.randn(batch, positions, width, generator=torch.Generator().manual_seed(seed))


def reference(ours, theirs, temperature):
    """Term by term in numpy."""
    total, count = 0.0, 0
    for a, b in zip(ours.double().numpy(), theirs.double().numpy(), strict=True):
        a = a / np.linalg.norm(a, axis=1, keepdims=True)
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
        for i in range(len(a)):
            scores = np.exp(b @ a[i] / temperature)
            total -= math.log(scores[i] / scores.sum())
            count += 1
    return total / count


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_reference(temperature):
    ours, theirs = random(0), random(1)
    got = patchwise_infonce(ours, theirs, temperature).item()
    assert got == pytest.approx(reference(ours, theirs, temperature), rel=1e-5)


def test_uninformative_features_give_the_logarithm_of_the_positions_or_more():
    assert patchwise_infonce(torch.ones(2, 9, 5), random(1, positions=9)) > math.log(9)
    constant = patchwise_infonce(random(0, positions=9), torch.ones(2, 9, 5)).item()
    assert constant == pytest.approx(math.log(9), rel=1e-5)


def test_equal_features_give_almost_zero_whatever_their_norm():
    features = random(0, width=64)
    assert patchwise_infonce(features, 3.0 * features) < 1e-2


def test_negatives_come_from_the_same_image():
    """Another image in the batch does not change an image's term."""
    ours, theirs = random(0), random(1)
    alone = [patchwise_infonce(ours[i : i + 1], theirs[i : i + 1]) for i in range(2)]
    together = patchwise_infonce(ours, theirs)
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_gradient_flows_into_the_features_alone():
    ours, theirs = random(0).requires_grad_(), random(1).requires_grad_()
    patchwise_infonce(ours, theirs).backward()
    assert ours.grad.abs().sum() > 0
    assert theirs.grad is None


def test_zero_features_are_finite():
    ours = torch.zeros(1, 4, 3, requires_grad=True)
    loss = patchwise_infonce(ours, random(1, 1, 4, 3))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(ours.grad).all()


def test_autocast_does_not_change_it():
    ours, theirs = random(0), random(1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = patchwise_infonce(ours, theirs)
    assert torch.equal(mixed, patchwise_infonce(ours, theirs))
