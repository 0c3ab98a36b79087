"""Which file is read and written how, by its ending."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nnunet_semisup.dataset_conversion.reading.label_names import in_one_layer
from nnunet_semisup.dataset_conversion.reading.pictures import (
    ENDINGS as PICTURE_ENDINGS,
)
from nnunet_semisup.dataset_conversion.reading.pictures import (
    read_mask,
    read_picture,
    read_tif_stack,
    write_picture,
)
from nnunet_semisup.dataset_conversion.reading.volume import (
    UnreadableFileError,
    Volume,
    nifti_holds,
    read_itk,
    write_nifti,
)

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl.gz", ".gipl")
ENDINGS = (*VOLUME_ENDINGS, *PICTURE_ENDINGS)


def ending_of(path: Path) -> str | None:
    """The known ending of a file's name, in lower case; ``None`` for other files."""
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
    """Whether a tif holds a 3D stack; files that cannot be opened count as pictures."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            return series.ndim == 3 and "S" not in series.axes
    except Exception:  # tifffile raises many kinds; reading the picture will say what is wrong
        return False


def holds_copy(path: Path, volume: Volume) -> bool:
    """Whether ``path``, a copy of or a link to a source, is read as ``volume``."""
    try:
        found = read_itk(path) if ending_of(path) in VOLUME_ENDINGS else read_picture(path)
    except UnreadableFileError:
        return False
    return _is_same(found, volume)


def holds_written(path: Path, volume: Volume) -> bool:
    """Whether ``path``, a file of :func:`write_volume`, holds ``volume``."""
    try:
        if ending_of(path) in VOLUME_ENDINGS:
            return nifti_holds(path, volume)
        return _is_same(read_picture(path), volume)
    except UnreadableFileError:
        return False


def _is_same(found: Volume, wanted: Volume) -> bool:
    return (
        wanted.geometry.equals(found.geometry)
        and found.array.dtype == wanted.array.dtype
        and np.array_equal(found.array, wanted.array)
    )


def write_volume(volume: Volume, path: Path) -> None:
    """Write ``path`` atomically, as a picture or as NIfTI by its ending.

    Raises:
        UserError: the disk refuses.
    """
    if ending_of(path) in VOLUME_ENDINGS:
        write_nifti(volume, path)
    else:
        write_picture(volume, path)
