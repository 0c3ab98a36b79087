from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nnunet_semisup.losses.targets import PseudoLabel
from nnunet_semisup.losses.text_alignment import (
    agreed_classes,
    class_means,
    predicted_classes,
    semantic_alignment,
    text_dissimilarity,
)


def reference(features, logits, text, regions):
    """Equation 4 voxel by voxel, at the features' resolution: each class over its own voxels."""
    probs = torch.sigmoid(logits) if regions else torch.softmax(logits, 1)
    total, count = 0.0, 0
    for b in range(len(features)):
        for k in range(len(text)):
            predicted = (probs[b, k] > 0.5) if regions else (probs[b].argmax(0) == k)
            if not predicted.any():
                continue
            weights, vectors = probs[b, k][predicted], features[b][:, predicted].T
            mean = sum(w * v for w, v in zip(weights, vectors, strict=True)) / weights.sum()
            total += (F.normalize(mean, dim=0) - F.normalize(text[k], dim=0)).square().sum()
            count += 1
    return total / count


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("grid", [(3, 4), (2, 3, 2)])
def test_equals_a_loop(regions, grid):
    features, logits = torch.randn(2, 5, *grid), torch.randn(2, 3, *grid)
    text = torch.randn(3, 5)
    torch.testing.assert_close(
        semantic_alignment(features, logits, text, regions),
        reference(features, logits, text, regions),
        atol=1e-4,
        rtol=1e-4,
    )


def test_zero_for_features_that_are_their_text():
    text = F.normalize(torch.randn(2, 5), dim=-1)
    label = torch.randint(0, 2, (1, 4, 4, 4))
    features = text[label].movedim(-1, 1)
    logits = 60.0 * F.one_hot(label, 2).movedim(-1, 1).float()
    assert float(semantic_alignment(features, logits, text, False)) == pytest.approx(0, abs=1e-5)
    assert float(semantic_alignment(features, logits, text.flip(0), False)) > 0.1


def test_size_of_a_class_does_not_shorten_its_vector():
    features, text = torch.randn(1, 5, 8, 8), torch.randn(2, 5)
    features[:, :, 0, 0] = text[1]
    small = torch.full((1, 2, 8, 8), 0.0)
    small[:, 0] = 60.0
    small[:, :, 0, 0] = torch.tensor([0.0, 60.0])
    only = semantic_alignment(features[:, :, :1, :1], small[:, :, :1, :1], text, False)
    assert float(only) < 1e-4


def test_classes_that_are_not_shown_and_padding_are_left_out():
    features, text = torch.randn(2, 5, 4, 4), torch.randn(2, 5)
    logits = torch.zeros(2, 2, 4, 4)
    nothing = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    assert float(semantic_alignment(features, logits, text, False, nothing)) == 0
    valid = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    valid[:, :, 2:] = False
    torch.testing.assert_close(
        semantic_alignment(features, logits, text, False, valid),
        semantic_alignment(features[:, :, :2], logits[:, :, :2], text, False),
        atol=1e-4,
        rtol=1e-4,
    )


def spread(shown, num_classes, size=16):
    """Logits that give every class some probability everywhere, but let only ``shown`` win."""
    logits = torch.full((1, num_classes, size, size), -3.0)
    for number, k in enumerate(shown):
        logits[:, k, number :: len(shown)] = 3.0
    return logits


@pytest.mark.parametrize("regions", [False, True])
def test_absent_classes_pull_nothing_although_softmax_gives_them_mass(regions):
    features = torch.randn(1, 5, 4, 4, requires_grad=True)
    text = torch.randn(10, 5, requires_grad=True)
    logits = spread((0, 3), 10)
    semantic_alignment(features, logits, text, regions).backward()
    pulled = text.grad.abs().sum(1) > 0
    assert pulled.nonzero().flatten().tolist() == [0, 3]
    full = features.grad.clone()
    features.grad = None
    other = torch.where(pulled[:, None], text.detach(), torch.randn(10, 5))
    semantic_alignment(features, logits, other, regions).backward()
    assert torch.equal(features.grad, full)


def test_a_small_class_is_not_outweighed_by_what_softmax_leaves_elsewhere():
    """64 voxels of a lesion at 0.95 weigh 61, the 0.01 in each of 80,000 others more than 800."""
    size, text = 48, F.normalize(torch.randn(2, 5), dim=-1)
    label = torch.zeros(1, size, size, size, dtype=torch.long)
    label[:, 8:12, 8:12, 8:12] = 1
    features = text[label[:, ::4, ::4, ::4]].movedim(-1, 1)
    probs = torch.where(label == 1, 0.95, 0.01)
    logits = torch.stack([(1 - probs).log(), probs.log()], 1)
    assert float(semantic_alignment(features, logits, text, False)) < 1e-4


