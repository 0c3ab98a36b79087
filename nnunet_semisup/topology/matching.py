"""Find structures of one map again in another one, and in a row of maps.

[0] Xu et al., MATCH: Multi-faceted adaptive topo-consistency for semi-supervised histopathology
    segmentation, NeurIPS 2025, arXiv 2510.01532.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nnunet_semisup.topology.structures import Ints, Levels, Structures, structures
from nnunet_semisup.topology.supports import Floats, Supports, overlaps, supports


class Facet(NamedTuple):
    """Hold one map's structures and their pixels.

    Attributes:
        shape: of the map.
        found: its structures.
        covered: their pixels.
    """

    shape: tuple[int, ...]
    found: Structures
    covered: Supports


def facet(levels: Levels, most: int) -> Facet:
    """Return what matching needs of a map ``(h, w)``; ``most`` structures at most."""
    found = structures(levels, most)
    return Facet(levels.shape, found, supports(levels, found))


def scores(one: Facet, other: Facet) -> Floats:
    """Return how much structures of two maps are alike, ``(n, m)`` from 0 to 1.

    The product of overlap, both persistences (each over the greatest of its map) and 1 minus the
    distance of the peaks over the map's diagonal ([0], MATCH-Pair).
    """
    persistence = [f.found.persistence / f.found.persistence.max(initial=1) for f in (one, other)]
    peaks = [np.stack(np.unravel_index(f.found.birth, f.shape), 1) for f in (one, other)]
    distance = np.linalg.norm(peaks[0][:, None] - peaks[1][None], axis=2)
    diagonal = max(float(np.linalg.norm([n - 1 for n in one.shape])), 1.0)
    alike = overlaps(one.covered, other.covered) * (1 - distance / diagonal)
    return persistence[0][:, None] * persistence[1][None] * alike


def match_pair(one: Facet, other: Facet) -> tuple[Ints, Ints]:
    """Return structures of two maps that belong together, at most one of the other for each.

    The assignment of the greatest sum of scores ([0]: Hungarian algorithm). One with a score of 0
    is no match.
    """
    score = scores(one, other)
    rows, columns = linear_sum_assignment(score, maximize=True)
    alike = score[rows, columns] > 0
    return rows[alike], columns[alike]


def match_global(facets: Sequence[Facet]) -> list[Ints]:
    """Return for each structure the number of facets in which it is found in a row.

    Structures of adjacent facets that belong together are linked; a component of all links is one
    structure seen in as many facets as it has members ([0], MATCH-Global).

    Args:
        facets: two or more, in their order.

    Returns:
        Of each facet ``(n,)``, 1 where a structure is in no other facet.
    """
    starts = np.cumsum([0, *(len(f.found.birth) for f in facets)])
    links = [
        np.stack(match_pair(one, other)) + np.array([[first], [second]])
        for (one, other), (first, second) in zip(pairwise(facets), pairwise(starts), strict=False)
    ]
    rows, columns = np.concatenate(links, 1)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(starts[-1], starts[-1]))
    component = connected_components(graph, directed=False)[1] if starts[-1] else starts[:0]
    seen = np.bincount(component)[component] if starts[-1] else starts[:0]
    return [seen[first:second] for first, second in pairwise(starts)]
