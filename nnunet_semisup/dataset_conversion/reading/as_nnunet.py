"""Scans of a raw data set, read as the reader that nnU-Net chooses for it reads them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import io_orientation

from nnunet_semisup.dataset_conversion.reading.scans import load_nifti, read_itk
from nnunet_semisup.dataset_conversion.volume import (
    Geometry,
    UnreadableFileError,
    UnusableFileError,
    Volume,
    oriented,
)
from nnunet_semisup.headers.nifti import is_nifti
from nnunet_semisup.preparation.image_files import itk_header

_LPS = np.array([-1.0, -1.0, 1.0])
"""From nibabel's world axes (right, anterior, superior) to ITK's."""


def scan_reader(content: Mapping[str, Any], example: Path | None) -> Callable[[Path], Volume]:
    """Return the function that reads the scans of a data set.

    nnU-Net takes the reader that ``dataset.json`` names, or else the first that knows the file
    ending and can read the first training image: NIfTI files that ITK refuses go to nibabel.

    Args:
        content: of ``dataset.json``.
        example: the first training image.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    chosen = determine_reader_writer_from_dataset_json(dict(content), verbose=False).__name__
    named = content.get("overwrite_image_reader_writer") == chosen
    if chosen == "SimpleITKIO" and not named and _needs_nibabel(example):
        return read_nibabel
    readers = {
        "NibabelIO": read_nibabel,
        "NibabelIOWithReorient": read_nibabel_reoriented,
        "SimpleITKIOWithReorient": read_itk_reoriented,
    }
    return readers.get(chosen, read_itk_channels)


def _needs_nibabel(example: Path | None) -> bool:
    """Return whether a NIfTI file is sound and only ITK refuses it."""
    if example is None or not is_nifti(example):
        return False
    try:
        itk_header(example)
    except RuntimeError:
        with contextlib.suppress(UnreadableFileError, OSError):
            return read_nibabel(example).array.ndim == 3
    return False


def by_nibabel(reader: Callable[[Path], Volume]) -> bool:
    """Return whether a :func:`scan_reader` takes the geometry from nibabel, not from ITK."""
    return reader in (read_nibabel, read_nibabel_reoriented)


def has_channel_axis(path: Path) -> bool:
    """Return whether a file has a fourth dimension; one that cannot be read has none."""
    with contextlib.suppress(UnreadableFileError, OSError):
        return len(read_itk(path).geometry.size) == 4
    return False


def read_itk_channels(path: Path) -> Volume:
    """Read a file as nnU-Net's ``SimpleITKIO`` does: a fourth dimension is that of the channels.

    Raises:
        UnreadableFileError: see :func:`read_itk`.
    """
    volume = read_itk(path)
    geometry = volume.geometry
    if len(geometry.size) != 4 or volume.array.ndim != 4:
        return volume
    direction = np.reshape(geometry.direction, (4, 4))[:3, :3]
    return Volume(
        np.moveaxis(volume.array, 0, -1),
        Geometry(
            geometry.size[:3],
            geometry.spacing[:3],
            geometry.origin[:3],
            tuple(float(cosine) for cosine in direction.ravel()),
        ),
    )


def read_itk_reoriented(path: Path) -> Volume:
    """Read a file as nnU-Net's ``SimpleITKIOWithReorient`` does.

    Raises:
        UnreadableFileError: see :func:`read_itk`.
    """
    return oriented(read_itk(path), "RAS")


def read_nibabel(path: Path) -> Volume:
    """Read a file as nnU-Net's ``NibabelIO`` does, which accepts sheared axes.

    Raises:
        UnreadableFileError: zero bytes, damaged, or not NIfTI.
    """
    return _from_nibabel(path, lambda image: image)


def read_nibabel_reoriented(path: Path) -> Volume:
    """Read a file as nnU-Net's ``NibabelIOWithReorient`` does.

    Raises:
        UnreadableFileError: zero bytes, damaged, or not NIfTI.
    """
    return _from_nibabel(path, lambda image: image.as_reoriented(io_orientation(image.affine)))


def _from_nibabel(
    path: Path, turned: Callable[[nibabel.Nifti1Image], nibabel.Nifti1Image]
) -> Volume:
    """Return the voxels after ``turned``, with the affine as a geometry in ITK's convention."""
    loaded = load_nifti(path, by_nibabel=True)
    image, stored, factor = loaded.image, loaded.stored, loaded.header.factor
    if stored.dtype.kind not in "biuf":
        raise UnusableFileError(
            f"does not hold one number a voxel ({stored.dtype}); save each as a file of its own"
        )
    if stored.ndim != 3:
        unit = tuple(float(value) for value in np.eye(stored.ndim).ravel())
        steps = (1.0,) * stored.ndim
        return Volume(stored.T, Geometry(stored.shape, steps, (0.0,) * stored.ndim, unit))
    try:
        image = turned(type(image)(stored, image.affine, image.header))
        stored = np.asanyarray(image.dataobj)
    except Exception as error:  # on damaged affines nibabel raises many kinds
        raise UnreadableFileError(f"damaged or not a NIfTI file ({error})") from error
    axes = image.affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    direction = _LPS[:, None] * axes / np.where(lengths > 0, lengths, 1)
    geometry = Geometry(
        stored.shape,
        tuple(float(step) * factor for step in image.header.get_zooms()[:3]),
        tuple(float(value) * factor for value in _LPS * image.affine[:3, 3]),
        tuple(float(cosine) for cosine in direction.ravel()),
    )
    return Volume(stored.T.astype(stored.dtype.newbyteorder("="), copy=False), geometry)
