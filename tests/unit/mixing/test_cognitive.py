from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semisup.losses.consistency import PseudoLabel
from nnunet_semisup.mixing.cognitive import exchange_foreground, labels_of_target


def sample(seed, classes=3, shape=(6, 5), batch=2):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, 2, *shape, generator=generator)
    target = torch.randint(0, classes, (batch, 1, *shape), generator=generator)
    return image, PseudoLabel(target, torch.ones(batch, 1, *shape))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(1, 4))
def test_own_foreground_stays_and_the_rest_is_the_partners(seed, classes):
    x, y = sample(seed, classes)
    u, p = sample(seed + 1, classes)
    image, label = exchange_foreground(x, y, u, p)
    for own, theirs, own_label, their_label, half in (
        (x, u, y, p, slice(0, 2)),
        (u, x, p, y, slice(2, 4)),
    ):
        foreground = own_label.target > 0
        keep = foreground.expand_as(own)
        assert torch.equal(image[half][keep], own[keep])
        assert torch.equal(image[half][~keep], theirs[~keep])
        assert torch.equal(
            label.target[half], torch.where(foreground, own_label.target, their_label.target)
        )


def test_swapping_the_partners_swaps_the_results():
    (x, y), (u, p) = sample(1), sample(2)
    image, label = exchange_foreground(x, y, u, p)
    swapped, swapped_label = exchange_foreground(u, p, x, y)
    assert torch.equal(image, swapped.roll(2, 0))
    assert torch.equal(label.target, swapped_label.target.roll(2, 0))


def test_without_foreground_the_partner_takes_all():
    (x, y), (u, p) = sample(1, classes=1), sample(2)
    image, label = exchange_foreground(x, y, u, p)
    assert torch.equal(image[:2], u)
    assert torch.equal(label.target[:2], p.target)


def test_equal_masks_permute_the_voxels_of_a_pair():
    (x, y), (u, _) = sample(1), sample(2)
    image, _ = exchange_foreground(x, y, u, y)
    both = torch.sort(torch.stack([x, u]), 0).values
    assert torch.equal(torch.sort(torch.stack([image[:2], image[2:]]), 0).values, both)


def test_voxels_without_weight_are_never_foreground_and_keep_their_weight():
    (x, y), (u, p) = sample(1), sample(2)
    y.weight[:, :, :3] = 0
    image, label = exchange_foreground(x, y, u, p)
    assert torch.equal(image[:2, :, :3], u[:, :, :3])
    from_labeled = p.target[:, :, :3] == 0
    assert (label.weight[2:, :, :3][from_labeled] == 0).all()
    assert (label.weight[2:, :, :3][~from_labeled] == 1).all()


def test_regions_keep_foreground_of_any_channel():
    x, u = torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 3, 3)
    target = torch.zeros(1, 2, 3, 3)
    target[:, 1, 0] = 1
    label = PseudoLabel(target, torch.ones_like(target))
    empty = PseudoLabel(torch.zeros_like(target), torch.ones_like(target))
    image, mixed = exchange_foreground(x, label, u, empty)
    assert torch.equal(image[0, 0], torch.tensor([[0.0] * 3, [1.0] * 3, [1.0] * 3]))
    assert torch.equal(mixed.target[0], target[0])


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
