from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semisup.losses.targets import PseudoLabel
from nnunet_semisup.mixing.exchange import exchange, exchange_foreground, exchange_with_previous
from nnunet_semisup.mixing.masks import sample_boxes


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


few = settings(max_examples=30, deadline=None)
sizes = st.lists(st.integers(2, 9), min_size=2, max_size=3)


def boxes(batch, spatial, seed):
    torch.manual_seed(seed)
    return sample_boxes(batch, spatial, torch.device("cpu"))


@few
@given(st.integers(1, 3), sizes, st.booleans(), st.integers(0, 999))
def test_exchange_takes_each_voxel_from_one_of_the_two(batch, spatial, shared, seed):
    """Image, target and weight of a voxel stay together, whatever the mask."""
    (x, y), (u, p) = (sample(seed + k, shape=spatial, batch=batch) for k in (0, 1))
    mask = boxes(1 if shared else batch, spatial, seed)
    image, label = exchange(x, y, u, PseudoLabel(p.target, p.weight / 2), mask)
    pasted = mask.expand(batch, 1, *spatial)
    assert torch.equal(label.weight == 0.5, pasted)
    assert torch.equal(label.target[pasted], p.target[pasted])
    assert torch.equal(label.target[~pasted], y.target[~pasted])
    both = pasted.expand_as(x)
    assert torch.equal(image[both], u[both])
    assert torch.equal(image[~both], x[~both])


def test_exchange_is_undone_by_the_other_mask():
    (x, y), (u, p) = sample(1), sample(2)
    mask = boxes(2, (6, 5), 0)
    one, of_one = exchange(x, y, u, p, mask)
    other, of_other = exchange(x, y, u, p, ~mask)
    back, label = exchange(one, of_one, other, of_other, mask)
    assert torch.equal(back, x)
    assert torch.equal(label.target, y.target)


@few
@given(st.integers(1, 4), sizes, st.integers(0, 999))
def test_the_previous_item_is_inside_and_the_own_outside(batch, spatial, seed):
    """For images, and for labels made from them, which still fit afterwards."""
    mask = boxes(batch, spatial, seed)
    image = torch.randint(0, 5, (batch, 2, *spatial)).float()
    label = PseudoLabel(image[:, :1].long() * 2 + 1, image[:, 1:] / 8)
    before = image.clone()
    mixed, mixed_label = exchange_with_previous(image, label, mask)
    for i in range(batch):
        inside = mask[i].expand(2, *spatial)
        assert torch.equal(mixed[i][inside], image[i - 1][inside])
        assert torch.equal(mixed[i][~inside], image[i][~inside])
    assert torch.equal(mixed_label.target, mixed[:, :1].long() * 2 + 1)
    assert torch.equal(mixed_label.weight, mixed[:, 1:] / 8)
    mixed[0] = 100.0
    assert torch.equal(image, before)


@pytest.mark.parametrize("nothing", ["no boxes", "one item"])
def test_nothing_to_paste_is_the_identity(nothing):
    image, label = sample(1, batch=1 if nothing == "one item" else 2)
    mask = boxes(len(image), (6, 5), 0) & (nothing == "one item")
    mixed, mixed_label = exchange_with_previous(image, label, mask)
    assert torch.equal(mixed, image)
    assert torch.equal(mixed_label.target, label.target)
