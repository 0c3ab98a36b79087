"""Reliability of a prediction by the features of its classes."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.losses.reliability import prototype_reliability


def one_image(features, probs):
    """Return maps ``(1, C, 1, voxels)`` of rows a voxel."""
    return [torch.tensor(rows).t()[None, :, None] for rows in (features, probs)]


def test_by_hand():
    """Of class 0 are (1, 0) and (0, 1), whose mean has a cosine of 0.7071 to both."""
    maps = one_image([[2.0, 0.0], [0.0, 2.0], [-1.0, 0.0]], [[0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    got = prototype_reliability(*maps, False).flatten()
    half = 0.5**0.5
    expected = [
        1 - ((half - 0.8) ** 2 + (-1 - 0.2) ** 2) / 2,
        1 - ((half - 0.7) ** 2 + (0 - 0.3) ** 2) / 2,
        1 - ((-half - 0.4) ** 2 + (1 - 0.6) ** 2) / 2,
    ]
    assert got.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_negative_reliability_is_0():
    """The second voxel's features are the opposite of those of its class."""
    maps = one_image([[3.0, 0.0], [-1.0, 0.0]], [[0.9, 0.1], [0.9, 0.1]])
    assert prototype_reliability(*maps, False).flatten().tolist() == pytest.approx([0.99, 0.0])


def test_a_class_predicted_nowhere_does_not_count():
    maps = one_image([[1.0, 0.0], [1.0, 0.0]], [[0.8, 0.2], [0.6, 0.4]])
    got = prototype_reliability(*maps, False).flatten()
    assert got.tolist() == pytest.approx([1 - 0.2**2, 1 - 0.4**2])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_region_is_two_classes(dims):
    features, logits = (torch.randn(2, 3, *[4] * dims) for _ in range(2))
    probs = logits.sigmoid()
    got = prototype_reliability(features, probs, True)
    assert got.shape == probs.shape
    for number in range(3):
        both = torch.stack([1 - probs[:, number], probs[:, number]], 1)
        torch.testing.assert_close(
            got[:, number : number + 1], prototype_reliability(features, both, False)
        )


def test_padding_is_in_no_mean():
    features, probs = torch.randn(2, 3, 4, 4), torch.randn(2, 2, 4, 4).softmax(1)
    valid = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    valid[:, :, :2] = False
    cropped = prototype_reliability(features[:, :, 2:], probs[:, :, 2:], False)
    got = prototype_reliability(features, probs, False, valid)
    torch.testing.assert_close(got[:, :, 2:], cropped)
    nothing = prototype_reliability(features, probs, False, torch.zeros_like(valid))
    assert not nothing.any()


def test_half_precision_is_computed_in_float32():
    """Sums of 40,000 voxels are beyond float16's greatest number."""
    features = torch.full((1, 2, 200, 200), 8.0, dtype=torch.float16)
    probs = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).expand(1, 2, 200, 200)
    with torch.autocast("cpu"):
        got = prototype_reliability(features, probs, False)
    torch.testing.assert_close(got, torch.full((1, 1, 200, 200), 0.99), rtol=1e-5, atol=0)
