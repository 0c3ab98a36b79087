"""MATCH-Pair and MATCH-Global: identity, order, optimum by trying everything, rows of maps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nnunet_semisup.topology import matching
from nnunet_semisup.topology.critical import critical_pixels
from nnunet_semisup.topology.matching import facet, match_global, match_pair, scores
from nnunet_semisup.topology.structures import Structures
from nnunet_semisup.topology.supports import supports
from tests.unit.topology.maps import blob, component, levels, noise

SHAPE = (24, 32)


def of(*blobs, shape=SHAPE):
    """Return the facet of a map with blobs (centre, sigma, height)."""
    return facet(levels(sum(blob(shape, *one) for one in blobs)), 256)


def permuted(values, order):
    """Return a map's facet with its structures in another order."""
    found = facet(values, 256).found
    other = Structures(found.birth[order], found.death[order], found.persistence[order], 0)
    return matching.Facet(values.shape, other, supports(values, other))


@pytest.mark.parametrize("seed", range(4))
def test_a_map_matches_itself(seed):
    one = facet(noise(seed), 256)
    rows, columns = match_pair(one, one)
    assert rows.tolist() == columns.tolist() == list(range(len(one.found.birth)))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_structures_permutes_the_matching(seed):
    one, values = facet(noise(seed), 256), noise(seed + 50)
    number = len(facet(values, 256).found.birth)
    order = np.random.default_rng(seed).permutation(number)
    expected = set(
        zip(*(side.tolist() for side in match_pair(one, facet(values, 256))), strict=True)
    )
    rows, columns = match_pair(one, permuted(values, order))
    assert len(expected) > 1
    assert set(zip(rows.tolist(), order[columns].tolist(), strict=True)) == expected


def score_by_hand(one, other, i, j):
    """Return one entry of the scores, of two maps in levels."""
    found = [facet(values, 256).found for values in (one, other)]
    chosen = []
    for values, all_of_it, at in zip((one, other), found, (i, j), strict=True):
        flat, birth, death = values.ravel(), all_of_it.birth[at], all_of_it.death[at]
        above = max(flat[death], flat[birth] // 2)
        heights = flat[all_of_it.birth].astype(int) - flat[all_of_it.death]
        mask = component(values, birth, above)
        chosen.append((mask, heights[at] / heights.max(), np.array(divmod(birth, values.shape[1]))))
    (a, v, p), (b, w, q) = chosen
    diagonal = np.hypot(one.shape[0] - 1, one.shape[1] - 1)
    return v * w * (a & b).sum() / (a | b).sum() * (1 - np.linalg.norm(p - q) / diagonal)


def test_scores_are_overlap_persistence_and_distance_of_peaks():
    one, other = noise(4, (10, 11)), noise(5, (10, 11))
    got = scores(facet(one, 256), facet(other, 256))
    expected = [
        [score_by_hand(one, other, i, j) for j in range(got.shape[1])] for i in range(got.shape[0])
    ]
    np.testing.assert_allclose(got, expected)
    assert (got > 0).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (4, 3), (6, 6)])
def test_the_assignment_is_the_best_of_all(size, monkeypatch):
    score = np.random.default_rng(0).random(size) * (np.random.default_rng(1).random(size) > 0.4)
    monkeypatch.setattr(matching, "scores", lambda *_: score)
    rows, columns = match_pair(None, None)
    assert len(set(rows)) == len(set(columns)) == len(rows)
    assert (score[rows, columns] > 0).all(), "a score of 0 is no match"
    wide = score if size[0] <= size[1] else score.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(chosen))
        for chosen in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )
    assert score[rows, columns].sum() == pytest.approx(best)


def test_a_blob_that_moved_beyond_its_own_pixels_is_not_the_same():
    still = ((12, 24), 2.0, 250)
    near, far = ([((12, x), 1.5, 200), still] for x in (7, 15))
    rows, columns = match_pair(of(((12, 6), 1.5, 200), still), of(*near))
    assert rows.tolist() == columns.tolist() == [0, 1]
    rows, columns = match_pair(of(((12, 6), 1.5, 200), still), of(*far))
    assert rows.tolist() == columns.tolist() == [0], "the one that stood still"


STILL, THERE = ((12, 24), 2.0, 250), ((12, 6), 2.0, 200)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ("1111", [4, 4, 4, 4]),
        ("1101", [2, 2, 1]),
        ("0110", [2, 2]),
        ("1000", [1]),
        ("0111", [3, 3, 3]),
    ],
)
def test_a_structure_is_followed_from_one_map_to_the_next(present, expected):
    """A gap splits it: only adjacent maps are compared."""
    seen = match_global([of(STILL, *([THERE] if int(one) else [])) for one in present])
    assert [int(numbers[0]) for numbers in seen] == [4, 4, 4, 4]
    assert [int(numbers[1]) for numbers in seen if len(numbers) > 1] == expected


def test_components_are_those_of_a_search_along_the_links():
    facets = [facet(noise(7 + number, smooth=0.8), 256) for number in range(4)]
    links = {}
    for t in range(3):
        for i, j in zip(*match_pair(facets[t], facets[t + 1]), strict=True):
            links.setdefault((t, i), []).append((t + 1, j))
            links.setdefault((t + 1, j), []).append((t, i))
    sizes = []
    for t, one in enumerate(facets):
        for i in range(len(one.found.birth)):
            reached, queue = {(t, i)}, [(t, i)]
            while queue:
                new = [node for node in links.get(queue.pop(0), []) if node not in reached]
                reached.update(new)
                queue += new
            sizes.append(len(reached))
    assert np.concatenate(match_global(facets)).tolist() == sizes
    assert len(set(sizes)) > 2


def test_maps_without_structures():
    empty = facet(np.zeros(SHAPE, np.int16), 256)
    assert [len(seen) for seen in match_global([empty, empty])] == [0, 0]
    assert [seen.tolist() for seen in match_global([empty, of(STILL), empty])] == [[], [1], []]


def test_critical_pixels_weigh_each_class_alike_and_name_pixels_of_all_maps():
    maps = np.stack([noise(30 + n, (9, 10)) for n in range(6)]).reshape(3, 2, 9, 10)
    maps[:, 1] = levels(blob((9, 10), (4, 5)))
    critical = critical_pixels(maps, 2, [0, 2])
    owner = critical.birth // 90
    assert set(owner.tolist()) == {0, 1, 4, 5}
    assert (critical.death // 90 == owner).all()
    for of_class in range(2):
        chosen = owner % 2 == of_class
        assert critical.weight[chosen].sum() == pytest.approx(0.5)
        assert len(set(critical.weight[chosen].tolist())) == 1
    assert critical.consistent[owner % 2 == 1].all()
    assert not critical.cut
    assert critical_pixels(maps, 2, [0, 2], most=2).cut
