"""Headers and voxels of image files: one reader of what every check of a file begins with.

Converters, verification, preprocessing and evaluation ask here whether a file ends before its
voxels do, which voxels are no numbers and what a library says of damage; the rules for what a case
must be are in :mod:`nnunet_semisup.preparation.rules`, the words of a fault with whoever found it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from nnunet_semisup.headers.nifti import NiftiHeader, is_nifti, read_nifti_header
from nnunet_semisup.preparation.sources import DamagedFileError, read_source

HEADER_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl")
"""Formats of nnU-Net's readers with a header that says dimension, spacing and direction."""
_MAXIMAL_COMPRESSION = 1100
"""Deflate shrinks nothing by more than 1032."""


@dataclass(frozen=True)
class Header:
    """Hold what a header says before a voxel is read.

    ``dimension`` is that of the file, ``unit`` that of a NIfTI file ("mm" for other formats and
    when undeclared), ``factor`` the mm in one, ``spacing`` in mm and ITK's order, ``data_end`` in
    bytes (0 where the format does not say).
    """

    dimension: int
    unit: str
    factor: float
    spacing: tuple[float, ...]
    data_end: int


def itk_header(path: Path) -> SimpleITK.ImageFileReader:
    """Return SimpleITK's reader of a file after it has read the header alone.

    Raises:
        RuntimeError: SimpleITK cannot read it.
    """
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def read_header(path: Path) -> Header | None:
    """Return the header of a medical image without its voxels; ``None`` for other formats.

    NIfTI files that SimpleITK refuses, such as those with sheared axes, are read by nibabel: they
    may be meant for nnU-Net's reader of that name.

    Raises:
        RuntimeError: neither can read the header.
    """
    if not path.name.endswith(HEADER_ENDINGS):
        return None
    nifti = _nifti_header(path)
    try:
        reader = itk_header(path)
    except RuntimeError:
        if nifti is None:
            raise
        spacing = tuple(abs(step) for step in nifti.pixdim)
        return Header(nifti.dimension, nifti.unit, nifti.factor, spacing, nifti.data_end)
    dimension, spacing = reader.GetDimension(), reader.GetSpacing()
    if nifti is None:
        return Header(dimension, "mm", 1.0, spacing, 0)
    return Header(dimension, nifti.unit, nifti.factor, spacing, nifti.data_end)


def _nifti_header(path: Path) -> NiftiHeader | None:
    """Return what a NIfTI file says, if it is one."""
    try:
        return read_nifti_header(path) if is_nifti(path) else None
    except (ValueError, OSError):
        return None


def complete_header(path: Path, length: int) -> Header | None:
    """Return :func:`read_header` of a file that has all the bytes it announces.

    Args:
        path: the file.
        length: its bytes after decompression, from :func:`sources.read_source`.

    Raises:
        DamagedFileError: unreadable or truncated.
    """
    try:
        header = read_header(path)
    except RuntimeError as error:
        said = last_line(error) or "no details"
        raise DamagedFileError(f"has no readable header ({said})") from error
    if header is not None and length < header.data_end:
        raise DamagedFileError(
            f"is truncated (its header announces {header.data_end} bytes, it has {length})"
        )
    return header


def require_complete(path: Path) -> None:
    """Refuse a file that ends before its voxels do: image libraries fill up what is missing.

    Raises:
        DamagedFileError: empty, unreadable or truncated.
    """
    complete_header(path, read_source(path)[1])


def announced_size_fault(path: Path, reader: SimpleITK.ImageFileReader) -> str | None:
    """Return why the voxels that a header announces cannot be in the file.

    ITK trusts the headers it reads. A damaged one may announce more voxels than there is memory
    for.

    Args:
        path: the file with header and voxels; headers of voxels elsewhere (.mhd) are not judged.
        reader: from :func:`itk_header`.
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


def count_not_finite(array: np.ndarray) -> tuple[int, int]:
    """Return how many voxels of an array are NaN, and how many are infinite."""
    if array.dtype.kind not in "fc" or np.isfinite(array).all():
        return 0, 0
    return int(np.isnan(array).sum()), int(np.isinf(array).sum())


def last_line(error: Exception) -> str:
    """Return the last line of what a library says, which is the one that names the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else ""
