from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.consistency import (
    dice_distance,
    mean_square,
    mutual_distance,
    segmentation_loss,
    squared_difference,
    weighted_cross_entropy,
    weighted_soft_dice,
)
from nnunet_semisup.losses.targets import PseudoLabel, pseudo_label

BOTH = pytest.mark.parametrize("regions", [False, True], ids=["labels", "regions"])
SHAPES = pytest.mark.parametrize("spatial", [(5, 4), (3, 4, 2)], ids=["2D", "3D"])


def random_logits(spatial=(3, 4, 2), batch=2, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(batch, classes, *spatial, generator=generator)


def random_label(logits, regions, seed=1):
    """Random targets with fractional weights, a third of them zero."""
    generator = torch.Generator().manual_seed(seed)
    batch, classes, *spatial = logits.shape
    if regions:
        target = torch.randint(0, 2, logits.shape, generator=generator).float()
    else:
        target = torch.randint(0, classes, (batch, 1, *spatial), generator=generator)
    weight = torch.rand(target.shape, generator=generator)
    return PseudoLabel(target, weight * (weight > 0.33))


def as_numpy(logits, regions):
    """Probabilities ``(B, C, voxels)`` in float64."""
    x = logits.double().numpy().reshape(*logits.shape[:2], -1)
    if regions:
        return 1 / (1 + np.exp(-x))
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def reference_cross_entropy(logits, label, regions):
    p = as_numpy(logits, regions)
    target = label.target.numpy().reshape(p.shape[0], -1, p.shape[2])
    weight = label.weight.double().numpy().reshape(target.shape)
    total = 0.0
    for b, c, v in np.ndindex(*target.shape):
        if regions:
            chosen = p[b, c, v] if target[b, c, v] else 1 - p[b, c, v]
        else:
            chosen = p[b, int(target[b, c, v]), v]
        total -= weight[b, c, v] * np.log(chosen)
    return total / max(weight.sum(), 1)


def reference_dice(logits, label, regions):
    p = as_numpy(logits, regions)
    weight = label.weight.double().numpy().reshape(p.shape[0], -1, p.shape[2])
    target = label.target.numpy().reshape(p.shape[0], -1, p.shape[2])
    terms = []
    for c in range(0 if regions else 1, p.shape[1]):
        g = target[:, c] if regions else (target[:, 0] == c).astype(float)
        w = weight[:, c] if regions else weight[:, 0]
        overlap, size = (w * p[:, c] * g).sum(), (w * (p[:, c] + g)).sum()
        terms.append(1 - (2 * overlap + 1e-5) / (size + 1e-5))
    return np.mean(terms)


@BOTH
@SHAPES
class TestAgainstNumpy:
    def test_cross_entropy(self, regions, spatial):
        logits = random_logits(spatial)
        label = random_label(logits, regions)
        got = weighted_cross_entropy(logits, label, regions).item()
        assert got == pytest.approx(reference_cross_entropy(logits, label, regions), rel=1e-5)

    def test_soft_dice(self, regions, spatial):
        logits = random_logits(spatial)
        label = random_label(logits, regions)
        got = weighted_soft_dice(logits, label, regions).item()
        assert got == pytest.approx(reference_dice(logits, label, regions), rel=1e-5)

    def test_squared_difference(self, regions, spatial):
        student, teacher = random_logits(spatial), random_logits(spatial, seed=5)
        squares = (as_numpy(student, regions) - as_numpy(teacher, regions)) ** 2
        got = squared_difference(student, teacher, regions).item()
        assert got == pytest.approx(squares.mean(), rel=1e-5)
        valid = torch.rand(2, 1, *spatial, generator=torch.Generator().manual_seed(3)) < 0.5
        inside = valid.numpy().reshape(2, 1, -1)
        got = squared_difference(student, teacher, regions, valid).item()
        wanted = (squares * inside).sum() / inside.sum() / student.shape[1]
        assert got == pytest.approx(wanted, rel=1e-5)


class TestByHand:
    def test_cross_entropy(self):
        """Probabilities 3/4 and 1/4 of the right class, the second voxel with half weight."""
        logits = torch.tensor([[[0.0, 0.0], [np.log(3.0), np.log(3.0)]]])[..., None]
        label = PseudoLabel(torch.tensor([[[[1], [0]]]]), torch.tensor([[[[1.0], [0.5]]]]))
        wanted = -(np.log(0.75) + 0.5 * np.log(0.25)) / 1.5
        assert weighted_cross_entropy(logits, label, False).item() == pytest.approx(wanted)

    def test_cross_entropy_over_all_voxels_that_are_there(self):
        """Probability 3/4 of the right class; the second voxel is not used, the third not there."""
        logits = torch.tensor([[[0.0] * 3, [np.log(3.0)] * 3]])[..., None]
        label = PseudoLabel(torch.ones(1, 1, 3, 1).long(), torch.tensor([[[[1.0], [0.0], [0.0]]]]))
        there = torch.tensor([[[[True], [True], [False]]]])
        got = weighted_cross_entropy(logits, label, False, among=there).item()
        assert got == pytest.approx(-np.log(0.75) / 2)
        nowhere = torch.zeros_like(there)
        assert weighted_cross_entropy(logits, label.within(nowhere), False, nowhere).item() == 0

    def test_cross_entropy_over_all_voxels_and_regions(self):
        """Two regions, one of them used in one of two voxels: a quarter of its surprise."""
        logits = torch.full((1, 2, 2, 1), float(np.log(3.0)))
        label = PseudoLabel(torch.ones_like(logits), torch.zeros_like(logits))
        label.weight[0, 0, 0] = 1
        there = torch.ones(1, 1, 2, 1, dtype=torch.bool)
        got = weighted_cross_entropy(logits, label, True, among=there).item()
        assert got == pytest.approx(-np.log(0.75) / 4)

    def test_soft_dice(self):
        """Foreground 3/4 on both voxels, one of them right: 1 - 2 * 0.75 / (1.5 + 1)."""
        logits = torch.tensor([[[0.0, 0.0], [np.log(3.0), np.log(3.0)]]])[..., None]
        label = PseudoLabel(torch.tensor([[[[1], [0]]]]), torch.ones(1, 1, 2, 1))
        assert weighted_soft_dice(logits, label, False).item() == pytest.approx(0.4, abs=1e-4)

    def test_squared_difference(self):
        student = torch.tensor([[[0.0], [np.log(3.0)]]])[..., None]
        teacher = torch.zeros(1, 2, 1, 1)
        assert squared_difference(student, teacher, False).item() == pytest.approx(1 / 16)


@BOTH
class TestDegenerate:
    @pytest.mark.parametrize("loss", [weighted_cross_entropy, weighted_soft_dice])
    def test_zero_weights_give_zero_without_gradient(self, loss, regions):
        logits = random_logits().requires_grad_()
        label = random_label(logits, regions)
        value = loss(logits, PseudoLabel(label.target, torch.zeros_like(label.weight)), regions)
        value.backward()
        assert value.item() == 0
        assert torch.equal(logits.grad, torch.zeros_like(logits))

    def test_nothing_valid_gives_zero_without_gradient(self, regions):
        student = random_logits().requires_grad_()
        valid = torch.zeros(2, 1, 3, 4, 2, dtype=torch.bool)
        value = squared_difference(student, random_logits(seed=5), regions, valid)
        value.backward()
        assert value.item() == 0
        assert torch.equal(student.grad, torch.zeros_like(student))

    @pytest.mark.parametrize("loss", [weighted_cross_entropy, weighted_soft_dice])
    def test_left_out_voxels_have_no_influence(self, loss, regions):
        logits = random_logits()
        label = random_label(logits, regions)
        out = (label.weight == 0).expand_as(logits)
        changed = torch.where(out, 10 * random_logits(seed=7), logits).requires_grad_()
        value = loss(changed, label, regions)
        torch.testing.assert_close(value, loss(logits, label, regions))
        value.backward()
        assert torch.equal(changed.grad[out], torch.zeros(int(out.sum())))

    @pytest.mark.parametrize("foreground", [False, True])
    @pytest.mark.parametrize("sure", [False, True])
    def test_no_foreground_and_all_foreground(self, foreground, sure, regions):
        logits = (100.0 if sure else 1.0) * random_logits(classes=2)
        logits.requires_grad_()
        shape = (2, 2 if regions else 1, 3, 4, 2)
        target = torch.full(shape, int(foreground))
        label = PseudoLabel(target.float() if regions else target, torch.ones(shape))
        for loss in (weighted_cross_entropy, weighted_soft_dice):
            value = loss(logits, label, regions)
            (gradient,) = torch.autograd.grad(value, logits)
            assert torch.isfinite(value)
            assert value >= 0
            assert torch.isfinite(gradient).all()

    def test_right_prediction_gives_zero(self, regions):
        logits = 40 * torch.sign(random_logits())
        if not regions:
            logits = torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 80.0)
        label = pseudo_label(logits, regions, None)
        assert weighted_cross_entropy(logits, label, regions) < 1e-6
        assert weighted_soft_dice(logits, label, regions) < 1e-4

    def test_autocast_does_not_change_them(self, regions):
        logits, teacher = random_logits(), random_logits(seed=5)
        label = random_label(logits, regions)

        def all_losses():
            return [
                weighted_cross_entropy(logits, label, regions),
                weighted_soft_dice(logits, label, regions),
                squared_difference(logits, teacher, regions),
            ]

        with torch.autocast("cpu", torch.bfloat16):
            mixed = all_losses()
        assert all(m.dtype == torch.float32 for m in mixed)
        assert mixed == all_losses()

    def test_half_precision_logits_are_computed_in_float32(self, regions):
        logits = random_logits().bfloat16()
        label = random_label(logits, regions)
        for loss in (weighted_cross_entropy, weighted_soft_dice):
            assert torch.equal(loss(logits, label, regions), loss(logits.float(), label, regions))


