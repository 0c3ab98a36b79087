"""Axes that are no rectangular grid."""

from __future__ import annotations

import numpy as np

_TOLERANCE = 1e-3


def are_sheared(axes: np.ndarray) -> bool:
    """Return whether the columns of a matrix of finite numbers are not perpendicular."""
    lengths = np.linalg.norm(axes, axis=0)
    cosines = (axes.T @ axes) / np.outer(lengths, lengths)
    return bool(np.abs(cosines - np.eye(len(cosines))).max() > _TOLERANCE)


def sheared_fault(of: str, consequence: str) -> str:
    """Return what is wrong with a scan whose axes are sheared.

    Args:
        of: the field of the header that gives the axes.
        consequence: what nnU-Net's reader does.
    """
    return (
        f"the axes of its {of} are not perpendicular, so its voxels are no rectangular grid; "
        f"SimpleITK and so nnU-Net {consequence}. Save it on such a grid"
    )
