from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nnunet_semisup.losses.text_alignment import semantic_alignment


def reference(features, logits, text, regions):
    """Equation 4 voxel by voxel, at the features' resolution."""
    probs = torch.sigmoid(logits) if regions else torch.softmax(logits, 1)
    total, count = 0.0, 0
    for b in range(len(features)):
        for k in range(len(text)):
            weights, vectors = probs[b, k].flatten(), features[b].flatten(1).T
            mean = sum(w * v for w, v in zip(weights, vectors, strict=True)) / weights.sum()
            total += (F.normalize(mean, dim=0) - F.normalize(text[k], dim=0)).square().sum()
            count += 1
    return total / count


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("grid", [(3, 4), (2, 3, 2)])
def test_equals_a_loop(regions, grid):
    features, logits = torch.randn(2, 5, *grid), torch.randn(2, 3, *grid)
    text = torch.randn(3, 5)
    torch.testing.assert_close(
        semantic_alignment(features, logits, text, regions),
        reference(features, logits, text, regions),
        atol=1e-4,
        rtol=1e-4,
    )


def test_zero_for_features_that_are_their_text():
    text = F.normalize(torch.randn(2, 5), dim=-1)
    label = torch.randint(0, 2, (1, 4, 4, 4))
    features = text[label].movedim(-1, 1)
    logits = 60.0 * F.one_hot(label, 2).movedim(-1, 1).float()
    assert float(semantic_alignment(features, logits, text, False)) == pytest.approx(0, abs=1e-5)
    assert float(semantic_alignment(features, logits, text.flip(0), False)) > 0.1


def test_size_of_a_class_does_not_shorten_its_vector():
    features, text = torch.randn(1, 5, 8, 8), torch.randn(2, 5)
    features[:, :, 0, 0] = text[1]
    small = torch.full((1, 2, 8, 8), 0.0)
    small[:, 0] = 60.0
    small[:, :, 0, 0] = torch.tensor([0.0, 60.0])
    only = semantic_alignment(features[:, :, :1, :1], small[:, :, :1, :1], text, False)
    assert float(only) < 1e-4


def test_classes_that_are_not_shown_and_padding_are_left_out():
    features, text = torch.randn(2, 5, 4, 4), torch.randn(2, 5)
    logits = torch.zeros(2, 2, 4, 4)
    nothing = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    assert float(semantic_alignment(features, logits, text, False, nothing)) == 0
    valid = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    valid[:, :, 2:] = False
    torch.testing.assert_close(
        semantic_alignment(features, logits, text, False, valid),
        semantic_alignment(features[:, :, :2], logits[:, :, :2], text, False),
        atol=1e-4,
        rtol=1e-4,
    )


def test_gradients_reach_features_logits_and_text():
    given = [
        torch.randn(shape, requires_grad=True) for shape in ((1, 5, 3, 3), (1, 2, 9, 9), (2, 5))
    ]
    semantic_alignment(*given, False).backward()
    assert all(float(value.grad.abs().sum()) > 0 for value in given)
