"""The common label and the similarity to texts against numbers of VCLIPSeg's released code."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunet_semisup.losses.consistency import segmentation_loss
from nnunet_semisup.losses.targets import PseudoLabel, joint_label, performance_shares
from nnunet_semisup.losses.text_alignment import agreed_classes, class_means, text_dissimilarity
from nnunet_semisup.trainers import nnUNetTrainerVCLIPSeg
from tests.gold.numbers import close, labels, tensor


@pytest.fixture
def case(gold):
    return gold("vclipseg_a")


def label_of(case):
    target = labels(case["labels"])[: int(case["labelled_bs"])]
    return PseudoLabel(target, torch.ones(target.shape))


def on_grid(case):
    """Return features of both decoders, as if two batches, and where both are right."""
    step, number = int(case["downscale"]), int(case["labelled_bs"])
    every = (..., *[slice(None, None, step)] * 3)
    label = PseudoLabel(*(part[every] for part in label_of(case)))
    outputs = [tensor(one)[:number][every] for one in case["logits"]]
    agreed = agreed_classes(outputs, label, False)
    leaves = [tensor(case[name]).requires_grad_() for name in ("feat1", "feat2")]
    features = [
        one[:number].transpose(1, 2).unflatten(2, tuple(agreed.shape[2:])) for one in leaves
    ]
    return leaves, torch.cat(features), torch.cat([agreed, agreed])


def test_where_both_decoders_are_right(case):
    _, _, masks = on_grid(case)
    number = int(case["labelled_bs"])
    truth = case["gt_small"]
    right = (case["pred_small1"][:number] == truth) & (case["pred_small2"][:number] == truth)
    for c in range(2):
        np.testing.assert_array_equal(masks[:number, c].flatten(1), right & (truth == c))


def test_similarity_and_gradients(case):
    leaves, features, masks = on_grid(case)
    means, shown = class_means(features, masks)
    assert shown.all()
    close(means, case["class_means"], 1e-6)
    loss = text_dissimilarity(features, masks, tensor(case["text"]))
    close(loss, case["sim_loss"], 1e-6)
    loss.backward()
    for leaf, name in zip(leaves, ("feat1", "feat2"), strict=True):
        close(leaf.grad, case[f"grad_{name}_sim"], 1e-6)


def test_a_class_without_a_voxel_is_left_out(case):
    """The released code takes the mean of no feature at all, which is not a number."""
    _, features, masks = on_grid(case)
    masks[:, 1] = False
    means, _ = class_means(features, masks)
    text = tensor(case["text"])
    expected = 1 - torch.cosine_similarity(means[0], text[0], dim=0)
    torch.testing.assert_close(text_dissimilarity(features, masks, text), expected)


def test_shares_and_common_label(case):
    close(performance_shares(tensor(case["dice_each"])), case["pseudo_weights"], 1e-6)
    outputs = [tensor(one) for one in case["logits"]]
    label = joint_label(outputs, tensor(case["pseudo_weights"]), False)
    np.testing.assert_array_equal(label.target[:, 0], case["pseudo_label"])
    number = int(case["labelled_bs"])
    trainer = SimpleNamespace(regions=False)
    labeled = [one[:number] for one in outputs]
    shares = nnUNetTrainerVCLIPSeg.shares(trainer, labeled, label_of(case))
    assert float(shares.sum()) == pytest.approx(1)
    assert bool(shares[0] > shares[1]) == bool(case["pseudo_weights"][0] > 0.5)


def test_consistency_and_gradients(case):
    logits = tensor(case["logits"]).requires_grad_()
    label = joint_label(list(logits), tensor(case["pseudo_weights"]), False)
    loss = sum(segmentation_loss(one, label, False) for one in logits)
    close(loss, case["consistency_loss"], 1e-6)
    loss.backward()
    close(logits.grad, case["grad_logits_consistency"], 1e-6)
