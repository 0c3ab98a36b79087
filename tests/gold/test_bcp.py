"""Boxes, pseudo-labels, mixed pairs and losses against numbers of BCP's released code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_semisup.losses.consistency import weighted_cross_entropy, weighted_soft_dice
from nnunet_semisup.losses.targets import PseudoLabel, largest_component, pseudo_label
from nnunet_semisup.mixing.exchange import exchange
from nnunet_semisup.mixing.masks import sample_box
from tests.gold.numbers import close, labels, tensor


@pytest.fixture
def case(gold):
    return gold("bcp_a")


def certain(target):
    return PseudoLabel(target, torch.ones_like(target, dtype=torch.float32))


def region_loss(logits, label):
    dice = weighted_soft_dice(logits, label, False, per_image=True, background=True)
    return 0.5 * (dice + weighted_cross_entropy(logits, label, False))


def inside(case):
    return torch.from_numpy(case["mask"] == 0)[None, None]


@pytest.mark.parametrize("name", ["la", "acdc"])
def test_boxes_have_the_released_size(case, name):
    """Positions are ours: the released ones never include the last along an axis."""
    patch, size = case[f"{name}_patch"].tolist(), case[f"{name}_box_size"].tolist()
    starts = case[f"{name}_box_start"]
    for seed in range(20):
        torch.manual_seed(seed)
        where = sample_box(patch, torch.device("cpu"))[0, 0].nonzero()
        low, high = where.amin(0), where.amax(0)
        assert (high - low + 1).tolist() == size
        assert len(where) == np.prod(size)
    assert (starts <= np.array(patch) - size - 1).all()


@pytest.mark.parametrize("stream", ["a", "b"])
def test_pseudo_labels(case, stream):
    logits = tensor(case[f"teacher_logits_{stream}"])
    label = pseudo_label(logits, False, None)
    np.testing.assert_array_equal(label.target[:, 0], case[f"plab_{stream}_thresholded"])
    largest = largest_component(label.target, logits.shape[1], False)
    np.testing.assert_array_equal(largest[:, 0], case[f"plab_{stream}"])


def test_mixed_pairs(case):
    box = inside(case)
    of_a, of_b = certain(labels(case["lab_a"])), certain(labels(case["lab_b"]))
    pseudo_a, pseudo_b = certain(labels(case["plab_a"])), certain(labels(case["plab_b"]))
    image, label = exchange(tensor(case["img_a"]), of_a, tensor(case["unimg_a"]), pseudo_a, box)
    np.testing.assert_array_equal(image, case["mixed_l"])
    np.testing.assert_array_equal(label.target[:, 0], case["mixed_label_l"])
    image, label = exchange(tensor(case["unimg_b"]), pseudo_b, tensor(case["img_b"]), of_b, box)
    np.testing.assert_array_equal(image, case["mixed_u"])
    np.testing.assert_array_equal(label.target[:, 0], case["mixed_label_u"])


@pytest.mark.parametrize(
    ("kind", "outside_weight", "inside_weight"), [("l", 1, 0.5), ("u", 0.5, 1)]
)
def test_losses_of_both_regions(case, kind, outside_weight, inside_weight):
    logits = tensor(case[f"logits_{kind}"]).requires_grad_()
    label, box = certain(labels(case[f"mixed_label_{kind}"])), inside(case)
    loss = outside_weight * region_loss(logits, label.within(~box))
    loss = loss + inside_weight * region_loss(logits, label.within(box))
    close(loss, case[f"loss_{kind}"], 1e-6)
    loss.backward()
    close(logits.grad, case[f"grad_logits_{kind}"], 1e-6)


@pytest.mark.parametrize(("kind", "outside_weight"), [("", 1.0), ("_unlab", 0.5)])
def test_cross_entropy_of_several_classes_in_2d(case, kind, outside_weight):
    box = torch.from_numpy(case["d2_mask"] == 0)[None, None]
    logits = tensor(case["d2_logits"])
    outside = certain(labels(case["d2_label_image"])).within(~box)
    within = certain(labels(case["d2_label_patch"])).within(box)
    loss = outside_weight * weighted_cross_entropy(logits, outside, False)
    loss = loss + (1.5 - outside_weight) * weighted_cross_entropy(logits, within, False)
    close(loss, case[f"d2_ce{kind}"], 1e-6)
