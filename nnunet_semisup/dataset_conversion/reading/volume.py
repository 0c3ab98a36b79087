"""Scans as an array with a geometry, read from any format and written as NIfTI."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from nnunet_semisup.atomic import publish
from nnunet_semisup.dataset_conversion.checking.headers import check_announced_size
from nnunet_semisup.errors import UserError
from nnunet_semisup.headers import meta, misreading
from nnunet_semisup.headers.axes import sheared_fault
from nnunet_semisup.headers.content import misnamed
from nnunet_semisup.headers.nifti import NiftiHeader, is_nifti, numbers, open_nifti
from nnunet_semisup.headers.nifti import misreading as nifti_misreading

RELATIVE_TOLERANCE = 1e-3
TAKE_FINITE = (
    "Take the original file, or replace these values (numpy.nan_to_num) if they lie where it does "
    "not matter"
)


class UnreadableFileError(ValueError):
    """A file that cannot be read as a scan; the message says why in words."""


class UnusableFileError(UnreadableFileError):
    """A sound file that cannot be used; the message says why, and what to do instead."""


@dataclass(frozen=True)
class Geometry:
    """Where the voxels lie, in ITK's convention: axes x, y, z, millimetres, LPS."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    def mismatches(self, other: Geometry) -> list[str]:
        """What differs beyond tolerance among size, spacing and direction (origin is apart)."""
        if self.size != other.size:
            return [f"size {self.size} and {other.size}"]
        found = []
        if not np.allclose(self.spacing, other.spacing, rtol=RELATIVE_TOLERANCE, atol=0):
            found.append(f"spacing {self.spacing} and {other.spacing}")
        if not np.allclose(self.direction, other.direction, rtol=0, atol=RELATIVE_TOLERANCE):
            found.append(f"direction {self.direction} and {other.direction}")
        return found

    def same_origin(self, other: Geometry) -> bool:
        """Whether the origins agree to a thousandth of a voxel, or to the 32 bits of NIfTI's."""
        farthest = max(map(abs, self.origin))
        tolerance = max(
            RELATIVE_TOLERANCE * min(self.spacing), 4 * float(np.finfo(np.float32).eps) * farthest
        )
        return bool(np.allclose(self.origin, other.origin, rtol=0, atol=tolerance))

    def equals(self, other: Geometry) -> bool:
        """Whether everything agrees within tolerance."""
        return not self.mismatches(other) and self.same_origin(other)


@dataclass(frozen=True)
class Volume:
    """A scan: ``array`` of shape ``(z, y, x)`` (SimpleITK's order) and its geometry.

    Pictures are ``(y, x)``. Files with several values a voxel, such as colour photographs, have
    them on one more axis at the end.

    ``repaired`` says in words what nnU-Net would read otherwise from the same file, which then
    must be written anew; empty if nothing.
    """

    array: np.ndarray
    geometry: Geometry
    repaired: str = ""

    @property
    def components(self) -> int:
        """Number of values a voxel."""
        return math.prod(self.array.shape[len(self.geometry.size) :])

    @property
    def grey(self) -> np.ndarray:
        """One value a voxel: the mean of several."""
        extra = tuple(range(len(self.geometry.size), self.array.ndim))
        return self.array.mean(axis=extra, dtype=np.float32) if extra else self.array


_TRUST_AFFINE: ContextVar[bool] = ContextVar("trust_affine", default=False)


@dataclass(frozen=True)
class TrustingAffine:
    """A reader of files that takes the voxel size of NIfTI from the sform where pixdim denies it.

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
        with _quiet_itk():
            volume = _read_itk(path)
    except (RuntimeError, UnicodeDecodeError) as error:
        if header is not None and header.is_sheared:
            raise UnusableFileError(
                sheared_fault("sform", "takes orthonormal axes alone")
            ) from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UnreadableFileError(f"damaged or not a scan ({lines[-1]})") from error
    return volume if header is None else _with_affine_spacing(volume, header)


def _with_affine_spacing(volume: Volume, header: NiftiHeader) -> Volume:
    """The volume with the voxel size of the sform where that differs from pixdim."""
    wanted = header.affine_spacing
    if wanted is None:
        return volume
    spacing = (*wanted, *volume.geometry.spacing[len(wanted) :])
    words = (
        f"the voxel size {numbers(wanted)} mm is that of its sform, not {numbers(header.pixdim)}"
    )
    return Volume(volume.array, replace(volume.geometry, spacing=spacing), f"{words} of its pixdim")


@contextmanager
def _quiet_itk() -> Iterator[None]:
    """Without ITK's warnings: several for every ACDC file, which would bury all else."""
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
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    if fault := check_announced_size(path, reader):
        raise UnreadableFileError(f"damaged: {fault}")
    if not is_nifti(path) and (fault := misreading(path)):
        raise UnusableFileError(fault)
    image = reader.Execute()
    geometry = Geometry(
        image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()
    )
    return Volume(sitk.GetArrayFromImage(image), geometry)


