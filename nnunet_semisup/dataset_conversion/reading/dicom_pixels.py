"""The values of one DICOM file, as the standard means them: stored value x slope + intercept."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from nnunet_semisup.dataset_conversion.volume import UnreadableFileError

INVERTED = "MONOCHROME1"


def read_pixels(path: Path, photometric: str) -> np.ndarray:
    """Read one slice.

    PhotometricInterpretation says how a value is to be shown, not what it is (DICOM PS3.3,
    C.7.6.3.1.2), and the rescale applies to the stored value (C.11.1.1.2). SimpleITK 2.5.7 inverts
    the stored values of MONOCHROME1 before the rescale, so that Hounsfield units come out mirrored;
    it is given a copy that says MONOCHROME2.

    Args:
        path: the file.
        photometric: its PhotometricInterpretation.

    Returns:
        The rescaled values: ``(rows, columns)``.

    Raises:
        UnreadableFileError: damaged.
    """
    try:
        if photometric != INVERTED:
            return _read(path)
        with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copy = pydicom.dcmread(path, force=True)
            copy.PhotometricInterpretation = "MONOCHROME2"
            copy.save_as(Path(scratch) / "slice.dcm")
            return _read(Path(scratch) / "slice.dcm")
    except OSError:
        raise
    except Exception as error:  # on damaged files pydicom raises many kinds
        raise UnreadableFileError(f"{path.name} is damaged or not a DICOM image") from error


def _read(path: Path) -> np.ndarray:
    image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
    return sitk.GetArrayFromImage(image).reshape(image.GetSize()[1], image.GetSize()[0])


def in_common_type(array: np.ndarray) -> np.ndarray:
    """Return the same values as int16 if that holds them, else as float32."""
    limits = np.iinfo(np.int16)
    whole = array.dtype.kind in "iu" or bool(np.equal(np.round(array), array).all())
    if whole and array.min() >= limits.min and array.max() <= limits.max:
        return array.astype(np.int16)
    return array.astype(np.float32)