@BOTH
def test_teacher_gets_no_gradient(regions):
    student, teacher = random_logits().requires_grad_(), random_logits(seed=5).requires_grad_()
    squared_difference(student, teacher, regions).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def masks_of(regions, seed=3):
    """One for all channels and, for regions, one for each."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.rand(2, n, 3, 4, 2, generator=generator) < 0.5 for n in ((1, 3) if regions else (1,))
    ]


@BOTH
def test_mean_square_against_numpy(regions):
    one, other = (probabilities(random_logits(seed=s), regions) for s in (0, 5))
    squares = (one.double() - other.double()).square().numpy()
    assert mean_square(one, other).item() == pytest.approx(squares.mean(), rel=1e-5)
    for valid in masks_of(regions):
        counted = valid.expand_as(one).numpy()
        assert mean_square(one, other, valid).item() == pytest.approx(
            squares[counted].mean(), rel=1e-5
        )
        assert mean_square(one, other, torch.zeros_like(valid)).item() == 0


def test_mean_square_has_opposite_gradients():
    one, other = (probabilities(random_logits(seed=s), False).requires_grad_() for s in (0, 5))
    mean_square(one, other).backward()
    assert one.grad.abs().sum() > 0
    assert torch.equal(one.grad, -other.grad)


@pytest.mark.parametrize("members", [2, 3])
def test_mutual_distance_is_over_ordered_pairs(members):
    """Nothing between a member and its own target; the other way round is another term."""
    probs = [probabilities(random_logits(seed=s), False) for s in range(members)]
    targets = [probabilities(random_logits(seed=s + 9), False) for s in range(members)]
    expected = sum(
        (p - t).square().mean()
        for i, p in enumerate(probs)
        for j, t in enumerate(targets)
        if i != j
    )
    torch.testing.assert_close(mutual_distance(probs, targets), expected)


@BOTH
@pytest.mark.parametrize("background", [False, True])
def test_dice_of_each_image_is_the_mean_of_theirs(regions, background):
    logits = random_logits()
    label = random_label(logits, regions)
    alone = [
        weighted_soft_dice(
            logits[i : i + 1],
            PseudoLabel(*(part[i : i + 1] for part in label)),
            regions,
            background=background,
        )
        for i in range(2)
    ]
    together = weighted_soft_dice(logits, label, regions, per_image=True, background=background)
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_dice_with_background_is_that_of_one_channel_more():
    logits = random_logits()
    label = random_label(logits, False)
    first = weighted_soft_dice(logits, label, False)
    with_background = weighted_soft_dice(logits, label, False, background=True)
    probs = probabilities(logits, False)[:, 0]
    truth = (label.target[:, 0] == 0).float()
    weight = label.weight[:, 0]
    overlap = 2 * (weight * probs * truth).sum() + 1e-5
    own = 1 - overlap / ((weight * (probs + truth)).sum() + 1e-5)
    torch.testing.assert_close(3 * with_background, 2 * first + own)


@SHAPES
def test_dice_distance_against_numpy(spatial):
    one, other = (random_logits(spatial, seed=seed).sigmoid() for seed in (0, 1))
    valid = torch.rand(2, 1, *spatial, generator=torch.Generator().manual_seed(2)) < 0.7
    p, q = (np.moveaxis(x.double().numpy(), 1, -1)[valid[:, 0].numpy()] for x in (one, other))
    dice = (2 * (p * q).sum(0) + 1e-5) / ((p**2).sum(0) + (q**2).sum(0) + 1e-5)
    assert float(dice_distance(one, other, valid)) == pytest.approx((1 - dice).mean(), abs=1e-6)


def test_dice_distance_of_equal_masks_is_0_also_of_soft_and_empty_ones():
    """The usual soft Dice of a soft mask with itself is not 1: its gradient would sharpen it."""
    soft = random_logits().sigmoid().requires_grad_()
    distance = dice_distance(soft, soft.detach())
    distance.backward()
    assert float(distance.detach()) == pytest.approx(0, abs=1e-6)
    assert soft.grad.abs().max() < 1e-6
    nothing = torch.zeros(2, 1, 3, 4, 2, dtype=torch.bool)
    assert float(dice_distance(soft.detach(), 1 - soft.detach(), nothing)) == 0


@BOTH
def test_segmentation_loss_is_cross_entropy_plus_dice(regions):
    logits = random_logits()
    label = random_label(logits, regions)
    expected = weighted_cross_entropy(logits, label, regions)
    expected = expected + weighted_soft_dice(logits, label, regions)
    assert torch.equal(segmentation_loss(logits, label, regions), expected)
