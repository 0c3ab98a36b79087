"""Losses of cases with labels of some classes only, against the equations."""

from __future__ import annotations

import math

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch.nn import functional as F

from nnunet_semisup.losses.partial import gaps_of

WHOLE, WITHOUT_2 = [True] * 4, [True, True, False, True]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def logits(generator):
    return 3 * torch.randn(2, 4, 5, 6, generator=generator)


@pytest.fixture
def target(generator):
    """Labels of two patches; class 2 is not in the second."""
    label = torch.randint(0, 4, (2, 1, 5, 6), generator=generator)
    label[1][label[1] == 2] = 0
    return label.float()


def known(logits, target, rows, regions=False):
    return gaps_of(target, torch.tensor(rows), regions).known_logits(logits)


def test_whole_cases_are_left_as_they_are(logits, target):
    assert torch.equal(known(logits, target, [WHOLE, WHOLE]), logits)
    assert torch.equal(known(logits, target, [WHOLE, WITHOUT_2])[0], logits[0])


def test_background_may_be_what_was_not_annotated(logits, target):
    """Cross entropy by [1]: -log(p_background + p_2) there, -log p_label everywhere else."""
    found = F.cross_entropy(
        known(logits, target, [WHOLE, WITHOUT_2]), target[:, 0].long(), reduction="none"
    )
    p = logits.softmax(1)
    expected = -p.gather(1, target.long())[:, 0].log()
    merged = -(p[1, 0] + p[1, 2]).log()
    expected[1] = torch.where(target[1, 0] == 0, merged, expected[1])
    torch.testing.assert_close(found, expected)


def test_nothing_pulls_between_background_and_what_was_not_annotated(logits, target):
    logits.requires_grad_()
    out = known(logits, target, [WHOLE, WITHOUT_2])
    loss = DC_and_CE_loss({"batch_dice": False, "do_bg": False, "smooth": 1e-5}, {})
    loss(out, target).backward()
    background = target[1, 0] == 0
    share = logits[1].softmax(0)
    ratio = logits.grad[1, 2] / logits.grad[1, 0]
    torch.testing.assert_close(ratio[background], (share[2] / share[0])[background])
    assert (logits.grad[1, 2][~background] > 0).all()  # It is not there where another class is.


def test_the_dice_does_not_see_how_open_classes_share_a_voxel(logits, target):
    dice = MemoryEfficientSoftDiceLoss(
        apply_nonlin=lambda x: x.softmax(1), batch_dice=False, do_bg=False
    )
    rows = [WITHOUT_2, WITHOUT_2]
    target[target == 2] = 0
    shifted = logits.clone()
    both = torch.logsumexp(logits[:, [0, 2]], 1)
    shifted[:, 0], shifted[:, 2] = both + math.log(0.3), both + math.log(0.7)
    shifted = torch.where(target == 0, shifted, logits)
    found, other = (dice(known(x, target, rows), target) for x in (logits, shifted))
    torch.testing.assert_close(found, other)


def test_an_open_region_has_no_gradient(generator):
    logits = torch.randn(2, 3, 5, 6, generator=generator).requires_grad_()
    target = torch.randint(0, 2, (2, 3, 5, 6), generator=generator).float()
    target[1, 2] = 0
    out = known(logits, target, [[True] * 3, [True, True, False]], regions=True)
    loss = DC_and_BCE_loss({}, {"batch_dice": False, "do_bg": True, "smooth": 1e-5})
    loss(out, target).backward()
    assert (logits.grad[1, 2] == 0).all()
    assert (logits.grad[:, :2] != 0).all()
    assert (logits.grad[0] != 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite(logits, target, dtype):
    out = known(20 * logits.to(dtype), target, [WITHOUT_2, WITHOUT_2])
    assert out.dtype == dtype
    assert F.cross_entropy(out.float(), target[:, 0].long()).isfinite()


def test_under_deep_supervision_each_resolution_has_its_own(logits, target):
    lower = target[..., ::2, ::2]
    gaps = gaps_of([target, lower], torch.tensor([WHOLE, WITHOUT_2]), False)
    full, half = gaps.known_logits([logits, logits[..., ::2, ::2]])
    torch.testing.assert_close(full[..., ::2, ::2], half)


def probabilities_of(*voxels):
    """Probabilities ``(1, 4, N)`` of voxels in which one class has a value and others share."""
    p = torch.empty(1, 4, len(voxels))
    for i, (label, value) in enumerate(voxels):
        p[0, :, i] = (1 - value) / 3
        p[0, label, i] = value
    return p


def test_the_teacher_fills_what_it_is_sure_of_and_the_label_allows():
    """Open class 2; voxels: sure of it, not sure, sure of 0, sure of 1, and one with a label."""
    target = torch.tensor([[[0, 0, 0, 0, 3]]]).float()
    gaps = gaps_of(target, torch.tensor([WITHOUT_2]), False)
    p = probabilities_of((2, 0.97), (2, 0.9), (0, 0.97), (1, 0.97), (2, 0.97))
    new, left = gaps.filled(target, p, 0.95)
    assert new.flatten().tolist() == [2, 0, 0, 0, 3]
    assert left.unknown.flatten().tolist() == [False, True, False, True, False]
    assert new.dtype == target.dtype
    # What is filled is a label like others, and what is sure to be background is no longer open.
    logits = torch.zeros(1, 4, 5)
    out = left.known_logits(logits)
    assert (out[0, :, [0, 2, 4]] == 0).all()
    assert (out[0, 2, [1, 3]] < -1000).all()


def test_the_teacher_fills_open_regions_and_lower_resolutions_and_keeps_the_ignore_channel():
    target = torch.zeros(1, 3, 4)  # two regions and where to ignore
    target[0, 2, 3] = 1
    gaps = gaps_of([target, target[..., ::2]], torch.tensor([[True, False]]), True)
    p = torch.tensor([[[0.9, 0.9, 0.9, 0.9], [0.99, 0.99, 0.5, 0.01]]])
    (full, half), left = gaps.filled([target, target[..., ::2]], p, 0.95)
    assert full[0].tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]]
    assert left.unknown[0][0].tolist() == [[False] * 4, [False, False, True, False]]
    assert half.shape == (1, 3, 2)
    assert half[0, 1, 0] == 1
