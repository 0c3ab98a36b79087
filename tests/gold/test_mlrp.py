"""Reliability, labels and loss of two decoders against numbers of MLRP's released code."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.consistency import weighted_cross_entropy
from nnunet_semisup.losses.reliability import prototype_reliability
from nnunet_semisup.losses.targets import PseudoLabel, normalised_entropy, pseudo_label
from nnunet_semisup.networks.decode import Decoded
from nnunet_semisup.trainers import nnUNetTrainerMLRP
from tests.gold.numbers import close, tensor


@pytest.fixture
def case(gold):
    return gold("mlrp_a")


def decoders(case):
    """Return the logits of both decoders, and them with their features, which want a gradient."""
    logits = [tensor(one).requires_grad_() for one in case["logits"]]
    features = [tensor(one).requires_grad_() for one in case["features"]]
    pairs = zip(logits, features, strict=True)
    return logits, features, [Decoded(one, (feature,)) for one, feature in pairs]


@pytest.mark.parametrize(("pupil", "teacher"), [(0, 1), (1, 0)])
def test_reliability_of_the_surer_decoder(case, pupil, teacher):
    logits, features, _ = decoders(case)
    probs = [probabilities(one, False) for one in logits]
    entropies = [normalised_entropy(one, False)[:, 0] for one in probs]
    surer = entropies[pupil] > entropies[teacher]
    assert np.array_equal(surer.numpy(), case[f"m_{pupil}{teacher}"] > 0)
    reliable = prototype_reliability(features[teacher], probs[teacher], False)
    assert not reliable.requires_grad
    released = case[f"weight_{pupil}{teacher}"]
    assert (released < 0).any()
    close(surer * reliable[:, 0], released.clip(0), 1e-6)


def test_loss_and_gradient_with_the_released_weights(case):
    """Negative ones among them, which ours are not."""
    logits, total = decoders(case)[0], 0
    for pupil, teacher in ((0, 1), (1, 0)):
        weight = tensor(case[f"weight_{pupil}{teacher}"])[:, None]
        label = PseudoLabel(pseudo_label(logits[teacher], False, None).target, weight)
        among = tensor(case[f"m_{pupil}{teacher}"])[:, None] > 0
        total = total + weighted_cross_entropy(logits[pupil], label, False, among)
    total.backward()
    close(total, case["consistency_loss"], 1e-6)
    close(torch.stack([one.grad for one in logits]), case["grad_logits_consistency"], 1e-7)


def test_loss_of_the_trainer(case):
    """From the recorded cross entropies, with negative weights as 0."""
    logits, features, seen = decoders(case)
    trainer = SimpleNamespace(regions=False, full_resolution=lambda one: one)
    lesson = nnUNetTrainerMLRP.lesson
    loss = lesson(trainer, seen[0], seen[1], None) + lesson(trainer, seen[1], seen[0], None)
    loss.backward()
    expected = 0.0
    for pair in ("01", "10"):
        weighted = case[f"ce_{pair}"] * case[f"weight_{pair}"].clip(0)
        expected += weighted.sum() / case[f"m_{pair}"].sum()
    close(loss, expected, 1e-6)
    assert all(bool(one.grad.any()) for one in logits)
    assert not case["features_receive_gradient"]
    assert all(one.grad is None for one in features)
