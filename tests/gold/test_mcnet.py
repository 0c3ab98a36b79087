"""Sharpening and the consistency of decoders against numbers of MC-Net's released code."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.consistency import mutual_distance
from nnunet_semisup.losses.targets import sharpen
from tests.gold.numbers import close, tensor


@pytest.fixture
def case(gold):
    return gold("mcnet_a")


def test_two_classes(case):
    logits = tensor(case["logits"]).requires_grad_()
    probs = [probabilities(one, False) for one in logits]
    sharp = [sharpen(one, float(case["temperature"]), False) for one in probs]
    close(torch.stack(sharp), case["sharpened"], 1e-6)
    distance = mutual_distance(probs, sharp)
    close(distance, case["consistency_loss"], 1e-6)
    distance.backward()
    close(logits.grad, case["grad_logits_consistency"], 1e-6)


def test_several_classes_channel_by_channel_as_released(case):
    """The released form is the one for regions: its channels do not add up to 1; ours do."""
    logits = tensor(case["mc_logits"]).requires_grad_()
    probs = [probabilities(one, False) for one in logits]
    sharp = [sharpen(one, float(case["temperature"]), True) for one in probs]
    close(torch.stack(sharp), case["mc_sharpened"], 1e-6)
    distance = mutual_distance(probs, sharp)
    close(distance, case["mc_consistency_loss"], 1e-6)
    distance.backward()
    close(logits.grad, case["mc_grad_logits_consistency"], 1e-6)
    ours = torch.stack([sharpen(one, float(case["temperature"]), False) for one in probs])
    close(ours.sum(2), torch.ones_like(ours.sum(2)).numpy(), 1e-5)
