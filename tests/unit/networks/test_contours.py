"""Energy of contours, by its properties."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.networks.contours import ContourPropagation, contour_energy, subbands

SHAPES = [(16, 16), (13, 37), (3, 24)]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("levels", "directions"), [(1, 1), (3, 4)])
def test_subbands_add_up_to_the_image(shape, levels, directions):
    image = noise(2, 3, *shape)
    found = list(subbands(image, levels, directions))
    assert len(found) == levels * directions + 1
    torch.testing.assert_close(torch.stack(found).sum(0), image, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 7.3, -1e3])
def test_a_constant_image_has_none(value):
    assert torch.equal(
        contour_energy(torch.full((1, 2, 20, 24), value), 3, 4).sum(), noise(1)[0] * 0
    )


def test_it_is_greatest_at_an_edge_and_has_a_mean_of_one():
    image = torch.zeros(1, 1, 64, 64)
    image[..., 32:] = 1
    found = contour_energy(image, 3, 4)[0, 0]
    assert found.mean() == pytest.approx(1, abs=0.01)
    assert found[32, 31:33].min() > 3 * found[32, [4, 60]].max()


def test_a_direction_answers_to_its_edges():
    upright = torch.zeros(1, 1, 64, 64)
    upright[..., 32:] = 1
    inside = (..., slice(16, 48), slice(16, 48))
    for image, expected in ((upright, 0), (upright.transpose(2, 3), 2)):
        answers = [part[inside].square().sum() for part in list(subbands(image, 1, 4))[:4]]
        assert int(torch.stack(answers).argmax()) == expected


def test_brightness_does_not_matter_and_no_gradient_passes():
    image = noise(1, 2, 24, 24).requires_grad_()
    found = contour_energy(image, 3, 4)
    assert not found.requires_grad
    torch.testing.assert_close(contour_energy(image + 5, 3, 4), found, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_is_float32_under_mixed_precision(dtype):
    image = noise(1, 2, 24, 20)
    with torch.autocast("cpu", dtype):
        found = contour_energy(image, 3, 4)
    assert torch.equal(found, contour_energy(image, 3, 4))
    with torch.autocast("cpu", dtype):
        out = ContourPropagation(2, 4, 3, 4)(noise(1, 4, 24, 20).to(dtype), image)
    assert out.dtype == dtype


def test_features_are_as_before_at_first_and_the_weight_of_contours_learns():
    part, features, image = ContourPropagation(2, 4, 3, 4), noise(1, 4, 24, 20), noise(1, 2, 24, 20)
    out = part(features, image)
    assert torch.equal(out, features)
    (out * noise(*out.shape, seed=1)).sum().backward()
    assert part.scale.grad.abs().min() > 0
    part.scale.data.fill_(2)
    added = part(features, image) - features
    energy = contour_energy(image, 3, 4).mean(1, keepdim=True)
    assert (added > 0).all()
    assert (added < 2 * energy + 1e-5).all()
