"""FixMatch's rule, CutMix and channel dropout against numbers of UniMatch's released code."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.consistency import weighted_cross_entropy
from nnunet_semisup.losses.targets import PseudoLabel, pseudo_label
from nnunet_semisup.mixing.exchange import exchange
from nnunet_semisup.networks.complementary import channel_factors
from nnunet_semisup.trainers import nnUNetTrainerUniMatch
from tests.gold.numbers import close, labels, tensor


@pytest.fixture
def case(gold):
    return gold("unimatch_a")


def box(case, view):
    return torch.from_numpy(case[f"box{view}"] == 1)[:, None]


def pasted(case, view):
    """Return a strong view, its label, and where it is not ignored.

    The released code pastes from the batch in reverse order.
    """
    valid = labels(case["ignore_mask"]) != 255
    label = pseudo_label(tensor(case["teacher_logits"]), False, float(case["tau"]), valid)
    image = tensor(case[f"strong{view}_in"])
    flipped = PseudoLabel(label.target.flip(0), label.weight.flip(0))
    mixed = exchange(image, label, image.flip(0), flipped, box(case, view))
    return *mixed, torch.where(box(case, view), valid.flip(0), valid)


@pytest.mark.parametrize("view", [1, 2])
def test_views_and_labels(case, view):
    image, label, valid = pasted(case, view)
    np.testing.assert_array_equal(image, case[f"strong{view}_mixed"])
    np.testing.assert_array_equal(label.target[:, 0], case[f"pseudo{view}"])
    there = case[f"ignore{view}"] != 255
    np.testing.assert_array_equal(valid[:, 0], there)
    used = (case[f"conf{view}"] >= case["tau"]) & there
    np.testing.assert_array_equal(label.weight[:, 0], used)
    assert 0 < used.sum() < there.sum()


def test_losses(case):
    logits = tensor(case["logits_strong"]).requires_grad_()
    losses = []
    for view, one in zip((1, 2), logits.chunk(2), strict=True):
        _, label, valid = pasted(case, view)
        losses.append(weighted_cross_entropy(one, label, False, among=valid))
        close(losses[-1], case[f"loss_u{view}"], 1e-6)
    loss = torch.stack(losses).mean()
    close(loss, case["loss_u"], 1e-6)
    loss.backward()
    close(logits.grad, case["grad_logits_strong_u"], 1e-6)


def test_channels_are_dropped_as_released(case):
    """The same numbers of whole pairs, zeros and twos; which ones they are is drawn."""
    released = tensor(case["compdrop_masks_first"])
    share = nnUNetTrainerUniMatch.dropout_share
    maps = torch.ones_like(released).chunk(2)[0][..., None, None]
    ours = channel_factors([maps], share)[0][..., 0, 0]
    for mask in (released, torch.cat([ours, 2 - ours])):
        first, second = mask.chunk(2)
        assert torch.equal(first + second, torch.full_like(first, 2.0))
        whole = (first == 1).all(1)
        assert whole.sum() == case["compdrop_kept_per_call"]
        assert (first[~whole] == 2).float().mean() == pytest.approx(0.5, abs=0.2)


def test_boxes_have_the_released_share_of_an_image(case):
    """The released boxes have whole-numbered sides, so that they are a little smaller."""
    size, number = int(case["cutmix_img_size"]), int(case["cutmix_n"])
    torch.manual_seed(0)
    trainer = SimpleNamespace(cutmix_volume=nnUNetTrainerUniMatch.cutmix_volume)
    trainer.cutmix_probability = nnUNetTrainerUniMatch.cutmix_probability
    boxes = nnUNetTrainerUniMatch.boxes(trainer, torch.empty(number, 1, size, size))
    share = boxes.float().mean((1, 2, 3))
    drawn = share[share > 0]
    assert (share == 0).float().mean() == pytest.approx(case["cutmix_empty_rate_p05"], abs=0.05)
    assert drawn.mean() == pytest.approx(case["cutmix_area_mean"], abs=0.01)
    levels = torch.tensor([0.25, 0.5, 0.75])
    close(drawn.quantile(levels), case["cutmix_area_quantiles"][2:5], 0.02)


@pytest.fixture
def medical(gold):
    return gold("unimatch_med_a")


def dice(logits, label):
    """Return the released loss: all classes, squared denominators, voxels with weight alone."""
    probs = probabilities(logits, False)
    target = torch.zeros_like(probs).scatter_(1, label.target, 1.0)
    axes = (0, 2, 3)
    overlap = (label.weight * probs * target).sum(axes)
    total = (label.weight * (probs.square() + target.square())).sum(axes)
    return (1 - (2 * overlap + 1e-5) / (total + 1e-5)).mean()


@pytest.mark.parametrize("view", ["s1", "s2", "fp"])
def test_confident_labels_of_the_medical_port(medical, view):
    """Its first version; the labels, their weights and how they are pasted are the same."""
    own, other = (
        pseudo_label(tensor(medical[name]), False, float(medical["tau"]))
        for name in ("logits_weak", "logits_weak_mix")
    )
    if view != "fp":
        inside = torch.from_numpy(medical[f"box{view[1]}"] == 1)[:, None]
        nothing = torch.zeros(len(inside), 1, *inside.shape[2:])
        _, own = exchange(nothing, own, nothing, other, inside)
    logits = tensor(medical[f"logits_{view}"]).requires_grad_()
    loss = dice(logits, own)
    close(loss, medical[f"loss_{view}"], 1e-6)
    share = {"s1": 0.25, "s2": 0.25, "fp": 0.5}[view]
    loss.backward()
    close(logits.grad * share / 2, medical[f"grad_{view}"], 1e-6)
