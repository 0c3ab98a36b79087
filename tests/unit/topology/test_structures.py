"""Structures by gudhi, against components counted by scipy and a union of pixels."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.ndimage import label

from nnunet_semisup.errors import UserError
from nnunet_semisup.topology import structures as module
from nnunet_semisup.topology.structures import STEPS, require_gudhi, structures
from tests.unit.topology.maps import blob, levels, noise, pairs_by_union

MAPS = [noise(seed, shape, smooth) for seed, shape, smooth in
        ((0, (12, 17), 1.0), (1, (17, 9), 0.5), (2, (8, 8), 0.1), (3, (24, 30), 2.0))]  # fmt: skip


def pairs_of(values, most=10**6):
    found = structures(values, most)
    flat = values.ravel()
    return sorted(zip(flat[found.birth].tolist(), flat[found.death].tolist(), strict=True))


def test_two_blobs_are_born_at_their_peaks_and_one_dies_at_the_saddle():
    shape, first, second = (20, 31), (9, 7), (9, 23)
    values = levels(blob(shape, first, 4.0, 250) + blob(shape, second, 4.0, 249.2))
    found = structures(values)
    peaks = [np.ravel_multi_index(place, shape) for place in (first, second)]
    assert found.birth.tolist() == peaks
    assert found.death[1] == np.ravel_multi_index((9, 15), shape), "halfway"
    assert values.ravel()[found.death[0]] == values.min(), "the highest joins no other"
    saddle = round(2 * 249.6 * np.exp(-(8**2) / (2 * 4.0**2)))
    assert found.persistence.tolist() == [values.max() - values.min(), 249 - saddle]


@pytest.mark.parametrize("values", MAPS)
def test_components_above_each_level_are_scipys(values):
    """V-construction: foreground is connected by edges, not by corners."""
    found, flat = structures(values, 10**6), values.ravel()
    for level in range(int(values.min()) + 1, STEPS + 1):
        alive = (flat[found.birth] >= level) & (flat[found.death] < level)
        assert alive.sum() == label(values >= level)[1], level


@pytest.mark.parametrize("values", MAPS)
def test_pairs_are_those_of_the_elder_rule(values):
    assert pairs_of(values) == pairs_by_union(values)


def test_pixels_that_touch_by_a_corner_are_two_structures():
    """gudhi's other construction, of top-dimensional cells, makes them one."""
    values = np.zeros((4, 5), np.int16)
    values[1, 1], values[2, 2] = 200, 100
    assert pairs_of(values) == [(100, 0), (200, 0)]


@pytest.mark.parametrize("value", [0, 7, STEPS])
def test_a_constant_map_has_none(value):
    found = structures(np.full((5, 6), value, np.int16))
    assert len(found.birth) == len(found.death) == len(found.persistence) == found.found == 0


def test_the_most_persistent_ones_are_kept():
    every, few = structures(MAPS[2], 10**6), structures(MAPS[2], 3)
    assert every.persistence.tolist() == sorted(every.persistence, reverse=True)
    assert every.persistence.min() >= 1
    assert (few.found, len(few.birth)) == (len(every.birth), 3)
    assert few.birth.tolist() == every.birth[:3].tolist()


def test_without_gudhi_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"nnUNetTrainerX .*gudhi.*: pip install gudhi"):
        require_gudhi("nnUNetTrainerX")
    monkeypatch.undo()
    require_gudhi("nnUNetTrainerX")


def test_gudhi_is_imported_only_when_structures_are_looked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "gudhi", None)
    for name in [n for n in sys.modules if n.startswith("nnunet_semisup.topology")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "nnunet_semisup.trainers.match", raising=False)
    from nnunet_semisup.trainers.match import nnUNetTrainerMATCH  # noqa: F401

    with pytest.raises(ImportError):
        sys.modules["nnunet_semisup.topology.structures"].structures(MAPS[0])
