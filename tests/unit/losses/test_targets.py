from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.targets import (
    PseudoLabel,
    distance_to_mask,
    joint_label,
    labels_of_target,
    largest_component,
    normalised_entropy,
    one_hot,
    performance_shares,
    pseudo_label,
    sharpen,
    weighted_by_image,
)

BOTH = pytest.mark.parametrize("regions", [False, True], ids=["labels", "regions"])
few = settings(max_examples=30, deadline=None)


def random_logits(spatial=(3, 4, 2), batch=2, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(batch, classes, *spatial, generator=generator)


def test_voxels_count_by_the_confident_share_of_their_image():
    sure = torch.tensor([[[1.0, 0, 0, 1]], [[0, 0, 0, 0]], [[1, 1, 0, 0]]])
    valid = torch.tensor([[[1, 1, 1, 1]], [[1, 1, 1, 0]], [[1, 1, 0, 0]]]).bool()
    label = weighted_by_image(PseudoLabel(torch.zeros(3, 1, 4).long(), sure), valid)
    assert label.weight[:, 0].tolist() == [[0.5] * 4, [0] * 4, [1, 1, 0, 0]]
    regions = PseudoLabel(torch.zeros(3, 2, 4), torch.cat([sure, torch.ones_like(sure)], 1))
    assert weighted_by_image(regions, valid).weight[0].tolist() == [[0.5] * 4, [1] * 4]
    nothing = weighted_by_image(PseudoLabel(label.target, 0 * sure), torch.zeros_like(valid))
    assert (nothing.weight == 0).all()


class TestPseudoLabel:
    def test_below_the_threshold_is_left_out_not_background(self):
        logits = torch.tensor([[[0.0, 5.0, 0.4], [0.1, 0.0, 4.0]]])[..., None]
        label = pseudo_label(logits, False, 0.95)
        assert label.target.flatten().tolist() == [1, 0, 1]
        assert label.weight.flatten().tolist() == [0, 1, 1]

    def test_regions_are_decided_one_by_one(self):
        logits = torch.tensor([[[5.0, -5.0, 0.1], [0.2, 5.0, -5.0]]])[..., None]
        label = pseudo_label(logits, True, 0.95)
        assert label.target[0, :, :, 0].tolist() == [[1, 0, 1], [1, 1, 0]]
        assert label.weight[0, :, :, 0].tolist() == [[1, 1, 0], [0, 1, 1]]

    @BOTH
    def test_threshold_and_padding(self, regions):
        logits = random_logits()
        everything = pseudo_label(logits, regions, None)
        assert everything.weight.min() == 1
        previous = everything.weight.sum()
        for threshold in (0.5, 0.8, 0.99):
            count = pseudo_label(logits, regions, threshold).weight.sum()
            assert count <= previous
            previous = count
        valid = torch.rand(2, 1, 3, 4, 2) < 0.5
        padded = pseudo_label(logits, regions, None, valid)
        assert torch.equal(padded.weight, valid.expand_as(padded.weight).float())

    @BOTH
    def test_has_no_gradient(self, regions):
        label = pseudo_label(random_logits().requires_grad_(), regions, 0.9)
        assert not label.target.requires_grad
        assert not label.weight.requires_grad


class TestLabelsOfTarget:
    def test_labels_with_ignore(self):
        target = torch.tensor([[[[0.0, 1.0, 3.0]]]])
        label = labels_of_target([target, target[..., ::2]], 3, regions=False)
        assert label.target.flatten().tolist() == [0, 1, 0]
        assert label.weight.flatten().tolist() == [1, 1, 0]

    def test_regions_with_ignore(self):
        target = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 1.0]]]])
        label = labels_of_target(target, 3, regions=True)
        assert label.target.shape == (1, 2, 1, 2)
        assert label.weight[0, 0].flatten().tolist() == [1, 0]

    def test_without_ignore_everything_counts(self):
        target = torch.tensor([[[[0.0, 2.0]]]])
        assert labels_of_target(target, None, regions=False).weight.min() == 1


def random_probs(regions, classes=3, seed=0, scale=1.0):
    return probabilities(scale * random_logits(classes=classes, seed=seed), regions)


