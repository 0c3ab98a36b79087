"""DICOM series as volumes: one file a slice, read with GDCM through SimpleITK.

Slices are ordered by their position along the normal of the image plane (the cross product of the
row and the column direction), as GDCM does, never by file name or instance number, which need not
be consecutive. What would make the stack wrong without a word (a missing or repeated slice, a
tilted gantry, two series in one) is a fault. Each slice has its own rescale, as in PET and, from
some scanners, CT.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from nnunet_semisup.dataset_conversion.reading.dicom_kinds import Identity, Kind, identify, listed
from nnunet_semisup.dataset_conversion.reading.dicom_pixels import (
    INVERTED,
    in_common_type,
    read_pixels,
)
from nnunet_semisup.dataset_conversion.reading.volume import (
    Geometry,
    UnreadableFileError,
    UnusableFileError,
    Volume,
    check_content,
)

SUFFIXES = (".dcm", ".dicom", ".ima")
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
_SHOWN = 8
_AS_EXPORTED = "Take the files as they left the scanner or archive; some anonymisers lose it"


@dataclass(frozen=True)
class Series:
    """One series: the slices' files, sorted by path."""

    patient_id: str
    uid: str
    files: tuple[Path, ...]
    modality: str
    is_inverted: bool = False
    """Whether a slice says MONOCHROME1: low values are meant to be shown bright."""

    @property
    def folder(self) -> Path:
        """The folder of the files; with files in several, the one that holds all of these."""
        return Path(os.path.commonpath([file.parent for file in self.files]))


@dataclass(frozen=True)
class _Slice:
    """What the header of one file says; ``spacing`` is along x and y, ``size`` columns and rows."""

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


def find_series(
    folder: Path, faults: list[str], beside: list[Identity] | None = None
) -> list[Series]:
    """Find every DICOM series of slices below ``folder``, sorted by patient and by the first file.

    Args:
        folder: is searched at any depth; hidden files and files of other kinds are passed over.
        faults: receives a line for every slice that cannot be read.
        beside: receives the DICOM files that are no slices of a scan.
    """
    by_uid: dict[tuple[str, str], list[_Slice]] = {}
    failed: dict[tuple[Path, str], list[tuple[Path, Exception]]] = {}
    for path in dicom_files(folder):
        found = identify(path)
        if found.kind is not Kind.SLICE:
            if beside is not None:
                beside.append(found)
            continue
        try:
            header = _read_header(path)
        except UnreadableFileError as error:
            alike = path.parent if isinstance(error, UnusableFileError) else path
            failed.setdefault((alike, str(error)), []).append((path, error))
            continue
        by_uid.setdefault((header.patient_id, header.series), []).append(header)
    for (path, reason), *others in failed.values():
        more = f" and {len(others)} more files in that folder" if others else ""
        faults.append(fault_of(f"{path}{more}", reason))
    series = [
        Series(
            patient,
            uid,
            tuple(s.path for s in slices),
            slices[0].modality,
            any(s.photometric == INVERTED for s in slices),
        )
        for (patient, uid), slices in by_uid.items()
    ]
    return sorted(series, key=lambda series: (series.patient_id, series.files[0]))


def notes_on(folder: Path, series: Sequence[Series], beside: Sequence[Identity]) -> list[str]:
    """Say what the DICOM files in a folder are that need a look: passed over, or MONOCHROME1.

    Args:
        folder: that was searched.
        series: what :func:`find_series` found there.
        beside: the files that are no slices.
    """
    notes = []
    if beside:
        what = "are no slices of a scan and not used as images"
        notes.append(f"{len(beside)} DICOM files in {folder} {what}: {listed(beside)}")
    inverted = [str(s.folder) for s in series if s.is_inverted]
    if inverted:
        notes.append(
            f"{len(inverted)} of {len(series)} DICOM series in {folder} are stored as "
            f"{INVERTED}, to be shown with low values bright ({_listed(inverted)}). Values are "
            "written as they are stored, after the rescale; if they are no Hounsfield units, check "
            "that high values mean the same in all scans"
        )
    return notes


def read_dicom_folder(folder: Path) -> Volume:
    """Read the one series in ``folder``; see :func:`read_series`.

    Raises:
        UnreadableFileError: none or several series, a damaged file, or a faulty series.
    """
    faults: list[str] = []
    found = find_series(folder, faults)
    if faults:
        raise UnusableFileError("; ".join(faults))
    if len(found) != 1:
        raise UnusableFileError(
            f"the folder holds {len(found)} DICOM series; keep the one that is meant"
        )
    return read_series(found[0].files)