@dataclass(frozen=True)
class LoadedNifti:
    """nibabel's image, its voxels with the axes x, y, z, and what the header says."""

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
    """How many voxels are NaN or infinite, in words; empty if none is."""
    number = array.size - np.count_nonzero(np.isfinite(array))
    if not number:
        return ""
    return "1 voxel is NaN or Inf" if number == 1 else f"{number} voxels are NaN or Inf"


def nifti_holds(path: Path, volume: Volume) -> bool:
    """Whether a file of :func:`write_nifti` holds ``volume``; its voxels are decompressed once.

    Raises:
        UnreadableFileError: the file is damaged.
    """
    stored = load_nifti(path).stored.T
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with _quiet_itk():
        reader.ReadImageInformation()
    geometry = Geometry(
        reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection()
    )
    return (
        volume.geometry.equals(geometry)
        and stored.dtype == volume.array.dtype
        and np.array_equal(stored, volume.array)
    )


def read_h5(path: Path, key: str, spacing: float | tuple[float, ...], axes: str = "xyz") -> Volume:
    """Read one data set of an h5 file, which has no geometry of its own.

    Args:
        path: the file.
        key: name of the data set inside it.
        spacing: voxel size in millimetres to assume: one number, or one along each of x, y, z.
        axes: order of the stored axes, ``"xyz"`` or ``"zyx"``.

    Raises:
        UnreadableFileError: truncated, not HDF5, or without ``key``.
        ImportError: h5py is not installed.
    """
    import h5py

    if path.stat().st_size == 0:
        raise UnreadableFileError("the file is empty (0 bytes)")
    try:
        with h5py.File(path, "r") as file:
            if key not in file:
                raise UnreadableFileError(f"has no data set '{key}', only {sorted(file)}")
            stored = np.asarray(file[key])
    except UnreadableFileError:
        raise
    except Exception as error:  # on damaged files h5py raises many kinds
        raise UnreadableFileError(f"damaged or not an HDF5 file ({error})") from error
    if stored.dtype.kind not in "biuf":
        raise UnreadableFileError(f"the data set '{key}' does not hold numbers")
    array = np.ascontiguousarray(stored if axes == "zyx" else stored.T)
    ndim = array.ndim
    steps = spacing if isinstance(spacing, tuple) else (spacing,) * ndim
    direction = tuple(float(v) for v in np.eye(ndim).ravel())
    return Volume(array, Geometry(array.shape[::-1], steps, (0.0,) * ndim, direction))


def oriented(volume: Volume, code: str = "LPS") -> Volume:
    """The same scan with its axes in the order and direction of ``code``, by mirroring and
    swapping alone.

    Args:
        volume: three-dimensional; any other is returned as it is.
        code: letters of the directions that x, y and z point to, as in ITK's ``DICOMOrient``.
    """
    if len(volume.geometry.size) != 3:
        return volume
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.geometry.spacing)
    image.SetOrigin(volume.geometry.origin)
    image.SetDirection(volume.geometry.direction)
    turned = sitk.DICOMOrient(image, code)
    geometry = Geometry(
        turned.GetSize(), turned.GetSpacing(), turned.GetOrigin(), turned.GetDirection()
    )
    return Volume(sitk.GetArrayFromImage(turned), geometry)


def array_sha256(array: np.ndarray) -> str:
    """Hash of shape, data type and voxels; equal for equal arrays whatever their memory layout."""
    contiguous = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{contiguous.shape} {contiguous.dtype.str}".encode())
    digest.update(contiguous.data)
    return digest.hexdigest()


def source_sha256(path: Path) -> str:
    """Hash of a file's bytes, or of the names and bytes of all files below a folder.

    For a path below a file, which stands for a part of it, it is that of the file.
    """
    path = path.parent if path.parent.is_file() else path
    digest = hashlib.sha256()
    is_folder = path.is_dir()
    for name in sorted(p for p in path.rglob("*") if p.is_file()) if is_folder else [path]:
        if is_folder:
            digest.update(f"{name.relative_to(path).as_posix()}\0{name.stat().st_size}\0".encode())
        with name.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def write_nifti(volume: Volume, path: Path) -> None:
    """Write ``path`` (``.nii.gz``) atomically; equal volumes give equal bytes.

    The gzip header ITK writes holds neither a time nor a name.
    """
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.geometry.spacing)
    image.SetOrigin(volume.geometry.origin)
    image.SetDirection(volume.geometry.direction)
    handle, temporary = tempfile.mkstemp(prefix=".tmp-", suffix=".nii.gz", dir=path.parent)
    os.close(handle)
    try:
        sitk.WriteImage(image, temporary, useCompression=True)
        publish(Path(temporary), path)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"{path} cannot be written ({error}). Check the free space and the permissions; the "
            "same command continues where it stopped."
        ) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write a text file atomically."""
    handle, temporary = tempfile.mkstemp(prefix=".tmp-", suffix=path.suffix, dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        publish(Path(temporary), path)
    finally:
        Path(temporary).unlink(missing_ok=True)