class TestSharpen:
    @few
    @given(
        st.booleans(),
        st.integers(2, 40),
        st.sampled_from([1.0, 0.5, 0.1, 0.01]),
        st.sampled_from([0.0, 0.01, 1.0, 100.0]),
        st.integers(0, 999),
    )
    def test_is_a_distribution_with_the_same_order(
        self, regions, classes, temperature, scale, seed
    ):
        """Finite with its gradient, for many classes of equal probability too."""
        probs = random_probs(regions, classes, seed, scale).requires_grad_()
        sharp = sharpen(probs, temperature, regions)
        (gradient,) = torch.autograd.grad((sharp * torch.rand_like(sharp)).sum(), probs)
        assert torch.isfinite(gradient).all()
        assert sharp.min() >= 0
        assert sharp.max() <= 1 + 1e-6
        if regions:
            torch.testing.assert_close(sharp, 1 - sharpen(1 - probs, temperature, True))
            assert ((sharp - 0.5) * (probs - 0.5) >= -1e-9).all()
        else:
            torch.testing.assert_close(sharp.sum(1), torch.ones_like(sharp.sum(1)))
            greatest = sharp.gather(1, probs.argmax(1, keepdim=True))
            torch.testing.assert_close(greatest, sharp.amax(1, keepdim=True))

    @BOTH
    def test_temperatures(self, regions):
        probs = random_probs(regions)
        torch.testing.assert_close(sharpen(probs, 1.0, regions), probs)
        twice = sharpen(sharpen(probs, 0.5, regions), 0.5, regions)
        torch.testing.assert_close(twice, sharpen(probs, 0.25, regions))
        hard = sharpen(probs, 1e-3, regions)
        assert ((hard < 0.01) | (hard > 0.99)).float().mean() > 0.95

    def test_two_classes_are_the_binary_form(self):
        probs = random_probs(False, classes=2)
        torch.testing.assert_close(sharpen(probs, 0.1, False), sharpen(probs, 0.1, True))

    @BOTH
    def test_gradient(self, regions):
        """The divisor that guards against underflow has no part in it."""
        probs = random_probs(regions).double().requires_grad_()
        sharpened = sharpen(probs, 0.5, regions)
        power = probs.square()
        total = power + (1 - probs).square() if regions else power.sum(1, keepdim=True)
        other = torch.rand_like(probs)
        expected = torch.autograd.grad((power / total * other).sum(), probs)[0]
        got = torch.autograd.grad((sharpened * other).sum(), probs)[0]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


class TestNormalisedEntropy:
    @few
    @given(st.booleans(), st.integers(2, 30), st.floats(0, 200), st.integers(0, 999))
    def test_is_within_0_and_1_and_knows_no_order(self, regions, classes, scale, seed):
        probs = random_probs(regions, classes, seed, scale)
        entropy = normalised_entropy(probs, regions)
        assert entropy.shape[1] == (classes if regions else 1)
        assert entropy.min() >= 0
        assert entropy.max() < 1
        turned = normalised_entropy(1 - probs if regions else probs.flip(1), regions)
        torch.testing.assert_close(turned, entropy, atol=1e-5, rtol=1e-5)

    @BOTH
    @pytest.mark.parametrize("classes", [2, 3, 14])
    def test_is_1_where_all_is_as_likely_and_0_where_it_is_certain(self, regions, classes):
        equal = probabilities(torch.zeros(1, classes, 2, 2), regions)
        assert normalised_entropy(equal, regions).min().item() == pytest.approx(1, abs=1e-4)
        certain = torch.zeros(1, classes, 2, 2)
        certain[:, 1] = 1
        assert normalised_entropy(certain, regions).max().item() < 1e-5

    def test_regions_are_two_classes_each(self):
        probs = random_probs(True, classes=1)
        pair = torch.cat([probs, 1 - probs], 1)
        torch.testing.assert_close(
            normalised_entropy(probs, True), normalised_entropy(pair, False), atol=1e-6, rtol=1e-5
        )

    def test_by_hand(self):
        probs = torch.tensor([0.5, 0.25, 0.25]).view(1, 3, 1, 1)
        expected = 1.5 * math.log(2) / math.log(3)
        assert normalised_entropy(probs, False).item() == pytest.approx(expected, abs=1e-5)


class TestLargestComponent:
    @few
    @given(
        st.booleans(),
        st.lists(st.integers(1, 7), min_size=2, max_size=3),
        st.integers(0, 999),
        st.sampled_from([torch.int64, torch.uint8, torch.float32]),
    )
    def test_against_scipy(self, regions, spatial, seed, kind):
        """Each class of each image by itself, and each region that lies in no other."""
        generator = torch.Generator().manual_seed(seed)
        high, channels = (2, 3) if regions else (4, 1)
        target = torch.randint(0, high, (2, channels, *spatial), generator=generator).to(kind)
        before = target.clone()
        got = largest_component(target, 4, regions)
        assert got.dtype == kind
        assert torch.equal(target, before)
        for image, kept in zip(target.numpy(), got.numpy(), strict=True):
            for number in range(3):
                channel, value = (number, 1) if regions else (0, number + 1)
                found = image[channel] == value
                others = [n for n in range(3) if regions and n != number]
                if not any((image[n] >= found).all() for n in others):
                    np.testing.assert_array_equal(kept[channel] == value, largest_parts(found))

    @few
    @given(
        st.lists(st.integers(1, 7), min_size=2, max_size=3),
        st.integers(0, 999),
        st.permutations(range(3)),
    )
    def test_regions_that_lie_in_each_other_still_do(self, spatial, seed, order):
        generator = torch.Generator().manual_seed(seed)
        target = torch.randint(0, 2, (2, 3, *spatial), generator=generator).cumprod(1)
        got = largest_component(target[:, order], 3, True)[:, np.argsort(order)]
        assert torch.equal(got, got.cumprod(1))

    def test_regions_beside_each_other_both_stay(self):
        target = torch.tensor([[[[1, 1, 0, 0, 1]], [[0, 0, 0, 1, 0]]]])
        assert largest_component(target, 2, True).tolist() == [
            [[[1, 1, 0, 0, 0]], [[0, 0, 0, 1, 0]]]
        ]


