"""CT series written slice by slice with pydicom, element by element as DICOM PS3.3 defines them.

Positions and directions are those of the patient (LPS), PixelSpacing is row spacing, column
spacing, and a value is the stored one times RescaleSlope plus RescaleIntercept (C.11.1.1.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import apply_rescale
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from tests.formats.row import SPACING, Row

_HEAD_FIRST = (1, 0, 0, 0, 1, 0)
_OBLIQUE = (0.6, 0.8, 0, -0.8, 0.6, 0)


def write_series(
    path: Path,
    stored: np.ndarray,
    orientation: Sequence[float] = _HEAD_FIRST,
    rescale: tuple[float, float] = (1, 0),
    names_reversed: bool = False,
    photometric: str = "MONOCHROME2",
    bits: int = 16,
) -> None:
    """Write a folder with a file a slice; slice ``k`` lies at ``3 k`` mm along the normal."""
    path.mkdir()
    normal = np.cross(orientation[:3], orientation[3:])
    for k, pixels in enumerate(stored):
        made = Dataset()
        made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, f"1.2.826.9.{k + 1}"
        made.PatientID, made.Modality, made.InstanceNumber = "P1", "CT", k + 1
        made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.826.9.0.1", "1.2.826.9.0.2"
        made.ImagePositionPatient = [
            float(v) for v in np.array([5, -6, 7]) + SPACING[2] * k * normal
        ]
        made.ImageOrientationPatient = [float(v) for v in orientation]
        made.PixelSpacing = [SPACING[1], SPACING[0]]
        made.RescaleSlope, made.RescaleIntercept = rescale
        made.PhotometricInterpretation, made.SamplesPerPixel = photometric, 1
        made.Rows, made.Columns = pixels.shape
        made.BitsAllocated, made.BitsStored, made.HighBit = 16, bits, bits - 1
        made.PixelRepresentation = int(stored.dtype.kind == "i")
        made.PixelData = pixels.astype(stored.dtype.newbyteorder("<")).tobytes()
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        number = len(stored) - k if names_reversed else k + 1
        made.save_as(path / f"1-{number:03d}.dcm", enforce_file_format=True)


def read_values(path: Path) -> np.ndarray:
    """What pydicom gives: rescaled values of the slices along their normal."""
    slices = [dcmread(file) for file in path.iterdir()]
    orientation = [float(v) for v in slices[0].ImageOrientationPatient]
    normal = np.cross(orientation[:3], orientation[3:])
    slices.sort(key=lambda s: float(np.dot([float(v) for v in s.ImagePositionPatient], normal)))
    return np.stack([apply_rescale(s.pixel_array, s) for s in slices])


def _row(says: str, means: str = "", **options: Any) -> Row:
    fields = ("orientation", "rescale", "names_reversed", "photometric", "bits")
    how = {name: options.pop(name) for name in fields if name in options}
    orientation = np.reshape(how.get("orientation", _HEAD_FIRST), (2, 3)).astype(float)
    axes = np.stack([*orientation, np.cross(*orientation)], axis=1)
    return Row("DICOM", says, "", partial(write_series, **how), means, labels=False,
               by_nnunet=False, direction=tuple(map(tuple, axes)), **options)  # fmt: skip


def _scaled(slope: float, intercept: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda stored: stored.astype(np.float64) * slope + intercept


ROWS = [
    _row("16 bits with sign"),
    _row("16 bits without sign, intercept -1024", "v - 1024", dtype=np.uint16,
         rescale=(1, -1024), values=_scaled(1, -1024)),
    _row("12 of 16 bits stored", dtype=np.uint16, bits=12),
    _row("slope 0.5, intercept 10", "v / 2 + 10", rescale=(0.5, 10), values=_scaled(0.5, 10)),
    _row("file names against the positions", "the positions", names_reversed=True),
    _row("feet first", "normal down", orientation=(1, 0, 0, 0, -1, 0)),
    _row("oblique", orientation=_OBLIQUE),
]  # fmt: skip
