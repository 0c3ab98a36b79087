"""Volumes and texts to files that appear complete or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses
import tifffile
from PIL import Image

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.dataset_conversion.reading.formats import VOLUME_ENDINGS, ending_of
from nnunet_semisup.dataset_conversion.reading.pictures import read_picture
from nnunet_semisup.dataset_conversion.reading.scans import load_nifti, quiet_itk, read_itk
from nnunet_semisup.dataset_conversion.volume import Geometry, UnreadableFileError, Volume
from nnunet_semisup.errors import UserError
from nnunet_semisup.headers.nifti import is_nifti
from nnunet_semisup.preparation.image_files import itk_header

TEMPORARY = ".tmp-"
"""How names of unfinished files begin, which a conversion that goes on removes."""


def holds_written(path: Path, volume: Volume) -> bool:
    """Return whether ``path``, a file of :func:`write_volume`, holds ``volume``."""
    try:
        if is_nifti(path):
            return nifti_holds(path, volume)
        found = read_itk(path) if ending_of(path) in VOLUME_ENDINGS else read_picture(path)
    except UnreadableFileError:
        return False
    return (
        volume.geometry.equals(found.geometry)
        and found.array.dtype == volume.array.dtype
        and np.array_equal(found.array, volume.array)
    )


def write_volume(volume: Volume, path: Path) -> None:
    """Write ``path`` atomically, as a picture or as a scan by its ending.

    Raises:
        UserError: the disk refuses.
    """
    if ending_of(path) in VOLUME_ENDINGS:
        write_scan(volume, path)
    else:
        write_picture(volume, path)


def nifti_holds(path: Path, volume: Volume) -> bool:
    """Return whether a file of :func:`write_scan` holds ``volume``; decompress it once.

    Raises:
        UnreadableFileError: the file is damaged.
    """
    stored = load_nifti(path).stored.T
    with quiet_itk():
        geometry = Geometry.of_itk(itk_header(path))
    return (
        volume.geometry.equals(geometry)
        and stored.dtype == volume.array.dtype
        and np.array_equal(stored, volume.array)
    )


def write_scan(volume: Volume, path: Path) -> None:
    """Write ``path`` (``.nii.gz``, ``.nrrd`` or ``.mha``) atomically and compressed.

    Equal volumes give equal bytes: the headers ITK writes hold neither a time nor a name.

    Raises:
        UserError: the disk refuses.
    """
    try:
        with atomic_path(path, TEMPORARY, ending_of(path) or "") as temporary:
            sitk.WriteImage(volume.to_itk(), str(temporary), useCompression=True)
    except (RuntimeError, OSError) as error:
        raise _unwritable(path, error) from error


def write_picture(volume: Volume, path: Path) -> None:
    """Write ``path`` (``.png``, ``.bmp`` or ``.tif``) atomically and without loss.

    Raises:
        UserError: the format cannot hold these values, or the disk refuses.
    """
    try:
        with atomic_path(path, TEMPORARY) as temporary:
            if path.suffix == ".tif":
                colours = "rgb" if volume.array.ndim == 3 else "minisblack"
                tifffile.imwrite(temporary, volume.array, photometric=colours, compression="zlib")
            else:
                Image.fromarray(volume.array).save(temporary)
    except (OSError, TypeError, ValueError) as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} cannot be written ({error}). Check the free space and the permissions; the "
        "same command continues where it stopped."
    )


def write_text(text: str, path: Path) -> None:
    """Write a text file atomically."""
    with atomic_path(path, TEMPORARY) as temporary:
        temporary.write_text(text, encoding="utf-8")
