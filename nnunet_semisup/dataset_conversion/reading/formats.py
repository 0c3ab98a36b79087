"""Readers of images and labels by the ending of the file's name."""

from __future__ import annotations

from pathlib import Path

from nnunet_semisup.dataset_conversion.reading.label_names import in_one_layer
from nnunet_semisup.dataset_conversion.reading.pictures import ENDINGS as PICTURE_ENDINGS
from nnunet_semisup.dataset_conversion.reading.pictures import (
    read_mask,
    read_picture,
    read_tif_stack,
)
from nnunet_semisup.dataset_conversion.reading.scans import read_itk
from nnunet_semisup.dataset_conversion.volume import UnreadableFileError, Volume

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl.gz", ".gipl")
ENDINGS = (*VOLUME_ENDINGS, *PICTURE_ENDINGS)


def ending_of(path: Path) -> str | None:
    """Return the known ending of a file's name, in lower case; ``None`` for other files."""
    name = path.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def read_image(path: Path) -> Volume:
    """Read an image of any known format; ``.tif`` is a picture or, with several pages, a stack.

    Raises:
        UnreadableFileError: damaged, or of no known format.
    """
    return _read(path, is_mask=False)


def read_label(path: Path) -> Volume:
    """Read a label of any known format; segments in layers become one layer.

    Raises:
        UnreadableFileError: see :func:`read_image`.
        UnusableFileError: see :func:`in_one_layer`.
    """
    return _read(path, is_mask=True)


def _read(path: Path, is_mask: bool) -> Volume:
    ending = ending_of(path)
    if ending is None:
        raise UnreadableFileError(f"not one of the known formats ({', '.join(ENDINGS)})")
    if ending in VOLUME_ENDINGS:
        return in_one_layer(read_itk(path), path) if is_mask else read_itk(path)
    if ending in (".tif", ".tiff") and is_tif_stack(path):
        return read_tif_stack(path)
    return read_mask(path) if is_mask else read_picture(path)


def is_tif_stack(path: Path) -> bool:
    """Return whether a tif holds a 3D stack; files that cannot be opened count as pictures."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            return series.ndim == 3 and "S" not in series.axes
    except Exception:  # tifffile raises many kinds; reading the picture will say what is wrong
        return False
