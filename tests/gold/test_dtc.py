"""Distance maps and both of their losses against numbers of DTC's released code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semisup.data.signed_distance import signed_distance
from nnunet_semisup.losses.activation import foreground_probabilities
from nnunet_semisup.losses.consistency import mean_square
from nnunet_semisup.losses.targets import distance_to_mask
from tests.gold.numbers import close, tensor

LABELS = LabelManager({"background": 0, "object": 1}, None)


@pytest.fixture
def case(gold):
    return gold("dtc_a")


def test_distance_maps(case):
    """An empty mask is where ours differs: +1, not 0, which stands for a boundary."""
    masks = torch.from_numpy(case["mask"].astype(np.int16))
    empty = [not mask.any() for mask in case["mask"]]
    assert any(empty)
    assert not all(empty)
    for mask, expected, nothing in zip(masks, case["sdf"], empty, strict=True):
        ours = signed_distance(mask[None], LABELS)[0]
        if nothing:
            assert not expected.any()
            assert (ours == 1).all()
        else:
            close(ours, expected, 1e-6)


def test_consistency_and_its_gradients(case):
    """The released segmentation has one sigmoid channel, like a region."""
    distance = tensor(case["pred_sdf_tanh"]).requires_grad_()
    logits = tensor(case["seg_logits"]).requires_grad_()
    mask = distance_to_mask(distance, float(case["k"]))
    close(mask, case["dis_to_mask"], 1e-6)
    loss = mean_square(mask, foreground_probabilities(logits, True))
    close(loss, case["consistency_loss"], 1e-6)
    loss.backward()
    for ours, name in ((distance.grad, "pred_sdf"), (logits.grad, "seg_logits")):
        expected = case[f"grad_{name}_consistency"]
        close(ours, expected, 1e-6 * np.abs(expected).max())


def test_loss_of_the_distances(case):
    labeled = int(case["labelled_bs"])
    distance = tensor(case["pred_sdf_tanh"]).requires_grad_()
    loss = mean_square(distance[:labeled], tensor(case["sdf"])[:labeled, None])
    close(loss, case["loss_sdf"], 1e-6)
    loss.backward()
    close(distance.grad, case["grad_pred_sdf_mse"], 1e-6)
