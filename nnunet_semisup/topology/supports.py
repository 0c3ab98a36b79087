"""Say which pixels a structure covers, and how far structures of two maps cover the same ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from skimage.morphology import max_tree

from nnunet_semisup.topology.structures import Ints, Levels, Structures

Floats = npt.NDArray[np.float64]


class Supports(NamedTuple):
    """Hold the pixels of structures, which contain one another or are apart.

    Attributes:
        parts: ``(pixels,)`` number of the part that a pixel belongs to: pixels within the same
            structures; 0: within none.
        within: ``(parts, n)`` whether a part lies within a structure.
    """

    parts: Ints
    within: npt.NDArray[np.bool_]

    @property
    def sizes(self) -> Ints:
        """``(n,)`` pixels of each structure."""
        return self.within.T @ np.bincount(self.parts, minlength=len(self.within))


def supports(levels: Levels, found: Structures) -> Supports:
    """Return the pixels of each structure: its component above the level at which it dies.

    That level is taken to be half of its peak at least. The highest structure of a map joins no
    higher one, so that its component would be the whole map: where two maps disagree which of two
    structures is the higher one, neither would be found again.

    Args:
        levels: ``(h, w)``.
        found: its structures.
    """
    height = levels.astype(np.int64).ravel()
    above = np.maximum(height[found.death], height[found.birth] // 2)
    parent = max_tree(levels, connectivity=1)[0].ravel().astype(np.int64)
    chosen, number = np.unique(_nodes(height, parent, found.birth, above), return_inverse=True)

    # Each pixel jumps to the nearest chosen node, by steps that double; others end at the root.
    target = parent.copy()
    target[chosen] = chosen
    while not np.array_equal(further := target[target], target):
        target = further
    label = np.zeros(height.size, np.int64)
    label[chosen] = np.arange(1, len(chosen) + 1)
    around = np.concatenate(([0], label[target[parent[chosen]]]))
    return Supports(label[target], _ancestors(around)[:, number + 1])


def _nodes(height: Ints, parent: Ints, pixel: Ints, above: Ints) -> Ints:
    """Return the max-tree's node of each pixel's component above a level.

    A component is one pixel of the tree, whose parent stands for the next larger component, at a
    lower level: there are no more steps than levels.
    """
    node = np.where(height[parent[pixel]] == height[pixel], parent[pixel], pixel)
    while (climbs := height[parent[node]] > above).any():
        node = np.where(climbs, parent[node], node)
    return node


def _ancestors(around: Ints) -> npt.NDArray[np.bool_]:
    """Return ``(k, k)``, whether a node is another or in it; ``around``: the next one; 0: none."""
    within = np.zeros((len(around), len(around)), bool)
    own = current = np.arange(len(around))
    while current.any():
        within[own, current] = True
        current = around[current]
    within[:, 0] = False
    return within


def overlaps(one: Supports, other: Supports) -> Floats:
    """Return the intersection over union ``(n, m)`` of the structures of two maps of one size."""
    shape = len(one.within), len(other.within)
    together = np.bincount(one.parts * shape[1] + other.parts, minlength=shape[0] * shape[1])
    both = one.within.T.astype(np.int64) @ together.reshape(shape) @ other.within.astype(np.int64)
    return both / (one.sizes[:, None] + other.sizes[None] - both)
