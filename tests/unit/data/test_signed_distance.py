"""Signed distance maps, against distances to all voxels, one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semisup.data.signed_distance import signed_distance

LABELS = LabelManager({"background": 0, "one": 1, "two": 2, "ignore": 3}, None)
REGIONS = LabelManager(
    {"background": 0, "whole": (1, 2), "core": 2, "ignore": 3}, regions_class_order=(1, 2)
)


def of_every_pair(inside, outside):
    """Return the map by the distance of each voxel to each of the other side."""
    places = np.argwhere(np.ones_like(inside)).astype(float)
    result = np.zeros(inside.size)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    for side, other, sign in ((inside, outside, -1), (outside, inside, 1)):
        nearest = apart[:, other.ravel()].min(1) * side.ravel()
        share = nearest / nearest.max()
        if sign == -1:
            share[nearest == 1] = 0
        result += sign * share
    return result.reshape(inside.shape)


@pytest.mark.parametrize("shape", [(9, 11), (5, 7, 6)])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_labels_with_an_ignore_label(shape, share):
    generator = torch.Generator().manual_seed(len(shape))
    segmentation = torch.rand(1, *shape, generator=generator).lt(share).short()
    segmentation[torch.rand(1, *shape, generator=generator) < 0.4] *= 2
    segmentation[torch.rand(1, *shape, generator=generator) < 0.2] = 3
    maps = signed_distance(segmentation, LABELS)
    assert maps.shape == (2, *shape)
    assert maps.dtype == torch.float32
    label = segmentation[0].numpy()
    for number, found in enumerate(maps, 1):
        inside = label == number
        expected = of_every_pair(inside, ~inside & (label != 3))
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
        assert (found[label == 3] == 0).all()
        assert found[inside].max() <= 0 < found[~inside & (label != 3)].min()


def test_each_region_has_its_own_map():
    numbers = torch.zeros(1, 8, 8, dtype=torch.int16)
    numbers[0, 2:7, 2:7] = 1
    numbers[0, 3:6, 3:6] = 2
    numbers[0, 7] = 3
    target = torch.cat([(numbers > 0) & (numbers < 3), numbers == 2, numbers == 3])
    maps = signed_distance(target, REGIONS)
    assert maps.shape == (2, 8, 8)
    known = (numbers[0] != 3).numpy()
    for region, found in zip(target.numpy(), maps, strict=False):
        expected = of_every_pair(region, ~region & known)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_the_inner_boundary_is_0_and_the_ends_are_1():
    segmentation = torch.zeros(1, 12, 12, dtype=torch.int16)
    segmentation[0, 2:9, 2:9] = 1
    one = signed_distance(segmentation, LABELS)[0]
    assert (one[2, 2:9] == 0).all()
    assert (one[1, 2:9] > 0).all()
    assert (one[3:8, 3:8] < 0).all()
    assert (one.min(), one.max()) == (-1, 1)


@pytest.mark.parametrize(("value", "expected"), [(0, [1, 1]), (1, [-1, 1]), (2, [1, -1])])
@pytest.mark.parametrize("ignored", [False, True])
def test_patches_without_a_class_and_full_of_it(value, expected, ignored):
    """The released code has 0, a boundary everywhere, for the one, and NaN for the other."""
    segmentation = torch.full((1, 4, 5), value, dtype=torch.int16)
    if ignored:
        segmentation[0, 0] = 3
    maps = signed_distance(segmentation, LABELS)
    for number, found in zip(expected, maps, strict=True):
        assert (found[1:] == number).all()
        assert (found[0] == (0 if ignored else number)).all()


def test_nothing_but_the_ignore_label():
    assert not signed_distance(torch.full((1, 4, 5), 3, dtype=torch.int16), LABELS).any()
