"""Pixels of structures, against components by scipy; overlaps against masks."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_semisup.topology.structures import structures
from nnunet_semisup.topology.supports import overlaps, supports
from tests.unit.topology.maps import blob, component, levels, noise


def masks_by_scipy(values):
    """Return the mask of each structure above its death, and above half of its peak."""
    found, flat = structures(values, 10**6), values.ravel()
    return [
        component(values, birth, max(flat[death], flat[birth] // 2))
        for birth, death in zip(found.birth, found.death, strict=True)
    ]


def masks(values):
    found = structures(values, 10**6)
    covered = supports(values, found)
    inside = covered.within[covered.parts].T.reshape(-1, *values.shape)
    assert covered.sizes.tolist() == [int(mask.sum()) for mask in inside]
    return list(inside)


MAPS = [noise(0), noise(1, smooth=0.4), noise(2, (30, 24), 2.0), noise(3, (9, 9), 0.1, 6.0)]


@pytest.mark.parametrize("values", MAPS)
def test_a_structure_covers_its_component(values):
    expected = masks_by_scipy(values)
    assert len(expected) > 3
    for got, mask in zip(masks(values), expected, strict=True):
        assert np.array_equal(got, mask)


@pytest.mark.parametrize("seed", range(3))
def test_overlap_is_intersection_over_union(seed):
    one, other = noise(10 + seed), noise(20 + seed)
    expected = [
        [(a & b).sum() / (a | b).sum() for b in masks_by_scipy(other)] for a in masks_by_scipy(one)
    ]
    got = overlaps(*(supports(v, structures(v, 10**6)) for v in (one, other)))
    np.testing.assert_allclose(got, expected)


def test_maps_that_disagree_which_structure_is_higher_have_the_same_two_structures():
    """By its death alone, the higher one would cover the whole map, in each map another."""
    shape, places = (20, 40), ((10, 9), (10, 29))
    one, other = (
        levels(sum(blob(shape, c, 2.5, h) for c, h in zip(places, heights, strict=True)))
        for heights in ((240, 230), (230, 240))
    )
    got = overlaps(*(supports(v, structures(v)) for v in (one, other)))
    assert got.shape == (2, 2)
    assert got[0, 0] == got[1, 1] == 0
    assert min(got[0, 1], got[1, 0]) > 0.9


def test_without_structures_there_is_nothing_to_overlap():
    empty, some = np.zeros((6, 7), np.int16), noise(0, (6, 7))
    of_empty, of_some = (supports(v, structures(v)) for v in (empty, some))
    assert of_empty.sizes.shape == (0,)
    assert overlaps(of_empty, of_some).shape == (0, len(of_some.sizes))
    assert overlaps(of_empty, of_empty).shape == (0, 0)
