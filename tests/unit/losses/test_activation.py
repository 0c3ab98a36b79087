from __future__ import annotations

import pytest
import torch

from nnunet_semisup.losses.activation import (
    confidence,
    foreground_probabilities,
    hard_labels,
    probabilities,
)

LOGITS = torch.tensor([[[[0.0, 3.0]], [[1.0, -2.0]], [[-1.0, 4.0]]]])


def test_labels_use_softmax():
    probs = probabilities(LOGITS, regions=False)
    torch.testing.assert_close(probs.sum(1), torch.ones(1, 1, 2))
    assert hard_labels(probs, False).tolist() == [[[[1, 2]]]]
    assert hard_labels(probs, False).dtype == torch.int64
    assert torch.equal(confidence(probs, False), probs.amax(1, keepdim=True))


def test_regions_use_sigmoid_channel_by_channel():
    probs = probabilities(LOGITS, regions=True)
    torch.testing.assert_close(probs, 1 / (1 + torch.exp(-LOGITS)))
    assert hard_labels(probs, True).tolist() == [[[[0, 1]], [[1, 0]], [[0, 1]]]]
    sure = confidence(probs, True)
    assert sure.min() >= 0.5
    torch.testing.assert_close(sure[0, 1, 0, 1], 1 - probs[0, 1, 0, 1])


@pytest.mark.parametrize("regions", [False, True])
def test_half_precision_becomes_float32(regions):
    assert probabilities(LOGITS.half(), regions).dtype == torch.float32


def test_the_background_is_no_foreground():
    assert torch.equal(foreground_probabilities(LOGITS, False), LOGITS.softmax(1)[:, 1:])
    assert torch.equal(foreground_probabilities(LOGITS, True), LOGITS.sigmoid())
