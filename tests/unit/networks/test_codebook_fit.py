from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_semisup.networks.codebook_fit import moments, reproduction_root
from nnunet_semisup.networks.quantizer import VectorQuantizer


def tokens_with_few_directions(count=1500, width=32, directions=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    loadings = torch.randn(width, directions, generator=generator)
    noise = 0.2 * torch.randn(count, width, generator=generator)
    tokens = torch.randn(count, directions, generator=generator) @ loadings.T + noise + 0.5
    return F.layer_norm(tokens, (width,))


def water_filling(values, size):
    """Error level by bisection: the rate of the directions above it is log2(size) bits."""
    low, high = 1e-12, float(values.max())
    for _ in range(200):
        middle = math.sqrt(low * high)
        rate = 0.5 * np.log2(np.maximum(values / middle, 1.0)).sum()
        low, high = (middle, high) if rate > math.log2(size) else (low, middle)
    return low


def test_moments_are_those_of_the_tokens():
    tokens = tokens_with_few_directions()
    mean, covariance = moments(tokens)
    torch.testing.assert_close(mean, tokens.mean(0))
    torch.testing.assert_close(covariance, torch.cov(tokens.T, correction=0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [2, 64, 2048])
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_variances_are_those_of_reverse_water_filling(size, spread):
    generator = torch.Generator().manual_seed(1)
    values = torch.exp(spread * torch.randn(12, generator=generator))
    basis, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator))
    root = reproduction_root((basis * values) @ basis.T, size)
    level = water_filling(values.numpy().astype(float), size)
    expected = (values - level).clamp_min(0.0)
    torch.testing.assert_close(root, root.T, atol=1e-5, rtol=0)
    torch.testing.assert_close(root @ root, (basis * expected) @ basis.T, atol=1e-3, rtol=1e-3)


def test_fitted_codes_lie_where_the_tokens_are():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(32, 2048, 32, nn.Conv3d)
    tokens = tokens_with_few_directions()
    variance = (tokens - tokens.mean(0)).square().sum(1).mean()

    def error():
        codes = quantizer.codebook.detach()
        nearest = codes[torch.cdist(tokens, codes).argmin(1)]
        return float((nearest - tokens).square().sum(1).mean() / variance)

    before = error()
    mean, covariance = moments(tokens)
    quantizer.fit(mean, covariance)
    assert error() < 0.3 < 0.7 < before
    torch.testing.assert_close(quantizer.codebook.mean(0), mean, atol=1e-4, rtol=0)


def test_constant_tokens_give_one_code():
    quantizer = VectorQuantizer(4, 16, 4, nn.Conv2d)
    quantizer.fit(*moments(torch.ones(10, 4)))
    torch.testing.assert_close(quantizer.codebook, torch.ones(16, 4), atol=1e-4, rtol=0)


def test_moments_without_a_number_move_nothing():
    quantizer = VectorQuantizer(4, 16, 4, nn.Conv2d)
    before = quantizer.codebook.detach().clone()
    tokens = torch.ones(10, 4)
    tokens[3, 1] = math.nan
    quantizer.fit(*moments(tokens))
    assert torch.equal(quantizer.codebook, before)
