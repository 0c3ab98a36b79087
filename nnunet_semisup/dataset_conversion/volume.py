"""Scans as an array with a geometry, read from any format and written as NIfTI."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from nnunet_semisup.atomic import publish
from nnunet_semisup.dataset_conversion.headers import (
    META_ENDINGS,
    check_announced_size,
    check_meta_header,
)
from nnunet_semisup.errors import UserError

RELATIVE_TOLERANCE = 1e-3


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
    """

    array: np.ndarray
    geometry: Geometry

    @property
    def components(self) -> int:
        """Number of values a voxel."""
        return math.prod(self.array.shape[len(self.geometry.size) :])

    @property
    def grey(self) -> np.ndarray:
        """One value a voxel: the mean of several."""
        extra = tuple(range(len(self.geometry.size), self.array.ndim))
        return self.array.mean(axis=extra, dtype=np.float32) if extra else self.array


def read_itk(path: Path) -> Volume:
    """Read a file with SimpleITK, decompressing all of it.

    Raises:
        UnreadableFileError: zero bytes, truncated, or in a format ITK does not know.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise UnreadableFileError("the file is empty (0 bytes)")
    if path.name.endswith((".nii", ".nii.gz")):
        load_nifti(path)
    try:
        with _quiet_itk():
            return _read_itk(path)
    except (RuntimeError, UnicodeDecodeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UnreadableFileError(f"damaged or not a scan ({lines[-1]})") from error


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
    is_meta = path.name.lower().endswith(META_ENDINGS) and path.is_file()
    if is_meta and (fault := check_meta_header(path)):
        raise UnreadableFileError(f"damaged or not a MetaImage file: {fault}")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    if fault := check_announced_size(path, reader):
        raise UnreadableFileError(f"damaged: {fault}")
    image = reader.Execute()
    geometry = Geometry(
        image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()
    )
    return Volume(sitk.GetArrayFromImage(image), geometry)


def load_nifti(path: Path) -> tuple[nibabel.Nifti1Image, np.ndarray]:
    """Refuse what ITK's NIfTI reader hides; returns nibabel's image and its voxels, axes x, y, z.

    It fills truncated files and NaN voxels with 0, and takes a voxel size of 0 for 1 mm.

    Raises:
        UnreadableFileError: the file is empty or damaged, a voxel is NaN or infinite, or the header
            has no voxel size.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise UnreadableFileError("the file is empty (0 bytes)")
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
        sizes = {int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")}
        kind = nibabel.Nifti2Image if 540 in sizes else nibabel.Nifti1Image
        image = kind.from_bytes(content)
        stored = np.asanyarray(image.dataobj)
        length = kind.header_class.sizeof_hdr
        header = kind.header_class(binaryblock=content[:length], check=False)
    except Exception as error:  # on damaged headers nibabel raises many kinds
        raise UnreadableFileError(f"damaged or not a NIfTI file ({error})") from error
    if stored.dtype.kind == "f" and (fault := not_finite(stored)):
        raise UnreadableFileError(fault)
    steps = header["pixdim"][1 : 1 + min(stored.ndim, 3)]
    if not (np.isfinite(steps).all() and steps.all()):
        shown = ", ".join(f"{step:g}" for step in steps)
        raise UnreadableFileError(f"the header gives no voxel size (pixdim {shown})")
    return image, stored


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
    stored = load_nifti(path)[1].T
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
    """Hash of a file's bytes, or of the names and bytes of all files below a folder."""
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
