"""Uncertainty, mask and masked consistency against numbers of UA-MT's released code."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.consistency import squared_difference
from nnunet_semisup.losses.schedules import sigmoid_rampup
from nnunet_semisup.losses.targets import normalised_entropy
from tests.gold.numbers import close, tensor


@pytest.fixture
def case(gold):
    return gold("uamt_a")


@pytest.fixture
def doubt(case):
    passes = torch.stack([probabilities(one, False) for one in tensor(case["mc_logits"])])
    return normalised_entropy(passes.mean(0), False)


def limit(case, number):
    """As a share of the greatest entropy, like ours."""
    progress = int(case["iterations"][number]) / int(case["max_iterations"])
    return 0.75 + 0.25 * sigmoid_rampup(progress, 1.0)


def test_uncertainty(case, doubt):
    classes = case["student_logits"].shape[1]
    close(doubt * math.log(classes), case["uncertainty"], 1e-6)


def test_thresholds_masks_distances_and_gradients(case, doubt):
    labeled = int(case["labelled_bs"])
    for number in range(len(case["iterations"])):
        assert limit(case, number) * math.log(2) == pytest.approx(case["threshold"][number])
        sure = doubt < limit(case, number)
        assert sure.float().mean().item() == pytest.approx(case["mask_fraction"][number], abs=1e-7)
        student = tensor(case["student_logits"]).requires_grad_()
        teacher = tensor(case["teacher_logits"])
        distance = squared_difference(student[labeled:], teacher, False, sure)
        close(distance, case["consistency_dist"][number], 1e-6)
        distance.backward()
        close(student.grad, case["grad_student_logits_consistency"][number], 1e-6)
