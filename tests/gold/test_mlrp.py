"""Reliability, labels and loss of two decoders against numbers of MLRP's released code."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.reliability import prototype_reliability
from nnunet_semisup.losses.targets import normalised_entropy, pseudo_label
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
    label = pseudo_label(logits[teacher], False, None)
    reliable = prototype_reliability(features[teacher], probs[teacher], label, False)
    assert not reliable.requires_grad
    close(surer * reliable[:, 0], case[f"weight_{pupil}{teacher}"], 1e-6)


def test_loss_and_gradient(case):
    logits, features, seen = decoders(case)
    trainer = SimpleNamespace(regions=False, full_resolution=lambda one: one)
    lesson = nnUNetTrainerMLRP.lesson
    loss = lesson(trainer, seen[0], seen[1], None) + lesson(trainer, seen[1], seen[0], None)
    loss.backward()
    close(loss, case["consistency_loss"], 1e-6)
    close(torch.stack([one.grad for one in logits]), case["grad_logits_consistency"], 1e-7)
    assert not case["features_receive_gradient"]
    assert all(one.grad is None for one in features)