def test_a_class_is_counted_where_a_valid_voxel_is_predicted_as_it():
    text, features = torch.randn(3, 5), torch.randn(1, 5, 16, 16)
    logits = spread((0,), 3)
    logits[0, :, 2, 5] = torch.tensor([0.0, 0.0, 2.0])
    predicted = predicted_classes(logits.softmax(1), False)
    assert predicted[0, 2].nonzero().tolist() == [[2, 5]]
    assert predicted.sum(1).eq(1).all()
    valid = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    with_it = semantic_alignment(features, logits, text, False, valid)
    valid[0, 0, 2, 5] = False
    without = semantic_alignment(features, logits, text, False, valid)

    def distance(vector, k):
        return (F.normalize(vector, dim=0) - F.normalize(text[k], dim=0)).square().sum()

    lesion = distance(features[0, :, 2, 5], 2)
    torch.testing.assert_close(2 * with_it - without, lesion, atol=1e-3, rtol=1e-3)


def test_regions_may_all_be_absent():
    logits = torch.full((1, 2, 8, 8), -1.0)
    features, text = torch.randn(1, 5, 4, 4, requires_grad=True), torch.randn(2, 5)
    loss = semantic_alignment(features, logits, text, True)
    loss.backward()
    assert loss.item() == 0
    assert float(features.grad.abs().max()) == 0


def test_a_rotation_of_texts_and_features_alike_changes_nothing():
    """The projection's last layer is free, so only the angles between texts can matter."""
    features, logits, text = torch.randn(2, 5, 4, 4), torch.randn(2, 3, 8, 8), torch.randn(3, 5)
    rotation = torch.linalg.qr(torch.randn(5, 5)).Q
    turned = torch.einsum("ij,bjxy->bixy", rotation, features)
    torch.testing.assert_close(
        semantic_alignment(turned, logits, text @ rotation.T, False),
        semantic_alignment(features, logits, text, False),
    )


def test_gradients_reach_features_logits_and_text():
    given = [
        torch.randn(shape, requires_grad=True) for shape in ((1, 5, 3, 3), (1, 2, 9, 9), (2, 5))
    ]
    semantic_alignment(*given, False).backward()
    assert all(float(value.grad.abs().sum()) > 0 for value in given)


@pytest.mark.parametrize("grid", [(2, 3), (2, 1, 3)])
def test_class_means_are_of_all_voxels_at_full_size(grid):
    """A voxel of the grid counts by the share of it that the class covers."""
    features = torch.randn(2, 5, *grid)
    masks = torch.rand(2, 3, *(2 * size for size in grid)) > 0.6
    masks[:, 2] = False
    means, shown = class_means(features, masks)
    assert shown.tolist() == [True, True, False]
    for axis in range(2, features.ndim):
        features = features.repeat_interleave(2, axis)
    for number in range(2):
        expected = features.movedim(1, -1)[masks[:, number]].mean(0)
        torch.testing.assert_close(means[number], expected)


def test_dissimilarity_by_hand_and_without_any_class():
    features = torch.tensor([[[3.0, 0.0, 1.0], [0.0, 2.0, 1.0]]])[..., None].requires_grad_()
    masks = torch.tensor([[[1, 0, 0], [0, 0, 1], [0, 0, 0]]])[..., None].bool()
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    loss = text_dissimilarity(features, masks, text)
    assert float(loss.detach()) == pytest.approx((0 + 1 - 0.5**0.5) / 2)
    nowhere = text_dissimilarity(features, masks & False, text)
    nowhere.backward()
    assert float(nowhere.detach()) == 0
    assert not features.grad.any()


def test_agreed_is_where_every_member_says_what_the_label_says():
    target = torch.tensor([[0, 1, 2, 1, 1]])[:, None, :, None]
    weight = torch.tensor([[1.0, 1, 1, 1, 0]])[:, None, :, None]
    answers = torch.tensor([[0, 1, 1, 1, 1], [0, 1, 2, 2, 1]])
    outputs = [F.one_hot(one, 3).T[None, ..., None].float() for one in answers]
    got = agreed_classes(outputs, PseudoLabel(target, weight), False)
    assert got[0, ..., 0].int().tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_agreed_regions_are_decided_one_by_one():
    target = torch.tensor([[[1.0, 1, 0], [1, 0, 0]]])[..., None]
    outputs = [torch.tensor([[[2.0, -1, 3], [2, -1, -1]]])[..., None]] * 2
    got = agreed_classes(outputs, PseudoLabel(target, torch.ones_like(target)), True)
    assert got[0, ..., 0].int().tolist() == [[1, 0, 0], [1, 0, 0]]
