"""Distances between the surfaces of two masks, exact, from the voxels around them alone.

Surfaces that are worth measuring lie close together. So each surface voxel first looks for the
other surface among the voxels nearest to it, the nearest first, which is one look-up in an array
each; a k-d tree answers for the few that find nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Mask = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_LOOKED_AT = 128
"""Voxels around each voxel in which the other surface is looked for before a tree is built."""


def bounding_box(mask: Mask) -> tuple[slice, ...] | None:
    """Return the smallest box around a boolean mask ``(*spatial)``, ``None`` if it is empty."""
    box: tuple[slice, ...] = ()
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        hits = np.flatnonzero(mask[box].any(axis=others))
        if not hits.size:
            return None
        box += (slice(int(hits[0]), int(hits[-1]) + 1),)
    return box


def enclosing(first: Sequence[slice], second: Sequence[slice]) -> tuple[slice, ...]:
    """Return the smallest box around two boxes."""
    pairs = zip(first, second, strict=True)
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in pairs)


def distances(
    prediction: Mask, reference: Mask, spacing: Sequence[float]
) -> tuple[Distances, Distances]:
    """Return the distance of each mask's surface voxels to the other mask's surface.

    Args:
        prediction: non-empty boolean mask ``(*spatial)``; beyond the array is outside.
        reference: non-empty boolean mask of the same shape.
        spacing: size of a voxel along each axis.

    Returns:
        The distances from the prediction's surface to the reference's, ``(surface voxels of the
        prediction,)``, and the reverse, in the unit of ``spacing``.
    """
    around = _around(spacing)
    reach = tuple(int(n) for n in np.abs(around).max(axis=0))
    surfaces = [_surface(mask, reach, spacing) for mask in (prediction, reference)]
    lengths = np.linalg.norm(around * np.asarray(spacing, dtype=np.float64), axis=1)
    steps = around @ np.array(surfaces[0].strides)
    return (
        surfaces[0].distances_to(surfaces[1], steps, lengths),
        surfaces[1].distances_to(surfaces[0], steps, lengths),
    )


def _around(spacing: Sequence[float]) -> Indices:
    """Return offsets of voxels ``(n, axes)``, sorted by length; none that is left out is shorter.

    They include all of length 0 and 1 voxel along each axis that a surface needs.
    """
    axes = len(spacing)
    unit_ball = math.pi ** (axes / 2) / math.gamma(axes / 2 + 1)
    radius = (_LOOKED_AT * math.prod(spacing) / unit_ball) ** (1 / axes)
    reach = [np.arange(-int(radius / step), int(radius / step) + 1) for step in spacing]
    offsets = np.stack(np.meshgrid(*reach, indexing="ij"), axis=-1).reshape(-1, axes)
    squares = ((offsets * np.asarray(spacing, dtype=np.float64)) ** 2).sum(axis=1)
    order = np.argsort(squares, kind="stable")
    return offsets[order[squares[order] <= radius**2][:_LOOKED_AT]]


@dataclass(frozen=True)
class _Surface:
    """Hold the voxels of a surface: as a flat padded array, and their indices in it.

    The margin on each side is as wide as any step, so that no step from a voxel leaves the array
    or comes to a voxel that is not there.
    """

    is_surface: Mask
    index: Indices
    shape: tuple[int, ...]
    spacing: Sequence[float]

    @property
    def strides(self) -> tuple[int, ...]:
        return _strides(self.shape)

    def points(self, index: Indices) -> Distances:
        """Return the positions ``(n, axes)`` of voxels."""
        return np.stack(np.unravel_index(index, self.shape), axis=1) * np.asarray(self.spacing)

    def distances_to(self, other: _Surface, steps: Indices, lengths: Distances) -> Distances:
        """Return the distance of each voxel of this surface to the nearest one of ``other``."""
        found = np.empty(self.index.size)
        numbers, left = np.arange(self.index.size), self.index
        for step, length in zip(steps, lengths, strict=True):
            hit = other.is_surface[left + step]
            found[numbers[hit]] = length
            missed = ~hit
            numbers, left = numbers[missed], left[missed]
            if not left.size:
                return found
        tree = cKDTree(other.points(other.index), balanced_tree=False, compact_nodes=False)
        found[numbers] = tree.query(self.points(left))[0]
        return found


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return how far apart neighbors along each axis lie in a flat array."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _surface(mask: Mask, reach: Sequence[int], spacing: Sequence[float]) -> _Surface:
    """Return the voxels of a mask with a face neighbor outside of it."""
    margin = [max(1, side) for side in reach]
    padded = np.zeros([n + 2 * m for n, m in zip(mask.shape, margin, strict=True)], dtype=bool)
    padded[tuple(slice(m, m + n) for n, m in zip(mask.shape, margin, strict=True))] = mask
    flat = padded.reshape(-1)
    inner = flat.copy()
    for stride in _strides(padded.shape):
        inner[stride:] &= flat[:-stride]
        inner[:-stride] &= flat[stride:]
    is_surface = np.greater(flat, inner, out=inner)
    return _Surface(is_surface, np.flatnonzero(is_surface), padded.shape, spacing)
