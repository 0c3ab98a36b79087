"""Readers of scans in the formats of SimpleITK and nibabel, which take damage for damage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from nnunet_semisup.dataset_conversion.volume import (
    Geometry,
    UnreadableFileError,
    UnusableFileError,
    Volume,
)
from nnunet_semisup.headers import meta, misreading
from nnunet_semisup.headers.axes import sheared_fault
from nnunet_semisup.headers.content import misnamed
from nnunet_semisup.headers.nifti import NiftiHeader, is_nifti, numbers, open_nifti
from nnunet_semisup.headers.nifti import misreading as nifti_misreading
from nnunet_semisup.preparation.image_files import (
    announced_size_fault,
    count_not_finite,
    itk_header,
    last_line,
)
from nnunet_semisup.preparation.sources import add_content

TAKE_FINITE = (
    "Take the original file, or replace these values (numpy.nan_to_num) if they lie where it does "
    "not matter"
)


_TRUST_AFFINE: ContextVar[bool] = ContextVar("trust_affine", default=False)


@dataclass(frozen=True)
class TrustingAffine:
    """Read files with the voxel size of NIfTI from the sform where pixdim denies it.

    Args:
        read: reads a path, perhaps of several files, through :func:`read_itk`.
    """

    read: Callable[[Path], Volume]

    def __call__(self, path: Path) -> Volume:
        """Read a path; see ``read``."""
        before = _TRUST_AFFINE.set(True)
        try:
            return self.read(path)
        finally:
            _TRUST_AFFINE.reset(before)


def check_content(path: Path) -> None:
    """Refuse a file that is empty, or that is something else than its name says.

    Raises:
        UnreadableFileError: it has no bytes.
        UnusableFileError: see :func:`misnamed`.
    """
    if fault := misnamed(path):
        raise UnusableFileError(fault)
    if path.is_file() and path.stat().st_size == 0:
        raise UnreadableFileError("the file is empty (0 bytes)")


def read_itk(path: Path) -> Volume:
    """Read a file with SimpleITK, decompressing all of it; see :class:`TrustingAffine`.

    Raises:
        UnreadableFileError: zero bytes, truncated, or in a format ITK does not know.
        UnusableFileError: intact, but SimpleITK would read it as something else than it says.
    """
    check_content(path)
    header = None
    if is_nifti(path):
        header = load_nifti(path, trust_affine=_TRUST_AFFINE.get()).header
    try:
        with quiet_itk():
            volume = _read_itk(path)
    except (RuntimeError, UnicodeDecodeError) as error:
        if header is not None and header.is_sheared:
            raise UnusableFileError(
                sheared_fault("sform", "takes orthonormal axes alone")
            ) from error
        raise UnreadableFileError(f"damaged or not a scan ({last_line(error)})") from error
    return volume if header is None else _with_affine_spacing(volume, header)


def _with_affine_spacing(volume: Volume, header: NiftiHeader) -> Volume:
    """Return the volume with the voxel size of the sform where that differs from pixdim."""
    wanted = header.affine_spacing
    if wanted is None:
        return volume
    spacing = (*wanted, *volume.geometry.spacing[len(wanted) :])
    words = (
        f"the voxel size {numbers(wanted)} mm is that of its sform, not {numbers(header.pixdim)}"
    )
    return Volume(volume.array, replace(volume.geometry, spacing=spacing), f"{words} of its pixdim")


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Silence ITK's warnings: several for every ACDC file, which would bury all else."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _read_itk(path: Path) -> Volume:
    is_meta = path.name.lower().endswith(meta.ENDINGS) and path.is_file()
    if is_meta and (fault := meta.check_meta_header(path)):
        raise UnreadableFileError(f"damaged or not a MetaImage file: {fault}")
    reader = itk_header(path)
    if fault := announced_size_fault(path, reader):
        raise UnreadableFileError(f"damaged: {fault}")
    if not is_nifti(path) and (fault := misreading(path)):
        raise UnusableFileError(fault)
    image = reader.Execute()
    return Volume(sitk.GetArrayFromImage(image), Geometry.of_itk(image))


@dataclass(frozen=True)
class LoadedNifti:
    """Hold nibabel's image, its voxels with the axes x, y, z, and what the header says."""

    image: nibabel.Nifti1Image
    stored: np.ndarray
    header: NiftiHeader


def load_nifti(path: Path, by_nibabel: bool = False, trust_affine: bool = False) -> LoadedNifti:
    """Read a file with nibabel and refuse what ITK's NIfTI reader hides.

    It fills truncated files and NaN voxels with 0, and takes a voxel size of 0 for 1 mm.

    Args:
        path: the file.
        by_nibabel: nnU-Net reads the file with nibabel, too.
        trust_affine: the caller takes the voxel size from the sform where pixdim denies it.

    Raises:
        UnreadableFileError: the file is empty or damaged.
        UnusableFileError: a voxel is NaN or infinite, or nnU-Net would read the file as something
            else than it says.
    """
    check_content(path)
    try:
        header, image = open_nifti(path)
        stored = np.asanyarray(image.dataobj)
    except Exception as error:  # on damaged headers nibabel raises many kinds
        raise UnreadableFileError(f"damaged or not a NIfTI file ({error})") from error
    if stored.dtype.kind == "f" and (fault := not_finite(stored)):
        raise UnusableFileError(f"{fault}. {TAKE_FINITE}")
    if misread := nifti_misreading(header, by_nibabel, trust_affine):
        raise UnusableFileError(misread)
    return LoadedNifti(image, stored, header)


def not_finite(array: np.ndarray) -> str:
    """Say how many voxels are NaN or infinite; empty if none is."""
    number = sum(count_not_finite(array))
    if not number:
        return ""
    return "1 voxel is NaN or Inf" if number == 1 else f"{number} voxels are NaN or Inf"


def source_sha256(path: Path) -> str:
    """Hash a file's bytes, or the names and bytes of all files below a folder.

    For a path below a file, which stands for a part of it, it is that of the file.
    """
    path = path.parent if path.parent.is_file() else path
    digest = hashlib.sha256()
    is_folder = path.is_dir()
    for name in sorted(p for p in path.rglob("*") if p.is_file()) if is_folder else [path]:
        if is_folder:
            digest.update(f"{name.relative_to(path).as_posix()}\0{name.stat().st_size}\0".encode())
        add_content(digest, name)
    return digest.hexdigest()
