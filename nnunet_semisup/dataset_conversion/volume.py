"""Scans as an array with a geometry, read from any format and written as NIfTI."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from nnunet_semisup.errors import UserError

RELATIVE_TOLERANCE = 1e-3


class UnreadableFileError(ValueError):
    """A file that cannot be read as a scan; the message says why in words."""


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
        """Whether the origins agree to a thousandth of a voxel."""
        tolerance = RELATIVE_TOLERANCE * min(self.spacing)
        return bool(np.allclose(self.origin, other.origin, rtol=0, atol=tolerance))


@dataclass(frozen=True)
class Volume:
    """A scan: ``array`` of shape ``(z, y, x)`` (SimpleITK's order) and its geometry."""

    array: np.ndarray
    geometry: Geometry


def read_itk(path: Path) -> Volume:
    """Read a file with SimpleITK, decompressing all of it.

    Raises:
        UnreadableFileError: zero bytes, truncated, or in a format ITK does not know.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise UnreadableFileError("the file is empty (0 bytes)")
    if path.name.endswith((".nii", ".nii.gz")):
        _check_nifti(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UnreadableFileError(f"damaged or not a scan ({lines[-1]})") from error
    geometry = Geometry(
        image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()
    )
    return Volume(sitk.GetArrayFromImage(image), geometry)


def _check_nifti(path: Path) -> None:
    """Refuse what ITK's NIfTI reader hides: it fills truncated files and NaN voxels with 0.

    Raises:
        UnreadableFileError: the file is damaged, or a voxel is NaN or infinite.
    """
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
        sizes = {int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")}
        kind = nibabel.Nifti2Image if 540 in sizes else nibabel.Nifti1Image
        stored = np.asanyarray(kind.from_bytes(content).dataobj)
    except (
        OSError,
        EOFError,
        ValueError,
        zlib.error,
        nibabel.spatialimages.HeaderDataError,
    ) as error:
        raise UnreadableFileError(f"damaged or not a NIfTI file ({error})") from error
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        number = np.count_nonzero(~np.isfinite(stored))
        raise UnreadableFileError(f"{number} voxels are NaN or Inf")


def read_h5(path: Path, key: str, spacing: float) -> Volume:
    """Read one data set of an h5 file with axes ``(x, y, z)`` and no geometry of its own.

    Args:
        path: the file.
        key: name of the data set inside it.
        spacing: isotropic voxel size in millimetres to assume.

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
            array = np.ascontiguousarray(np.asarray(file[key]).T)
    except OSError as error:
        raise UnreadableFileError(f"damaged or not an HDF5 file ({error})") from error
    ndim = array.ndim
    direction = tuple(float(v) for v in np.eye(ndim).ravel())
    geometry = Geometry(array.shape[::-1], (spacing,) * ndim, (0.0,) * ndim, direction)
    return Volume(array, geometry)


def array_sha256(array: np.ndarray) -> str:
    """Hash of shape, data type and voxels; equal for equal arrays whatever their memory layout."""
    contiguous = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{contiguous.shape} {contiguous.dtype.str}".encode())
    digest.update(contiguous.data)
    return digest.hexdigest()


def source_sha256(path: Path) -> str:
    """Hash of a file's bytes, or of a folder's file names and bytes."""
    digest = hashlib.sha256()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for name in files:
        if path.is_dir():
            digest.update(f"{name.name}\0{name.stat().st_size}\0".encode())
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


def publish(temporary: Path, path: Path) -> None:
    """Flush ``temporary`` to the disk, give it ordinary permissions and rename it to ``path``."""
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
