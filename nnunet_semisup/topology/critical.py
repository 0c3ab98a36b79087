"""Name the pixels of a row of maps whose values make and end their structures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nnunet_semisup.topology.matching import facet, match_global
from nnunet_semisup.topology.structures import Ints, Levels

MOST = 256
"""Structures of a map that are looked at, the most persistent ones."""


class Critical(NamedTuple):
    """Hold the critical pixels of all structures of some maps.

    Attributes:
        birth: ``(n,)`` pixels of the peaks, in the flattened maps.
        death: ``(n,)`` pixels of the saddles.
        consistent: ``(n,)`` whether a structure is found in facets enough.
        weight: ``(n,)``; structures of a class count alike, and classes count alike.
        cut: whether a map had more structures than are looked at.
    """

    birth: Ints
    death: Ints
    consistent: npt.NDArray[np.bool_]
    weight: npt.NDArray[np.float32]
    cut: bool


def critical_pixels(
    levels: Levels, least: int, carriers: Sequence[int], most: int = MOST
) -> Critical:
    """Return the critical pixels of some of the facets of one image.

    Args:
        levels: ``(facets, classes, h, w)``, of :data:`~structures.STEPS` steps.
        least: facets in a row in which a structure must be found to be consistent.
        carriers: facets whose structures are returned.
        most: structures of each map that are looked at.
    """
    size = levels[0, 0].size
    number = levels.shape[1]
    parts, cut = [], False
    for of_class in range(number):
        facets = [facet(one, most) for one in levels[:, of_class]]
        seen = match_global(facets)
        count = sum(len(seen[at]) for at in carriers)
        for at in carriers:
            found = facets[at].found
            first = (at * number + of_class) * size
            weight = np.full(len(found.birth), 1 / (max(count, 1) * number), np.float32)
            parts.append((found.birth + first, found.death + first, seen[at] >= least, weight))
        cut |= any(one.found.found > most for one in facets)
    birth, death, consistent, weight = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Critical(birth, death, consistent, weight, cut)
