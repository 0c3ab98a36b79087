"""The evidence bound of an image's structure and noise, against its equations."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_semisup.losses.decomposition import (
    Gaussian,
    class_maps,
    curvature,
    negative_evidence,
    update_precisions,
)


def parts_of(size=(8, 10), classes=2, seed=0):
    """Return an image of two channels, its structure, its noise and class probabilities."""
    random = torch.Generator().manual_seed(seed)

    def draw(channels):
        return torch.randn(2, channels, *size, generator=random)

    image = draw(2)
    structure = Gaussian(image + 0.3 * draw(2), draw(2) - 3)
    return image, structure, Gaussian(0.2 * draw(2), draw(2) - 2), draw(classes).softmax(1)


def constant(value, log_variance=-4.0):
    return Gaussian(torch.full((2, 2, 8, 10), value), torch.full((2, 2, 8, 10), log_variance))


def test_curvature_is_that_of_four_neighbours_with_the_border_repeated():
    values = torch.tensor([[0.0, 0, 0], [0, 4, 0], [0, 0, 8]])[None, None]
    expected = torch.tensor([[0.0, -1, 0], [-1, 4, -3], [0, -3, 4]])
    assert torch.equal(curvature(values)[0, 0], expected)


def test_precisions_are_positive_and_have_no_gradient():
    image, structure, noise, maps = parts_of()
    structure.mean.requires_grad_()
    maps.requires_grad_()
    found = update_precisions(image, structure, noise, maps, torch.ones(2, 1, 8, 10))
    assert [tuple(part.shape) for part in found] == [
        (2, 2, 8, 10),
        (2, 2, 8, 10),
        (2, 2, 8, 10),
        (2, 2, 1, 1),
    ]
    assert all((part > 0).all() and not part.requires_grad for part in found)


def test_the_gradient_is_that_of_fixed_precisions():
    """Through the precisions as well, data and smoothness would be logarithms."""
    image, structure, noise, maps = parts_of()
    structure.mean.requires_grad_()
    evidence = negative_evidence(image, structure, noise, maps)
    (found,) = torch.autograd.grad(evidence.data, [structure.mean])
    rho = update_precisions(image, structure, noise, maps, torch.ones(2, 1, 8, 10)).rho
    residual = image - structure.mean - noise.mean
    expected = -2 * rho * residual / 250 / residual.numel()
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("log_variance", [-20.0, 0.0])
def test_a_constant_image_is_finite(log_variance):
    structure, noise = constant(1.5, log_variance), constant(0.0, log_variance)
    logits = torch.full((2, 3, 8, 10), 50.0, requires_grad=True)
    parts = [structure.mean, structure.log_variance, noise.mean, noise.log_variance]
    for part in parts:
        part.requires_grad_()
    image = torch.full((2, 2, 8, 10), 1.5)
    evidence = negative_evidence(image, structure, noise, logits.softmax(1))
    assert all(torch.isfinite(part) for part in evidence)
    assert float(evidence.boundary.detach()) == pytest.approx(0.0, abs=1e-9)
    evidence.total.backward()
    assert all(torch.isfinite(part.grad).all() for part in (*parts, logits))


def test_exact_reconstruction_leaves_no_data_term():
    image, structure, _, maps = parts_of()
    exact = Gaussian(image - structure.mean, structure.log_variance)
    assert float(negative_evidence(image, structure, exact, maps).data) < 1e-10
    other = Gaussian(exact.mean + 0.1, exact.log_variance)
    assert float(negative_evidence(image, structure, other, maps).data) > 1e-4


def test_the_size_of_the_patch_does_not_matter():
    """But by the prior of the classes' shares, which counts like two voxels."""
    image, structure, noise, maps = parts_of(size=(32, 32))
    once = negative_evidence(image, structure, noise, maps)

    def mirrored(x):
        rows = torch.cat([x, x.flip(2)], 2)
        return torch.cat([rows, rows.flip(3)], 3)

    four = negative_evidence(
        mirrored(image),
        Gaussian(*map(mirrored, structure)),
        Gaussian(*map(mirrored, noise)),
        mirrored(maps),
    )
    for one, other in zip(once, four, strict=True):
        torch.testing.assert_close(one, other, rtol=0.01, atol=1e-5)


def test_padding_and_what_is_next_to_it_count_nowhere():
    image, structure, noise, maps = parts_of()
    valid = torch.ones(2, 1, 8, 10, dtype=torch.bool)
    valid[:, :, :3] = False
    before = negative_evidence(image, structure, noise, maps, valid)
    for values in (image, *structure, *noise, maps):
        values[:, :, :3] = 0.5
    after = negative_evidence(image, structure, noise, maps, valid)
    torch.testing.assert_close(tuple(before), tuple(after))
    nothing = negative_evidence(image, structure, noise, maps, torch.zeros_like(valid))
    assert all(float(part) == 0 for part in nothing)


def test_maps_of_regions_add_up_to_one():
    probs = torch.tensor([[0.9, 0.0, 0.5], [0.6, 0.0, 0.5]]).view(1, 2, 1, 3)
    maps = class_maps(probs, regions=True)
    torch.testing.assert_close(maps.sum(1), torch.ones(1, 1, 3))
    torch.testing.assert_close(maps[0, :, 0, 1], torch.tensor([1.0, 0, 0]))
    assert class_maps(probs, regions=False) is probs


def test_a_sample_has_the_moments_and_passes_gradients():
    mean = torch.full((1, 1, 100, 100), 2.0, requires_grad=True)
    logarithm = torch.full_like(mean, 2 * math.log(0.5)).detach().requires_grad_()
    torch.manual_seed(0)
    sample = Gaussian(mean, logarithm).sample()
    assert float(sample.mean()) == pytest.approx(2.0, abs=0.02)
    assert float(sample.std()) == pytest.approx(0.5, abs=0.02)
    sample.square().sum().backward()
    assert mean.grad.any()
    assert logarithm.grad.any()