def read_series(files: Sequence[Path]) -> Volume:
    """Read the slices of one series in the order of their positions.

    Args:
        files: one file a slice, in any order.

    Returns:
        The volume after the rescale of the header, int16 where the values are whole numbers in its
        range (Hounsfield units of CT), else float32.

    Raises:
        UnreadableFileError: naming all that is wrong with the series.
    """
    slices = [_read_header(path) for path in files]
    faults = _series_faults(slices)
    if faults:
        raise UnusableFileError("; ".join(faults))
    row, column = (np.array(slices[0].orientation[i : i + 3]) for i in (0, 3))
    normal = np.cross(row, column)
    slices.sort(key=lambda s: float(np.dot(s.position, normal)))
    faults = _stack_faults(slices, normal)
    if faults:
        raise UnusableFileError("; ".join(faults))
    array = in_common_type(np.stack([read_pixels(s.path, s.photometric) for s in slices]))
    positions = np.array([s.position for s in slices])
    gap = float(np.linalg.norm(positions[-1] - positions[0])) / (len(slices) - 1)
    geometry = Geometry(
        size=(*slices[0].size, len(slices)),
        spacing=(*slices[0].spacing, gap),
        origin=slices[0].position,
        direction=tuple(float(v) for v in np.stack([row, column, normal], axis=1).ravel()),
    )
    return Volume(array, geometry)


def dicom_files(folder: Path) -> Iterable[Path]:
    """Yield the DICOM files below ``folder``."""
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "__")))
        for name in sorted(names):
            path = Path(parent) / name
            if name.startswith("."):
                continue
            if is_dicom(path):
                yield path


def fault_of(path: Path | str, error: Exception) -> str:
    """Return the line about a file that cannot be read, or not be used, with what to do."""
    if isinstance(error, UnusableFileError):
        return f"{path}: {error}"
    return f"{path}: cannot be read: {error}. Download or extract it again"


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its ending or the letters at byte 128, or a link to nothing."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return path.is_symlink()


def _read_header(path: Path) -> _Slice:
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
    return _Slice(
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
    """The finite numbers in a tag."""
    try:
        values = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        values = ()
    if len(values) != count or not np.isfinite(values).all():
        what = f"is {text!r}; {count} numbers are expected" if text else "is not in the header"
        raise UnusableFileError(f"{name} {what}. {_AS_EXPORTED}")
    return values


def _orientation(text: str) -> tuple[float, ...]:
    """Row and column direction, which must be perpendicular and of unit length."""
    values = _numbers(text, 6, "ImageOrientationPatient")
    row, column = np.array(values[:3]), np.array(values[3:])
    off = [np.dot(row, row) - 1, np.dot(column, column) - 1, np.dot(row, column)]
    if np.abs(off).max() > _ORIENTATION_TOLERANCE:
        raise UnusableFileError(
            f"ImageOrientationPatient is {text!r}; not two unit vectors. {_AS_EXPORTED}"
        )
    return values


def _series_faults(slices: Sequence[_Slice]) -> list[str]:
    """What keeps the files from being one series, whatever their order."""
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


_MUST_AGREE: dict[str, Callable[[_Slice], object]] = {
    "patient": lambda s: s.patient_id,
    "series": lambda s: s.series,
    "modality": lambda s: s.modality,
    "size": lambda s: s.size,
    "pixel spacing": lambda s: s.spacing,
    "orientation": lambda s: tuple(round(v, 3) + 0.0 for v in s.orientation),
}
"""What is equal in all slices of a series."""


def _number_faults(slices: Sequence[_Slice]) -> list[str]:
    """Instances that are repeated."""
    faults = []
    instances = Counter(s.instance for s in slices if s.instance)
    repeated = [uid for uid, count in instances.items() if count > 1]
    if repeated:
        paths = [s.path.name for s in slices if s.instance in repeated]
        faults.append(
            f"the same instance is there several times ({_listed(paths)}); keep one file of each"
        )
    numbers = [s.number for s in slices if s.number is not None]
    twice = sorted(n for n, count in Counter(numbers).items() if count > 1)
    if twice and not repeated:
        faults.append(
            f"instance numbers are there several times ({_listed(twice)}); keep the files of one "
            "scan in the folder"
        )
    return faults


def _stack_faults(slices: Sequence[_Slice], normal: np.ndarray) -> list[str]:
    """What is wrong with the distances of slices that are in order."""
    positions = np.array([s.position for s in slices])
    gaps = np.diff(positions @ normal)
    typical = float(np.median(gaps))
    if gaps.min() < max(_GAP_TOLERANCE * typical, 1e-4):
        same = [s.path.name for s, gap in zip(slices[1:], gaps, strict=True) if gap == gaps.min()]
        return [
            f"slices lie at the same position ({_listed(same)}); keep one file a position. Time "
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


def _missing_numbers(slices: Sequence[_Slice]) -> str:
    """The instance numbers that are not there, for a series that lacks slices."""
    known = {s.number for s in slices if s.number is not None}
    absent = (n for n in range(min(known, default=0), max(known, default=0)) if n not in known)
    named = [n for n, _ in zip(absent, range(_SHOWN + 1), strict=False)]
    return f" (instance numbers {_listed(named)})" if named else ""


def _listed(items: Sequence[object]) -> str:
    more = " ..." if len(items) > _SHOWN else ""
    return ", ".join(str(item) for item in items[:_SHOWN]) + more
