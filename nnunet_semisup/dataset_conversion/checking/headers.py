"""Checks of headers beside those that the formats share with all commands.

ITK trusts the headers it reads. A damaged one may announce more voxels than there is memory for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from nnunet_semisup.headers.nifti import is_nifti, read_nifti_header

_MAXIMAL_COMPRESSION = 1100
"""Deflate shrinks nothing by more than 1032."""


def check_announced_size(path: Path, reader: sitk.ImageFileReader) -> str | None:
    """Why the voxels that a header announces cannot be in the file.

    Args:
        path: the file with header and voxels; headers of voxels elsewhere (.mhd) are not judged.
        reader: after ``ReadImageInformation``.
    """
    if path.suffix.lower() == ".mhd":
        return None
    voxels = math.prod(reader.GetSize()) * reader.GetNumberOfComponents()
    if voxels == 0:
        return "its header announces no voxel"
    there = path.stat().st_size
    if voxels > _MAXIMAL_COMPRESSION * there:
        return f"its header announces {voxels} voxels, which {there} bytes cannot hold"
    return None


def contradicting_headers(paths: Sequence[Path]) -> str | None:
    """A line about NIfTI files whose two affines differ; ``None`` if there is no such file."""
    nifti = [path for path in paths if is_nifti(path)]
    number = sum(_contradicts_itself(path) for path in nifti)
    if not number:
        return None
    return (
        f"{number} of {len(nifti)} NIfTI files have a sform that contradicts their qform; the "
        "voxel size is that of the qform, as SimpleITK and so nnU-Net read it. Other programs may "
        "show these files otherwise"
    )


def _contradicts_itself(path: Path) -> bool:
    """Whether a header has two different affines; unreadable files are judged elsewhere."""
    try:
        return read_nifti_header(path).contradicts_itself
    except (ValueError, OSError):
        return False