def largest_parts(mask):
    """Mark the largest component of a mask, or all of that size; voxels touch by corners."""
    parts, _ = ndimage.label(mask, np.ones([3] * mask.ndim))
    sizes = np.bincount(parts.ravel())[1:]
    return np.isin(parts, 1 + np.flatnonzero(sizes == sizes.max(initial=0)))


class TestPseudoLabelParts:
    def test_within_only_takes_weight_away(self):
        label = PseudoLabel(torch.tensor([[[[2, 1, 0]]]]), torch.tensor([[[[0.5, 1.0, 0.0]]]]))
        within = label.within(torch.tensor([True, False, True]))
        assert torch.equal(within.target, label.target)
        assert within.weight.flatten().tolist() == [0.5, 0, 0]


@given(st.integers(1, 4), st.integers(1, 9))
def test_repeated_items_start_again_from_the_first(items, number):
    target = torch.arange(items).view(-1, 1, 1, 1)
    label = PseudoLabel(target, target.float() / 10).repeated(number)
    expected = [place % items for place in range(number)]
    assert label.target.flatten().tolist() == expected
    assert label.weight.flatten().tolist() == pytest.approx([n / 10 for n in expected])


def test_voxels_that_any_channel_uses():
    weight = torch.tensor([[[[0.0, 0.5, 0.0]], [[0.0, 0.0, 1.0]]]])
    used = PseudoLabel(torch.zeros_like(weight), weight).used
    assert used.tolist() == [[[[False, True, True]]]]


class TestDistanceToMask:
    def test_is_a_step_at_the_boundary(self):
        distance = torch.tensor([[-1.0, -0.01, 0.0, 0.01, 1.0]])
        mask = distance_to_mask(distance, 1500.0)
        torch.testing.assert_close(mask, torch.tensor([[1.0, 1.0, 0.5, 0.0, 0.0]]))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_is_finite_in_half_precision_with_its_gradient(self, dtype):
        """1500 squared, or exp(1500), is more than float16 holds."""
        distance = torch.linspace(-1, 1, 2001).to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            mask = distance_to_mask(distance, 1500.0)
        assert mask.dtype == torch.float32
        mask.sum().backward()
        assert torch.isfinite(mask).all()
        assert torch.isfinite(distance.grad).all()
        assert distance.grad.abs().max() > 100


def test_hard_labels_as_probabilities():
    target = torch.tensor([[[[0, 2], [1, 1]]]])
    got = one_hot(target, 3, False)
    assert got.argmax(1, keepdim=True).tolist() == target.tolist()
    assert torch.equal(got.sum(1), torch.ones(1, 2, 2))
    regions = torch.tensor([[[[0, 1]], [[1, 1]]]])
    assert torch.equal(one_hot(regions, 2, True), regions.float())


class TestJointLabel:
    def test_shares_by_hand(self):
        shares = performance_shares(torch.tensor([0.0, 1.0]))
        expected = 1 / (1 + math.exp(0.5 - 1 / (1 + math.exp(-1.0))))
        assert shares.tolist() == pytest.approx([expected, 1 - expected])
        assert (
            performance_shares(torch.tensor([0.3, 0.3, 0.3])).tolist() == [pytest.approx(1 / 3)] * 3
        )

    @pytest.mark.parametrize(("first", "label"), [(0.7, 0), (0.3, 1)])
    def test_the_greater_share_decides_between_equally_sure_members(self, first, label):
        outputs = [torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[0.0], [1.0]]])]
        got = joint_label(outputs, torch.tensor([first, 1 - first]), False)
        assert got.target.flatten().tolist() == [label]
        assert got.weight.flatten().tolist() == [1]

    def test_regions_and_padding(self):
        outputs = [torch.tensor([[[5.0, 5.0], [1.0, -5.0]]]), torch.tensor([[[-1.0, 5], [-5, 5]]])]
        valid = torch.tensor([[[True, False]]])
        got = joint_label(outputs, torch.tensor([0.8, 0.2]), True, valid)
        assert got.target.tolist() == [[[1, 1], [1, 0]]]
        assert got.weight.tolist() == [[[1, 0], [1, 0]]]
