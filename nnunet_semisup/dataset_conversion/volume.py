"""Scans as an array with a geometry, whatever file they come from."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from nnunet_semisup.preparation.rules import RELATIVE_TOLERANCE, same_direction, same_spacing


class UnreadableFileError(ValueError):
    """Report a file that cannot be read as a scan; the message says why in words."""


class UnusableFileError(UnreadableFileError):
    """Report a sound file that cannot be used; the message says why, and what to do instead."""


@dataclass(frozen=True)
class Geometry:
    """Say where voxels lie, in ITK's convention: axes x, y, z, millimetres, LPS."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of_itk(cls, image: sitk.Image | sitk.ImageFileReader) -> Geometry:
        """Return the geometry of an image of SimpleITK, or of a header that its reader has read."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def mismatches(self, other: Geometry) -> list[str]:
        """Return what differs beyond tolerance among size, spacing, direction (origin is apart)."""
        if self.size != other.size:
            return [f"size {self.size} and {other.size}"]
        found = []
        if not same_spacing(self.spacing, other.spacing):
            found.append(f"spacing {self.spacing} and {other.spacing}")
        if not same_direction(self.direction, other.direction):
            found.append(f"direction {self.direction} and {other.direction}")
        return found

    def same_origin(self, other: Geometry) -> bool:
        """Return whether origins agree to a thousandth of a voxel, or to the 32 bits of NIfTI's."""
        farthest = max(map(abs, self.origin))
        tolerance = max(
            RELATIVE_TOLERANCE * min(self.spacing), 4 * float(np.finfo(np.float32).eps) * farthest
        )
        return bool(np.allclose(self.origin, other.origin, rtol=0, atol=tolerance))

    def equals(self, other: Geometry) -> bool:
        """Return whether everything agrees within tolerance."""
        return not self.mismatches(other) and self.same_origin(other)


@dataclass(frozen=True)
class Volume:
    """Hold a scan: ``array`` of shape ``(z, y, x)`` (SimpleITK's order) and its geometry.

    Pictures are ``(y, x)``. Files with several values a voxel, such as colour photographs, have
    them on one more axis at the end.

    ``repaired`` says in words what nnU-Net would read otherwise from the same file, which then
    must be written anew; empty if nothing.
    """

    array: np.ndarray
    geometry: Geometry
    repaired: str = ""

    def to_itk(self) -> sitk.Image:
        """Return the scan as an image of SimpleITK."""
        image = sitk.GetImageFromArray(self.array)
        image.SetSpacing(self.geometry.spacing)
        image.SetOrigin(self.geometry.origin)
        image.SetDirection(self.geometry.direction)
        return image

    @property
    def components(self) -> int:
        """Return the number of values a voxel."""
        return math.prod(self.array.shape[len(self.geometry.size) :])

    @property
    def grey(self) -> np.ndarray:
        """Return one value a voxel: the mean of several."""
        extra = tuple(range(len(self.geometry.size), self.array.ndim))
        return self.array.mean(axis=extra, dtype=np.float32) if extra else self.array

    @property
    def channels(self) -> list[np.ndarray]:
        """Return one array of the scan's dimensions for each value of a voxel."""
        each = self.array.reshape(*self.array.shape[: len(self.geometry.size)], -1)
        return list(np.moveaxis(each, -1, 0))


def oriented(volume: Volume, code: str = "LPS") -> Volume:
    """Turn a scan's axes to the order and direction of ``code``, by mirroring and swapping.

    Args:
        volume: three-dimensional; any other is returned as it is.
        code: letters of the directions that x, y and z point to, as in ITK's ``DICOMOrient``.
    """
    if len(volume.geometry.size) != 3:
        return volume
    turned = sitk.DICOMOrient(volume.to_itk(), code)
    return Volume(sitk.GetArrayFromImage(turned), Geometry.of_itk(turned))


def array_sha256(array: np.ndarray) -> str:
    """Hash of shape, data type and voxels; equal for equal arrays whatever their memory layout."""
    contiguous = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{contiguous.shape} {contiguous.dtype.str}".encode())
    digest.update(contiguous.data)
    return digest.hexdigest()
