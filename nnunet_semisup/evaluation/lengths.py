"""Measure the lengths of label maps in mm, whatever reader of nnU-Net gave them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import io_orientation

from nnunet_semisup.headers.nifti import NiftiHeader, is_nifti, read_nifti_header


@dataclass(frozen=True)
class Lengths:
    """Hold the lengths of the axes of an array that nnU-Net read.

    Attributes:
        spacing: in mm, one an axis.
        factor: mm in a unit of the header, as far as the reader left it to us; ``None`` where the
            header declares no unit.
        denied: what pixdim gives where ``spacing`` is that of the sform.
    """

    spacing: tuple[float, ...]
    factor: float | None = 1.0
    denied: tuple[float, ...] | None = None


def lengths_of(path: Path, properties: dict[str, Any], by_nibabel: bool) -> Lengths:
    """Return the lengths of a file's axes.

    Args:
        path: the file.
        properties: what nnU-Net's reader said of it.
        by_nibabel: the reader knows no units.
    """
    spacing = tuple(float(s) for s in properties["spacing"])
    if not is_nifti(path):
        return Lengths(spacing)
    header = read_nifti_header(path)
    factor = header.factor if by_nibabel else 1.0
    spacing = tuple(step * factor for step in spacing)
    if header.affine_spacing is not None and header.sform is not None:
        return Lengths(_of_affine(header, spacing, properties), factor, spacing)
    declared = header.unit_declared or not by_nibabel
    return Lengths(spacing, factor if declared else None)


def _of_affine(
    header: NiftiHeader, spacing: tuple[float, ...], properties: dict[str, Any]
) -> tuple[float, ...]:
    """Return the voxel size of the sform, along the axes that the reader made of the file's."""
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
