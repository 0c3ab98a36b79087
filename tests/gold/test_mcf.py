"""Rectification and consistency of two networks against numbers of MCF's released code."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.consistency import mean_square
from nnunet_semisup.losses.targets import PseudoLabel, sharpen
from nnunet_semisup.trainers import nnUNetTrainerMCF
from nnunet_semisup.training.ranks import Ranks
from tests.gold.numbers import close, labels, tensor


@pytest.fixture
def case(gold):
    return gold("mcf_a")


@pytest.fixture
def trainer(case):
    """What the methods read of a trainer."""
    weight = float(case["mse_weight"])
    return SimpleNamespace(regions=False, rectification_weight=weight, ranks=Ranks(False))


def label_of(case):
    target = labels(case["labels"])[: int(case["labelled_bs"])]
    return PseudoLabel(target, torch.ones(target.shape))


def pair(case):
    return [tensor(case[f"logits_{name}"]).requires_grad_() for name in "vr"]


def test_the_better_network(case, trainer):
    number = int(case["labelled_bs"])
    outputs = [one[:number] for one in pair(case)]
    second = nnUNetTrainerMCF.second_is_better(trainer, outputs, label_of(case))
    assert int(second) == case["good_student"]
    second = nnUNetTrainerMCF.second_is_better(trainer, outputs[::-1], label_of(case))
    assert int(second) == 1 - case["good_student"]


def test_terms_and_gradients(case, trainer):
    """Cross entropy and Dice, in whose place we have nnU-Net's, are written out here."""
    number, logits = int(case["labelled_bs"]), pair(case)
    label = label_of(case)
    outputs = [one[:number] for one in logits]
    rectified = nnUNetTrainerMCF.rectified_terms(trainer, outputs, label)
    for term, name in zip(rectified.values(), "vr", strict=True):
        close(term, trainer.rectification_weight * case[f"{name}_mse"], 1e-6)

    better = int(case["good_student"])
    probs = [probabilities(one[number:], False) for one in logits]
    target = sharpen(probs[better].detach(), float(case["temperature"]), False)
    close(target, case["sharpened_target"], 1e-6)
    consistency = mean_square(probs[1 - better], target)
    close(consistency, case["consistency_loss"], 1e-6)

    total = float(case["consistency_weight"]) * consistency + sum(rectified.values())
    for one, name in zip(outputs, "vr", strict=True):
        truth, foreground = label.target[:, 0], one.softmax(1)[:, 1]
        ce = F.cross_entropy(one, truth)
        overlap, size = (foreground * truth).sum(), (foreground.square() + truth).sum()
        dice = 1 - (2 * overlap + 1e-5) / (size + 1e-5)
        close(ce, case[f"{name}_ce"], 1e-6)
        close(dice, case[f"{name}_dice"], 1e-6)
        total = total + ce + dice
    close(total, case["v_loss"] + case["r_loss"], 2e-6)
    total.backward()
    for one, name in zip(logits, "vr", strict=True):
        close(one.grad, case[f"grad_logits_{name}"], 1e-6)


def test_where_the_two_disagree(case, trainer):
    """Two networks that answer alike, whatever their probabilities, are not rectified."""
    number, (first, _) = int(case["labelled_bs"]), pair(case)
    outputs = [first[:number], 2 * first[:number]]
    alike = nnUNetTrainerMCF.rectified_terms(trainer, outputs, label_of(case))
    assert [float(term.detach()) for term in alike.values()] == [0, 0]
    v, r = (one[:number].argmax(1) for one in pair(case))
    np.testing.assert_array_equal(v != r, case["diff_mask"] == 1)
