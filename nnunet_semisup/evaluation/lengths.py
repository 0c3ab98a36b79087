"""Lengths of label maps in mm, whatever reader of nnU-Net gave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import io_orientation

from nnunet_semisup.headers.nifti import NiftiHeader, is_nifti, read_nifti_header


def spacing_mm(
    path: Path, properties: dict[str, Any], by_nibabel: bool
) -> tuple[tuple[float, ...], float | None]:
    """Return the lengths of the axes of an array that nnU-Net read, in mm.

    Args:
        path: the file.
        properties: what the reader said of it.
        by_nibabel: the reader knows no units.

    Returns:
        One length an axis, and the mm in a unit of the header as far as the reader left it to us;
        ``None`` where the header declares no unit.
    """
    spacing = tuple(float(s) for s in properties["spacing"])
    if not is_nifti(path):
        return spacing, 1.0
    header = read_nifti_header(path)
    factor = header.factor if by_nibabel else 1.0
    if header.affine_spacing is not None and header.sform is not None:
        return _of_affine(header, spacing, properties), factor
    declared = factor if header.unit_declared or not by_nibabel else None
    return tuple(step * factor for step in spacing), declared


def _of_affine(
    header: NiftiHeader, spacing: tuple[float, ...], properties: dict[str, Any]
) -> tuple[float, ...]:
    """The voxel size of the sform, along the axes that the reader made of the file's."""
    lengths = np.asarray(header.affine_spacing)
    stuff = properties.get("nibabel_stuff", properties.get("sitk_stuff", {}))
    if len(lengths) == 3 and {"reoriented_affine", "original_orientation"} & stuff.keys():
        axes = io_orientation(header.sform)[:, 0].astype(int)
        lengths = lengths[np.argsort(axes)]
    found = tuple(float(length) for length in lengths[::-1])
    return (*spacing[: len(spacing) - len(found)], *found)


def scaled_affine(placement: tuple[float, ...], factor: float) -> tuple[float, ...]:
    """Return a flat 4 x 4 affine with its lengths times ``factor``."""
    affine = np.reshape(placement, (4, 4)).copy()
    affine[:3] *= factor
    return tuple(affine.ravel())
