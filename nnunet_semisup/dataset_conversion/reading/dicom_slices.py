"""Slices of a DICOM series by their headers, and what keeps them from being one volume."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from nnunet_semisup.dataset_conversion.reading.scans import check_content
from nnunet_semisup.dataset_conversion.volume import UnreadableFileError, UnusableFileError

_TAGS = {
    "modality": "0008|0060",
    "instance": "0008|0018",
    "patient_id": "0010|0020",
    "series": "0020|000e",
    "number": "0020|0013",
    "position": "0020|0032",
    "orientation": "0020|0037",
    "photometric": "0028|0004",
    "spacing": "0028|0030",
    "intercept": "0028|1052",
    "slope": "0028|1053",
}
_ORIENTATION_TOLERANCE = 1e-3
_GAP_TOLERANCE = 0.02
"""Share of the slice distance by which single distances may differ from it."""
ROUNDING_MM = 0.011
"""Positions are often written with two decimals."""
_AS_EXPORTED = "Take the files as they left the scanner or archive; some anonymisers lose it"
_SHOWN = 8


@dataclass(frozen=True)
class Slice:
    """Hold a header; ``spacing`` is along x and y, ``size`` columns and rows."""

    path: Path
    patient_id: str
    series: str
    instance: str
    modality: str
    number: int | None
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    photometric: str
    size: tuple[int, ...]


def read_slice(path: Path) -> Slice:
    """Read the tags of one file.

    Raises:
        UnreadableFileError: damaged, or not DICOM.
        UnusableFileError: not one grey-value slice, or without place or voxel size.
    """
    check_content(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        tags = {
            name: reader.GetMetaData(tag).strip(" \0") if reader.HasMetaDataKey(tag) else ""
            for name, tag in _TAGS.items()
        }
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
    except (RuntimeError, UnicodeDecodeError) as error:
        raise UnreadableFileError("damaged or not a DICOM image") from error
    if components != 1:
        raise UnusableFileError(
            f"has {components} colour components; grey values are expected. If it is a picture for "
            "reading, such as a colour map, move it away"
        )
    if len(size) > 2 and size[2] != 1:
        raise UnusableFileError(
            f"holds {size[2]} frames in one file; convert all scans to NIfTI first, for example "
            "with dcm2niix, and give the result"
        )
    for name, default in (("slope", "1"), ("intercept", "0")):
        _numbers(tags[name] or default, 1, f"Rescale{name.capitalize()}")
    rows_columns = _numbers(tags["spacing"], 2, "PixelSpacing")
    if min(rows_columns) <= 0:
        raise UnusableFileError(
            f"PixelSpacing is {tags['spacing']!r}; it must be above 0. {_AS_EXPORTED}"
        )
    return Slice(
        path=path,
        patient_id=tags["patient_id"],
        series=tags["series"],
        instance=tags["instance"],
        modality=tags["modality"],
        number=int(tags["number"]) if re.fullmatch(r"[+-]?[0-9]+", tags["number"]) else None,
        position=_numbers(tags["position"], 3, "ImagePositionPatient"),
        orientation=_orientation(tags["orientation"]),
        spacing=rows_columns[::-1],
        photometric=tags["photometric"],
        size=tuple(size[:2]),
    )


def _numbers(text: str, count: int, name: str) -> tuple[float, ...]:
    """Read the finite numbers in a tag."""
    try:
        values = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        values = ()
    if len(values) != count or not np.isfinite(values).all():
        what = f"is {text!r}; {count} numbers are expected" if text else "is not in the header"
        raise UnusableFileError(f"{name} {what}. {_AS_EXPORTED}")
    return values


def _orientation(text: str) -> tuple[float, ...]:
    """Read row and column direction, which must be perpendicular and of unit length."""
    values = _numbers(text, 6, "ImageOrientationPatient")
    row, column = np.array(values[:3]), np.array(values[3:])
    off = [np.dot(row, row) - 1, np.dot(column, column) - 1, np.dot(row, column)]
    if np.abs(off).max() > _ORIENTATION_TOLERANCE:
        raise UnusableFileError(
            f"ImageOrientationPatient is {text!r}; not two unit vectors. {_AS_EXPORTED}"
        )
    return values


def series_faults(slices: Sequence[Slice]) -> list[str]:
    """Return what keeps the files from being one series, whatever their order."""
    if len(slices) < 2:
        return [
            f"the series has {len(slices)} slices; a volume has 2 or more. Get the rest of the "
            "series, or move it away"
        ]
    faults = []
    for title, value in _MUST_AGREE.items():
        different = list(dict.fromkeys(value(s) for s in slices))
        if len(different) > 1:
            shown = ", ".join(str(v) for v in different[:_SHOWN])
            faults.append(
                f"the slices differ in {title} ({shown}); keep those of one scan in the folder"
            )
    return faults + _number_faults(slices)


_MUST_AGREE: dict[str, Callable[[Slice], object]] = {
    "patient": lambda s: s.patient_id,
    "series": lambda s: s.series,
    "modality": lambda s: s.modality,
    "size": lambda s: s.size,
    "pixel spacing": lambda s: s.spacing,
    "orientation": lambda s: tuple(round(v, 3) + 0.0 for v in s.orientation),
}
"""What is equal in all slices of a series."""


def _number_faults(slices: Sequence[Slice]) -> list[str]:
    """Name instances that are repeated."""
    faults = []
    instances = Counter(s.instance for s in slices if s.instance)
    repeated = [uid for uid, count in instances.items() if count > 1]
    if repeated:
        paths = [s.path.name for s in slices if s.instance in repeated]
        faults.append(
            f"the same instance is there several times ({shortened(paths)}); keep one file of each"
        )
    numbers = [s.number for s in slices if s.number is not None]
    twice = sorted(n for n, count in Counter(numbers).items() if count > 1)
    if twice and not repeated:
        faults.append(
            f"instance numbers are there several times ({shortened(twice)}); keep the files of one "
            "scan in the folder"
        )
    return faults


def stack_faults(slices: Sequence[Slice], normal: np.ndarray) -> list[str]:
    """Return what is wrong with the distances of slices that are in order."""
    positions = np.array([s.position for s in slices])
    gaps = np.diff(positions @ normal)
    typical = float(np.median(gaps))
    if gaps.min() < max(_GAP_TOLERANCE * typical, 1e-4):
        same = [s.path.name for s, gap in zip(slices[1:], gaps, strict=True) if gap == gaps.min()]
        return [
            f"slices lie at the same position ({shortened(same)}); keep one file a position. Time "
            "points and echoes are scans of their own"
        ]
    faults = []
    if np.abs(gaps - typical).max() > _GAP_TOLERANCE * typical + ROUNDING_MM:
        faults.append(
            f"the slice distance is not constant: {gaps.min():g} to {gaps.max():g} mm, so slices "
            f"are missing{_missing_numbers(slices)}. Download or extract the series again"
        )
    sideways = positions - positions[0] - np.outer((positions - positions[0]) @ normal, normal)
    shift = float(np.linalg.norm(sideways, axis=1).max())
    if shift > _GAP_TOLERANCE * typical + 2 * ROUNDING_MM:
        faults.append(
            f"the slices are shifted sideways by up to {shift:g} mm (a tilted gantry); such a "
            "stack is no rectangular grid. dcm2niix straightens it: convert all series with it, "
            "and give the NIfTI files"
        )
    return faults


def _missing_numbers(slices: Sequence[Slice]) -> str:
    """Return the instance numbers that are not there, for a series that lacks slices."""
    known = {s.number for s in slices if s.number is not None}
    absent = (n for n in range(min(known, default=0), max(known, default=0)) if n not in known)
    named = [n for n, _ in zip(absent, range(_SHOWN + 1), strict=False)]
    return f" (instance numbers {shortened(named)})" if named else ""


def shortened(items: Sequence[object]) -> str:
    """Return the first few items as text."""
    more = " ..." if len(items) > _SHOWN else ""
    return ", ".join(str(item) for item in items[:_SHOWN]) + more
