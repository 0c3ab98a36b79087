"""The attention of NSDA, by its properties."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_semisup.networks.self_dissimilarity import SelfDissimilarity, box_mean, dissimilarity

SHAPES = [
    ((1, 2, 2, 2, 2), (3, 3, 1)),
    ((2, 3, 12, 20), (5, 3)),
    ((1, 2, 6, 14, 9), (1, 5, 3)),
    ((1, 2, 4, 8, 8), (3, 3, 3)),
]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("shape", "window"), SHAPES)
def test_the_mean_is_that_of_the_whole_box(shape, window):
    x = noise(*shape)
    convolve = F.conv2d if len(window) == 2 else F.conv3d
    box, padding = torch.ones(1, 1, *window), [k // 2 for k in window]
    single = x.flatten(0, 1)[:, None]
    counts = convolve(torch.ones_like(single), box, padding=padding)
    expected = (convolve(single, box, padding=padding) / counts).reshape(shape)
    torch.testing.assert_close(box_mean(x, window), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shape", "window"), SHAPES)
@pytest.mark.parametrize("value", [0.0, 5.3, -1e4, 1e-20])
def test_a_constant_map_stays_as_it_is_at_its_borders_too(shape, window, value):
    x = torch.full(shape, value)
    assert torch.equal(SelfDissimilarity(window)(nn.Identity(), (), x), x)


@pytest.mark.parametrize(("shape", "window"), SHAPES)
def test_it_lies_in_0_to_1_and_knows_neither_sign_nor_scale(shape, window):
    x = noise(*shape)
    found = dissimilarity(x, window)
    assert found.min() >= 0
    assert found.max() < 1
    assert torch.equal(dissimilarity(-x, window), found)
    for scale in (2.0**-20, 2.0**20):
        torch.testing.assert_close(dissimilarity(scale * x, window), found, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dissimilarity(x + 3, window), found, rtol=1e-2, atol=1e-3)


def test_noise_has_the_expected_mean_and_an_impulse_is_raised_most():
    found = dissimilarity(noise(1, 4, 64, 64), (9, 9)).mean()
    assert 0.27 < found < 0.33  # 1 - 1 / sqrt(2) = 0.293 where the local deviation is exact
    x = torch.zeros(1, 1, 17, 17)
    x[0, 0, 8, 8] = 1
    found = dissimilarity(x, (9, 9))[0, 0]
    assert found[8, 8] > 0.99
    assert found.flatten().topk(2).values[1] < 0.1


def test_the_gate_has_no_gradient_of_its_own():
    x = noise(2, 3, 12, 12).requires_grad_()
    SelfDissimilarity((3, 3))(nn.Identity(), (), x).sum().backward()
    torch.testing.assert_close(x.grad, 1 + dissimilarity(x.detach(), (3, 3)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_where_squares_overflow(dtype):
    x = (300 * noise(1, 2, 16, 16)).to(dtype)
    out = SelfDissimilarity((3, 3))(nn.Identity(), (), x)
    assert out.dtype == dtype
    assert out.isfinite().all()


def test_samples_and_channels_are_apart():
    x = noise(2, 3, 12, 12)
    found = dissimilarity(x, (3, 3))
    alone = dissimilarity(x[1:, 2:], (3, 3))
    torch.testing.assert_close(alone, found[1:, 2:])
