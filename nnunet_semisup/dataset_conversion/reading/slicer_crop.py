"""Segmentations of 3D Slicer on the grid of their image.

Slicer saves a ``.seg.nrrd`` cut to the segments where the file dialog's "crop to minimum extent" is
on, and one voxel where nothing was drawn ("no image data is available and the image geometry will
be ignored", `its documentation <https://slicer.readthedocs.io/en/latest/developer_guide/modules/
segmentations.html>`_). What was cut off is background.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunet_semisup.dataset_conversion.volume import Geometry, Volume

_ENDING = ".seg.nrrd"
_WHOLE = 0.01
"""Share of a voxel by which the place of a cut may differ from a whole voxel."""


def is_segmentation(path: Path) -> bool:
    """Return whether a file is a segmentation of Slicer by its ending."""
    return path.name.lower().endswith(_ENDING)


def on_grid(volume: Volume, grid: Geometry) -> Volume:
    """Fill a segmentation that was cut with background up to the grid of its image.

    Args:
        volume: of shape ``(z, y, x)``.
        grid: of the image.

    Returns:
        ``volume`` itself where it has the size of ``grid``, or is no part of it.
    """
    own = volume.geometry
    if own.size == grid.size or len(own.size) != 3 or len(grid.size) != 3 or volume.components > 1:
        return volume
    filled = np.zeros(grid.size[::-1], volume.array.dtype)
    if volume.array.size == 1 and not volume.array.any():
        return Volume(filled, grid, "has no segment")
    if replace(own, size=grid.size).mismatches(grid):
        return volume
    axes = np.reshape(grid.direction, (3, 3))
    exact = axes.T @ np.subtract(own.origin, grid.origin) / grid.spacing
    first = np.rint(exact).astype(int)
    if np.abs(exact - first).max() > _WHOLE or (first < 0).any():
        return volume
    if (first + own.size > grid.size).any():
        return volume
    place = tuple(slice(a, a + n) for a, n in zip(first[::-1], own.size[::-1], strict=True))
    filled[place] = volume.array
    return Volume(filled, grid, "was saved cut to its segments; the rest is background")
