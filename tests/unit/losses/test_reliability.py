"""Reliability of labels by hand-made features: absent classes, padding, regions."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.losses.reliability import prototype_reliability
from nnunet_semisup.losses.targets import PseudoLabel

EAST, NORTH = (1.0, 0.0), (0.0, 1.0)


def line(*vectors):
    """Return features ``(1, 2, N)`` of a line of voxels."""
    return torch.tensor(vectors).T[None]


def test_mean_over_classes_of_one_minus_the_squared_gap():
    features = line(EAST, EAST, NORTH)
    probs = torch.tensor([[[0.9, 0.8, 0.3], [0.1, 0.2, 0.7]]])
    label = PseudoLabel(torch.tensor([[[0, 0, 1]]]), torch.ones(1, 1, 3))
    found = prototype_reliability(features, probs, label, False)
    gaps = [(0.1, 0.1), (0.2, 0.2), (0.3, 0.3)]
    expected = [1 - (a**2 + b**2) / 2 for a, b in gaps]
    assert found[0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_class_without_voxels_has_a_cosine_of_zero():
    probs = torch.tensor([[[0.6, 0.6], [0.4, 0.4]]])
    label = PseudoLabel(torch.zeros(1, 1, 2, dtype=torch.int64), torch.ones(1, 1, 2))
    found = prototype_reliability(line(EAST, EAST), probs, label, False)
    assert found[0, 0].tolist() == pytest.approx([1 - (0.4**2 + 0.4**2) / 2] * 2, abs=1e-6)


def test_padding_is_in_no_mean():
    features, probs = line(EAST, NORTH), torch.full((1, 2, 2), 0.5)
    label = PseudoLabel(torch.zeros(1, 1, 2, dtype=torch.int64), torch.tensor([[[1.0, 0.0]]]))
    found = prototype_reliability(features, probs, label, False)
    assert found[0, 0].tolist() == pytest.approx([1 - (0.25 + 0.25) / 2] * 2, abs=1e-6)


def test_features_of_zero_and_opposite_ones_stay_numbers():
    features = line((0.0, 0.0), (-3.0, 0.0), (9.0, 0.0))
    probs = torch.tensor([[[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]])
    label = PseudoLabel(torch.zeros(1, 1, 3, dtype=torch.int64), torch.ones(1, 1, 3))
    found = prototype_reliability(features, probs, label, False)
    assert found[0, 0].tolist() == pytest.approx([0.5, -1.0, 1.0], abs=1e-6)


def test_each_region_has_its_own():
    probs = torch.tensor([[[0.9, 0.2], [0.4, 0.6]]])
    label = PseudoLabel((probs > 0.5).float(), torch.ones(1, 2, 2))
    found = prototype_reliability(line(EAST, NORTH), probs, label, True)
    expected = [[1 - 0.01, 1 - 0.04], [1 - 0.16, 1 - 0.16]]
    assert torch.allclose(found[0], torch.tensor(expected), atol=1e-6)
