"""2D pictures (png, bmp, tif, jpg, gif), read as they are shown and written for nnU-Net.

nnU-Net's ``NaturalImage2DIO`` reads ``.png``, ``.bmp`` and ``.tif`` with ``skimage.io.imread`` and
takes the colours of a picture as channels. Where it reads other values than the file shows (see
:mod:`nnunet_semisup.headers.picture`), the picture is written anew. Masks are read more widely here
than nnU-Net would, because they are always written again with one value a pixel.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from nnunet_semisup.dataset_conversion.reading.scans import check_content
from nnunet_semisup.dataset_conversion.volume import (
    Geometry,
    UnreadableFileError,
    UnusableFileError,
    Volume,
)
from nnunet_semisup.headers import misreading
from nnunet_semisup.headers.picture import (
    TIF_ENDINGS,
    PictureHeader,
    not_depth,
    not_upright,
    read_picture_header,
    too_many_bits,
)
from nnunet_semisup.headers.tif_size import size_in_metadata
from nnunet_semisup.preparation.image_files import last_line

NNUNET_ENDINGS = (".png", ".bmp", ".tif")
ENDINGS = (*NNUNET_ENDINGS, ".tiff", ".jpg", ".jpeg", ".gif")
_COLOURS = (3, 4)


def read_picture(path: Path) -> Volume:
    """Read a picture: ``array`` of shape ``(y, x)`` or, with colours, ``(y, x, 3 or 4)``.

    Raises:
        UnreadableFileError: damaged or not a picture.
        UnusableFileError: stored rotated, or a PNG with 16 bits a colour.
    """
    header = _whole_header(path)
    try:
        if path.suffix.lower() in (".jpg", ".jpeg", ".gif"):
            array = _read_pillow(path)
        else:
            from skimage import io

            array = np.asarray(io.imread(str(path)))
    except UnreadableFileError:
        raise
    except Exception as error:  # every format's library raises its own
        raise _damaged(error) from error
    repaired = ""
    if header.white_is_zero:
        array, repaired = _inverted(array, header), "is stored with white as zero; it is turned"
    elif header.palette is not None:
        greys = header.greys
        array = (header.palette if greys is None else greys)[array]
        repaired = "holds indices into a palette; they are replaced by what they show"
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in _COLOURS):
        return Volume(array, picture_geometry(array), repaired)
    raise UnusableFileError(
        f"has the shape {array.shape}; a picture is (height, width) or (height, width, 3). Save it "
        "as one, or each channel as a file of its own, CASE_0000, CASE_0001 ..."
    )


def picture_components(path: Path) -> int:
    """Return the values a pixel of a picture by its header; 3 where that cannot be read."""
    try:
        with Image.open(path) as picture:
            return 3 if picture.mode == "P" else len(picture.getbands())
    except Exception:  # what is wrong is named when the picture is read
        return 3


def _whole_header(path: Path) -> PictureHeader:
    """Read the header of a picture that need not be turned and loses no bits."""
    check_content(path)
    try:
        header = read_picture_header(path)
    except Exception as error:  # every format's library raises its own
        raise _damaged(error) from error
    if fault := not_upright(header) or too_many_bits(header) or not_depth(header):
        raise UnusableFileError(fault)
    return header


def _inverted(array: np.ndarray, header: PictureHeader) -> np.ndarray:
    """Return the brightness that a picture with white as zero shows.

    TIFF 6.0 defines it for samples without sign alone.
    """
    if array.dtype == bool:
        return ~array
    if array.dtype.kind != "u":
        raise UnusableFileError(
            f"is stored with white as zero and as {array.dtype}, for which TIFF does not say what "
            "is white; save it with black as zero"
        )
    return (array.dtype.type((1 << header.bits) - 1) - array).astype(array.dtype)


def _read_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        _check_single(picture)
        return np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)


def read_mask(path: Path) -> Volume:
    """Read a mask with one value a pixel: ``array`` of shape ``(y, x)``.

    A palette of greys gives the greys, any other palette the indices into it. Three equal colours
    count as one value.

    Raises:
        UnreadableFileError: damaged, not a picture, several pictures, or in colour.
        UnusableFileError: stored rotated, or a PNG with 16 bits a colour.
    """
    header = _whole_header(path)
    is_tif = path.suffix.lower() in TIF_ENDINGS
    try:
        array = _read_tif(path) if is_tif else _read_mask_pillow(path)
    except UnreadableFileError:
        raise
    except Exception as error:  # every format's library raises its own
        raise _damaged(error) from error
    if header.white_is_zero:
        array = _inverted(array, header)
    elif header.greys is not None:
        array = header.greys[array]
    if array.ndim == 3 and array.shape[-1] in (2, *_COLOURS):
        array = _single_value(array)
    if array.ndim != 2:
        raise UnusableFileError(
            f"has the shape {array.shape}; a mask is (height, width). Save it as one"
        )
    if array.dtype == bool:
        array = array.astype(np.uint8)
    return Volume(np.ascontiguousarray(array), picture_geometry(array))


def read_as_nnunet(path: Path, is_label: bool = False) -> Volume:
    """Read a picture of a raw data set, which must be what nnU-Net's reader takes it for.

    Raises:
        UnreadableFileError: see :func:`read_picture`.
        UnusableFileError: nnU-Net reads other values than the picture shows.
    """
    if fault := misreading(path, is_label):
        raise UnusableFileError(fault)
    indices = is_label and _whole_header(path).palette is not None
    return read_mask(path) if indices else read_picture(path)


def read_stack_as_nnunet(path: Path) -> Volume:
    """Read a stack of a raw data set; see :func:`read_as_nnunet` and :func:`read_tif_stack`."""
    if fault := misreading(path):
        raise UnusableFileError(fault)
    return read_tif_stack(path)


def _read_tif(path: Path) -> np.ndarray:
    return np.asarray(tifffile.imread(path))


def _read_mask_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        _check_single(picture)
        if picture.mode == "P":
            indices = np.asarray(picture)
            colours = np.asarray(picture.getpalette("RGB")).reshape(-1, 3)
            grey = (colours == colours[:, :1]).all()
            return colours[:, 0].astype(np.uint8)[indices] if grey else indices
        return np.asarray(picture)


def _single_value(array: np.ndarray) -> np.ndarray:
    """Return the one value of a mask that was saved in colour."""
    colours = array[..., : 1 if array.shape[-1] == 2 else 3]
    if (colours != colours[..., :1]).any():
        number = len(np.unique(colours.reshape(-1, colours.shape[-1]), axis=0))
        raise UnusableFileError(
            f"is a mask in {number} colours; save it with one whole number a pixel"
        )
    return colours[..., 0]


_LIKE_THIS = 'for example {"spacing": [2.0, 0.5, 0.5]} (z, y, x in mm)'


def read_tif_stack(path: Path) -> Volume:
    """Read a 3D tif as nnU-Net's ``Tiff3DIO`` does: voxel size from the json file beside it.

    Raises:
        UnreadableFileError: damaged, not 3D, or without a usable json file.
    """
    header = _whole_header(path)
    try:
        array = _read_tif(path)
    except Exception as error:  # tifffile raises many kinds
        raise _damaged(error) from error
    if header.palette is not None:
        raise UnusableFileError("holds indices into a palette; save it without palette")
    if header.white_is_zero:
        array = _inverted(array, header)
    if array.ndim != 3:
        raise UnusableFileError(
            f"has {array.ndim} dimensions; a tif stack has 3. Save each channel as a file of its "
            "own, CASE_0000, CASE_0001 ..."
        )
    spacing = _stack_spacing(path)
    geometry = Geometry(
        array.shape[::-1], spacing[::-1], (0.0,) * 3, tuple(float(v) for v in np.eye(3).ravel())
    )
    return Volume(array, geometry)


def _stack_spacing(path: Path) -> tuple[float, ...]:
    """Read the voxel size in mm (z, y, x): ``CASE.json`` beside ``CASE.tif`` or its channels."""
    stem = path.name[: -len(path.suffix)]
    names = [f"{stem}.json", f"{stem[:-5]}.json"]
    for file in (path.with_name(name) for name in names):
        if file.is_file():
            try:
                spacing = tuple(
                    float(v) for v in json.loads(file.read_text(encoding="utf-8"))["spacing"]
                )
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise UnusableFileError(
                    f"{file.name} gives no voxel size ({error}); {_LIKE_THIS}"
                ) from error
            if len(spacing) == 3:
                return spacing
            raise UnusableFileError(f"{file.name} gives {len(spacing)} numbers; {_LIKE_THIS}")
    place = names[-1] if stem[-5:-4] == "_" else names[0]
    if found := size_in_metadata(path):
        told = json.dumps({"spacing": [float(f"{step:.6g}") for step in found]})
        raise UnusableFileError(
            f"nnU-Net reads the voxel size of a tif stack from a file beside it; write {place} "
            f"with {told}, which are the mm of its metadata (z, y, x)"
        )
    raise UnusableFileError(
        f"a tif stack holds no voxel size; write {place} beside it, {_LIKE_THIS}"
    )


def picture_geometry(array: np.ndarray) -> Geometry:
    """Return the geometry of a picture, which has no voxel size: 1 for both axes."""
    return Geometry((array.shape[1], array.shape[0]), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))


def _check_single(picture: Image.Image) -> None:
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise UnusableFileError(f"holds {frames} pictures; one is expected. Save it as one")


def _damaged(error: Exception) -> UnreadableFileError:
    return UnreadableFileError(f"damaged or not a picture ({last_line(error) or repr(error)})")
