from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nnunet_semisup.losses.quantization import usage_entropy


def random(count, seed, width=4):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("inverse_temperature", [0.5, 1.0, 5.0])
def test_reference(inverse_temperature):
    tokens, codebook = random(20, 0), random(6, 1)
    q = np.zeros((20, 6))
    for n, k in np.ndindex(*q.shape):
        q[n, k] = math.exp(-inverse_temperature * math.dist(tokens[n], codebook[k]) ** 2)
    q /= q.sum(1, keepdims=True)
    mean = q.mean(0)
    wanted = -(q * np.log(q + 1e-300)).sum(1).mean() + (mean * np.log(mean)).sum()
    got = usage_entropy(tokens, codebook, inverse_temperature).item()
    assert got == pytest.approx(wanted, abs=1e-5)


def test_extremes():
    codebook = 20 * torch.eye(8)
    all_used = usage_entropy(codebook.clone(), codebook).item()
    assert all_used == pytest.approx(-math.log(8), abs=1e-4)
    one_used = usage_entropy(codebook[:1].repeat(8, 1), codebook).item()
    assert one_used == pytest.approx(0, abs=1e-4)
    undecided = usage_entropy(torch.zeros(8, 8), codebook).item()
    assert undecided == pytest.approx(0, abs=1e-4)


def test_gradients_reach_tokens_and_codes():
    tokens, codebook = random(20, 0).requires_grad_(), random(6, 1).requires_grad_()
    usage_entropy(tokens, codebook).backward()
    assert tokens.grad.abs().sum() > 0
    assert codebook.grad.abs().sum() > 0


@pytest.mark.parametrize("scale", [0.0, 1e3])
def test_finite_for_equal_and_for_distant_codes(scale):
    tokens = random(5, 0).requires_grad_()
    codebook = (scale * random(6, 1)).requires_grad_()
    loss = usage_entropy(tokens, codebook)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(tokens.grad).all()
    assert torch.isfinite(codebook.grad).all()


def test_autocast_does_not_change_it():
    tokens, codebook = random(20, 0), random(6, 1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = usage_entropy(tokens, codebook)
    assert torch.equal(mixed, usage_entropy(tokens, codebook))
