"""Kinds of DICOM files: a slice of a scan, or one of the objects that lie beside scans.

The SOP class says it (DICOM PS3.4, annex B.5); a localiser has the SOP class of a slice and says it
in ImageType (PS3.3, C.8.2.1.1.1). GDCM, and so SimpleITK 2.5.7, cannot open objects without pixels,
such as RTSTRUCT and reports, and calls them no images.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pydicom
from pydicom.uid import UID

_ROOT = "1.2.840.10008.5.1.4.1.1."
_SHOWN = 3


class Kind(Enum):
    """Tell apart what is treated differently; the value names several of a kind."""

    SLICE = "slices"
    SEGMENTATION = "DICOM SEG (segmentations)"
    CONTOURS = "RTSTRUCT (contours)"
    DOSE = "RTDOSE (doses)"
    REPORT = "reports (SR)"
    PRESENTATION = "presentation states"
    LOCALIZER = "localisers"
    PICTURE = "radiographs or other single pictures"
    OTHER = "other objects"


_KINDS = {
    **dict.fromkeys(("1", "12", "13.1.4", "13.1.5", "14", "77", "481.1", "481.23"), Kind.PICTURE),
    **dict.fromkeys(("66.4", "66.7"), Kind.SEGMENTATION),
    **dict.fromkeys(("3", "9", "66", "67", "68", "104", "481"), Kind.OTHER),
    "11": Kind.PRESENTATION,
    "88": Kind.REPORT,
    "481.2": Kind.DOSE,
    "481.3": Kind.CONTOURS,
}
"""By the beginning of the SOP class after :data:`_ROOT`, of which the longest counts."""

_PICTURE_WITHOUT_POSITION = ("6", "6.1", "7")
"""Ultrasound and secondary capture, which may also be slices."""

ADVICE = {
    Kind.SEGMENTATION: "Segmentations are labels: give their folder by --labels, and that of the "
    "scans by --images",
    Kind.CONTOURS: "Contours must be turned into masks first, for example with 3D Slicer (the "
    "extension SlicerRT) or `plastimatch convert`; one mask file a structure, in a folder a case, "
    "is read",
    Kind.PICTURE: "A radiograph is one picture and no slice of a scan. Save each as .png or .tif "
    "with all its grey values, for example with ImageJ or DCMTK's dcm2img, and give the folder of "
    "these: pictures are converted, and trained in 2d",
}
"""What to do where objects of a kind are all that there is."""
_NO_SCAN = "These are no scans: give the folder that has the series of slices"


@dataclass(frozen=True)
class Identity:
    """Hold what a DICOM file is; ``name`` is the standard's for its SOP class, if known."""

    path: Path
    kind: Kind
    name: str
    patient_id: str


def identify(path: Path) -> Identity:
    """Return what a DICOM file is.

    Args:
        path: the file; of its content only a few elements before the pixels are read.

    Returns:
        Its identity. What cannot be read, or does not say what it is, counts as a slice, so that
        reading it as one says what is wrong.
    """
    tags = ["SOPClassUID", "ImageType", "PatientID", "ImagePositionPatient"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=tags)
            meta = header.file_meta.get("MediaStorageSOPClassUID", "")
            uid = UID(str(header.get("SOPClassUID") or meta or ""))
            patient = str(header.get("PatientID") or "")
            is_localizer = "LOCALIZER" in _texts(header.get("ImageType"))
            has_position = bool(header.get("ImagePositionPatient"))
    except Exception:  # on damaged files pydicom raises many kinds
        return Identity(path, Kind.SLICE, "", "")
    kind = _kind_of(uid, has_position)
    if kind is Kind.SLICE and is_localizer:
        kind = Kind.LOCALIZER
    return Identity(path, kind, uid.name, patient)


def _texts(value: object) -> list[str]:
    if value is None or isinstance(value, str):
        return [value or ""]
    return [str(part).strip() for part in value] if isinstance(value, Sequence) else []


def _kind_of(uid: UID, has_position: bool) -> Kind:
    """Return the kind of a SOP class; one that is unknown is taken for slices."""
    tail = uid.removeprefix(_ROOT)
    if uid.startswith(_ROOT):
        parts = tail.split(".")
        for end in range(len(parts), 0, -1):
            if kind := _KINDS.get(".".join(parts[:end])):
                return kind
        if tail in _PICTURE_WITHOUT_POSITION and not has_position:
            return Kind.PICTURE
    known = uid.name != str(uid)
    return Kind.OTHER if known and "Image" not in uid.name else Kind.SLICE


def named_objects(objects: Iterable[Identity]) -> str:
    """Return the objects as text, by kind, with the number and the first few paths of each."""
    groups: dict[str, list[str]] = {}
    for found in objects:
        name = found.kind.value
        if found.kind in (Kind.OTHER, Kind.PICTURE):
            name = f"{name} ({found.name.removesuffix(' Storage')})"
        groups.setdefault(name, []).append(str(found.path))
    return "; ".join(
        f"{len(paths)} {name}: {', '.join(paths[:_SHOWN])}{' ...' * (len(paths) > _SHOWN)}"
        for name, paths in groups.items()
    )


def without_scan(objects: Sequence[Identity]) -> str:
    """Return what to do where ``objects`` are all that there is, once for each kind."""
    return ". ".join(dict.fromkeys(ADVICE.get(found.kind, _NO_SCAN) for found in objects))
