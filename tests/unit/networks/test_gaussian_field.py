"""The field of Gaussians, by its properties and against a plain computation."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_semisup.networks.gaussian_field import (
    GaussianFieldHead,
    Gaussians,
    Templates,
    shares,
    splat,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def field_of(gaussians: Gaussians, samples: int, radius: int) -> torch.Tensor:
    return splat(gaussians.values, shares(gaussians, samples, radius))


def random_gaussians(height: int, width: int, width_of_values: int = 2) -> Gaussians:
    """Shapes with correlation and drift."""
    covariance, opacity = templates()(2 * noise(1, 6, height, width, seed=1))
    drift = noise(1, 2, height, width, seed=2).tanh()
    return Gaussians(noise(1, width_of_values, height, width), covariance, opacity, drift)


def templates() -> Templates:
    """Six, away from where they start."""
    result = Templates(6)
    result.correlation.data.copy_(noise(6, seed=3))
    result.opacity.data.copy_(2 * noise(6, seed=4))
    result.log_sigmas.data.add_(0.3 * noise(6, 2, seed=5))
    return result


def dense(g: Gaussians, samples: int) -> torch.Tensor:
    """Every pixel's mean over all Gaussians, pixel by pixel in numbers of Python."""
    _, _, height, width = g.values.shape
    out = torch.zeros(1, g.values.shape[1], height * samples, width * samples)
    for y in range(height * samples):
        for x in range(width * samples):
            py, px = (y + 0.5) / samples - 0.5, (x + 0.5) / samples - 0.5
            total, weight = torch.zeros(g.values.shape[1]), 0.0
            for i in range(height):
                for j in range(width):
                    xx, xy, yy = (float(v) for v in g.covariance[0, :, i, j])
                    dx = px - j - float(g.drift[0, 0, i, j])
                    dy = py - i - float(g.drift[0, 1, i, j])
                    square = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / (xx * yy - xy * xy)
                    own = math.exp(float(g.log_opacity[0, 0, i, j]) - square / 2)
                    total, weight = total + own * g.values[0, :, i, j], weight + own
            out[0, :, y, x] = total / weight
    return out


def test_it_is_the_sum_over_all_gaussians_once_the_window_holds_them():
    with torch.no_grad():
        gaussians = random_gaussians(4, 5)
        expected = dense(gaussians, 3)
        errors = [float((field_of(gaussians, 3, r) - expected).abs().max()) for r in (1, 2, 3, 5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-5 < errors[0]


def test_shares_add_up_to_one_so_that_a_constant_is_drawn_as_it_is():
    gaussians = random_gaussians(5, 4)
    weights = shares(gaussians, 4)
    assert weights.shape == (1, 5, 4, 4, 4, 49)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    constant = torch.full((1, 2, 5, 4), 3.7)
    torch.testing.assert_close(splat(constant, weights), torch.full((1, 2, 20, 16), 3.7))


def test_a_finer_field_averages_to_the_coarser_one():
    wide = random_gaussians(6, 6)
    fine, coarse = (field_of(wide, samples, 3) for samples in (8, 4))
    averaged = torch.nn.functional.avg_pool2d(fine, 2)
    assert (averaged - coarse).abs().mean() < 0.05 * coarse.abs().mean()


def test_covariances_are_positive_definite_for_any_mixture():
    held = Templates(6)
    for number, parameter in enumerate(held.parameters()):
        parameter.data.add_(3 * noise(*parameter.shape, seed=number))
    covariance, opacity = held(20 * noise(2, 6, 40, 40))
    xx, xy, yy = covariance.unbind(1)
    assert (xx > 0).all()
    assert (xx * yy - xy * xy > 0).all()
    assert (opacity < 0).all()


def test_templates_start_round_and_with_the_papers_opacity():
    covariance, opacity = Templates(8)(noise(1, 8, 3, 3))
    assert torch.equal(covariance[:, 1], torch.zeros(1, 3, 3))
    torch.testing.assert_close(covariance[:, 0], covariance[:, 2])
    torch.testing.assert_close(opacity.exp(), torch.full((1, 1, 3, 3), 0.7311), rtol=0, atol=1e-4)


def head(cell: int = 4) -> GaussianFieldHead:
    torch.manual_seed(0)
    return GaussianFieldHead(6, 3, cell, 8)


@pytest.mark.parametrize("shape", [(16, 16), (13, 18), (3, 5)])
def test_logits_have_the_size_of_the_features(shape):
    x = noise(2, 6, *shape)
    out = head()(x)
    assert out.shape == (2, 3, *shape)
    assert out.isfinite().all()


def test_the_drift_starts_at_zero_and_stays_within_a_cell():
    made, x = head(), noise(2, 6, 16, 16)
    assert torch.equal(made.gaussians(x).drift, torch.zeros(2, 2, 4, 4))
    made(x).square().sum().backward()
    assert made.drift_scale.grad.abs().min() > 0
    made.drift_scale.data.fill_(100)
    drift = made.gaussians(x).drift.abs()
    assert 0.9 < drift.max() <= 1


def test_everything_learns_templates_too():
    made, x = head(), noise(2, 6, 16, 16)
    made.drift_scale.data.fill_(0.5)
    (made(x) * noise(2, 3, 16, 16, seed=1)).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in made.parameters())


def test_moving_by_whole_cells_moves_the_logits():
    made, x = head(), noise(1, 6, 64, 64)
    moved = made(torch.roll(x, (4, 8), (2, 3)))
    inside = (..., slice(24, 40), slice(24, 40))
    expected = torch.roll(made(x), (4, 8), (2, 3))
    torch.testing.assert_close(moved[inside], expected[inside])


def test_training_and_prediction_are_the_same():
    made, x = head(), noise(1, 6, 16, 16)
    assert torch.equal(made.train()(x), made.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_close(dtype):
    made, x = head(), 30 * noise(1, 6, 16, 20)
    expected = made(x)
    with torch.autocast("cpu", dtype):
        out = made(x.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.float(), expected, rtol=0.1, atol=0.05 * float(expected.detach().abs().max())
    )


def test_torch_compile_keeps_one_graph():
    torch._dynamo.reset()
    made, x = head(), noise(1, 6, 13, 18)
    try:
        compiled = torch.compile(made, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), made(x))
    finally:
        torch._dynamo.reset()
