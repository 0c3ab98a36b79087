"""DICOM series as volumes: one file a slice, read with GDCM through SimpleITK.

Slices are ordered by their position along the normal of the image plane (the cross product of the
row and the column direction), as GDCM does, never by file name or instance number, which need not
be consecutive. What would make the stack wrong without a word (a missing or repeated slice, a
tilted gantry, two series in one) is a fault. Each slice has its own rescale, as in PET and, from
some scanners, CT.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_semisup.dataset_conversion.reading.dicom_kinds import (
    Identity,
    Kind,
    identify,
    named_objects,
)
from nnunet_semisup.dataset_conversion.reading.dicom_pixels import (
    INVERTED,
    in_common_type,
    read_pixels,
)
from nnunet_semisup.dataset_conversion.reading.dicom_slices import (
    Slice,
    read_slice,
    series_faults,
    shortened,
    stack_faults,
)
from nnunet_semisup.dataset_conversion.volume import (
    Geometry,
    UnreadableFileError,
    UnusableFileError,
    Volume,
)

SUFFIXES = (".dcm", ".dicom", ".ima")


@dataclass(frozen=True)
class Series:
    """Hold one series: the slices' files, sorted by path."""

    patient_id: str
    uid: str
    files: tuple[Path, ...]
    modality: str
    is_inverted: bool = False
    """Whether a slice says MONOCHROME1: low values are meant to be shown bright."""

    @property
    def folder(self) -> Path:
        """Return the folder of the files; with files in several, the one that holds them all."""
        return Path(os.path.commonpath([file.parent for file in self.files]))


def find_series(
    folder: Path, faults: list[str], beside: list[Identity] | None = None
) -> list[Series]:
    """Find every DICOM series of slices below ``folder``, sorted by patient and by the first file.

    Args:
        folder: is searched at any depth; hidden files and files of other kinds are passed over.
        faults: receives a line for every slice that cannot be read.
        beside: receives the DICOM files that are no slices of a scan.
    """
    by_uid: dict[tuple[str, str], list[Slice]] = {}
    failed: dict[tuple[Path, str], list[tuple[Path, Exception]]] = {}
    for path in dicom_files(folder):
        found = identify(path)
        if found.kind is not Kind.SLICE:
            if beside is not None:
                beside.append(found)
            continue
        try:
            header = read_slice(path)
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
        notes.append(f"{len(beside)} DICOM files in {folder} {what}: {named_objects(beside)}")
    inverted = [str(s.folder) for s in series if s.is_inverted]
    if inverted:
        notes.append(
            f"{len(inverted)} of {len(series)} DICOM series in {folder} are stored as "
            f"{INVERTED}, to be shown with low values bright ({shortened(inverted)}). Values are "
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
    slices = [read_slice(path) for path in files]
    faults = series_faults(slices)
    if faults:
        raise UnusableFileError("; ".join(faults))
    row, column = (np.array(slices[0].orientation[i : i + 3]) for i in (0, 3))
    normal = np.cross(row, column)
    slices.sort(key=lambda s: float(np.dot(s.position, normal)))
    faults = stack_faults(slices, normal)
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
    """Return whether a file is DICOM by ending or the letters at byte 128, or a link to nothing."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return path.is_symlink()
