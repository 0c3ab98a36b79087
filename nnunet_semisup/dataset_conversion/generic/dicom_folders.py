"""DICOM in a user's own folders: series of slices as images, DICOM SEG and series as labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_semisup.dataset_conversion.findings import Findings
from nnunet_semisup.dataset_conversion.reading.dicom import Series, find_series, notes_on
from nnunet_semisup.dataset_conversion.reading.dicom_kinds import (
    Identity,
    Kind,
    named_objects,
    without_scan,
)
from nnunet_semisup.dataset_conversion.reading.dicom_seg import need_highdicom
from nnunet_semisup.preparation.raw import composed

_SHOWN = 5


def list_series(
    folder: Path, labels: Collection[str], findings: Findings, apart: Sequence[Path] = ()
) -> dict[str, Path]:
    """Find the DICOM series below ``folder``, one a case.

    A case is named after the folder that lies directly in ``folder``, or after the patient's id
    where more labels fit that. Files that are no slices are passed over with a note where there is
    a series of their patient or beside them in the case's folder; elsewhere they are faults.

    Args:
        folder: is searched at any depth.
        labels: cases with a label.
        findings: where to put what is wrong.
        apart: folders of another use, which may lie in ``folder``.
    """
    beside: list[Identity] = []
    found = [
        series
        for series in find_series(folder, findings.faults, beside)
        if not any(series.folder.resolve().is_relative_to(other.resolve()) for other in apart)
    ]
    findings.warnings += notes_on(folder, found, beside)
    patients = {series.patient_id for series in found}
    tops = {_top(folder, series.folder) for series in found}
    alone = [
        other
        for other in beside
        if other.patient_id not in patients
        and _top(folder, other.path) not in tops
        and (other.kind is not Kind.OTHER or not found)
    ]
    if alone:
        findings.faults.append(
            f"{folder} has DICOM files without a series of slices beside them, "
            f"{named_objects(alone)}. {without_scan(alone)}"
        )
    named = _by_name(folder, ((s.folder, s.patient_id) for s in found))
    return _single(_fitting(named, labels), "series", findings)


def _top(folder: Path, path: Path) -> str:
    """Return the name of what lies directly in ``folder`` and holds ``path``."""
    relative = path.relative_to(folder)
    return composed(Path(relative.parts[0] if relative.parts else path.name).name)


def _by_name(folder: Path, places: Iterable[tuple[Path, str]]) -> dict[str, dict[str, list[Path]]]:
    """Return the paths by case, named after the folder and after the patient."""
    named: dict[str, dict[str, list[Path]]] = {"folder": {}, "patient": {}}
    for path, patient in places:
        top = _top(folder, path)
        if path.is_file():
            top = top.removesuffix(path.suffix) if path.parent == folder else top
        for kind, case in (("folder", top), ("patient", patient)):
            named[kind].setdefault(case, []).append(path)
    return named


def _fitting(
    named: Mapping[str, Mapping[str, list[Path]]], cases: Collection[str]
) -> Mapping[str, list[Path]]:
    """Choose of both ways to name the one that fits more of ``cases``."""
    return named[max(named, key=lambda kind: len(named[kind].keys() & set(cases)))]


def _single(found: Mapping[str, Sequence[Path]], what: str, findings: Findings) -> dict[str, Path]:
    """Return the one path of every case; several are a fault."""
    single = {}
    for case, paths in found.items():
        if len(paths) > 1:
            shown = ", ".join(map(str, paths[:_SHOWN])) + " ..." * (len(paths) > _SHOWN)
            findings.faults.append(
                f"case {case}: has {len(paths)} DICOM {what} ({shown}); keep the one that is meant"
            )
        else:
            single[case] = paths[0]
    return single


@dataclass
class DicomLabels:
    """Hold labels in DICOM below a folder; ``named`` has paths by both ways to name a case."""

    named: dict[str, dict[str, list[Path]]] = field(default_factory=dict)
    what: str = ""

    def names(self) -> set[str]:
        """Return every name that a case with a label may have."""
        return {case for cases in self.named.values() for case in cases}

    def of(self, images: Collection[str], findings: Findings) -> dict[str, Path]:
        """Return the label of every case, named as most of ``images`` are."""
        return _single(_fitting(self.named, images), self.what, findings) if self.named else {}


def find_labels(folder: Path, images: Path, findings: Findings) -> DicomLabels:
    """Find labels in DICOM below ``folder``: DICOM SEG, else series of slices.

    Args:
        folder: is searched at any depth.
        images: folder of the images; series in it are no labels.
        findings: receives a fault where the labels are contours.

    Raises:
        UserError: DICOM SEG cannot be read, because highdicom is not installed.
    """
    beside: list[Identity] = []
    faults: list[str] = []
    series: list[Series] = find_series(folder, faults, beside)
    segmentations = [other for other in beside if other.kind is Kind.SEGMENTATION]
    if segmentations:
        need_highdicom()
        places = [(other.path, other.patient_id) for other in segmentations]
        return DicomLabels(_by_name(folder, places), "SEG")
    contours = [other for other in beside if other.kind is Kind.CONTOURS]
    if contours:
        findings.faults.append(f"{folder} has {named_objects(contours)}. {without_scan(contours)}")
        return DicomLabels()
    if not series or folder.resolve() == images.resolve():
        return DicomLabels()
    findings.faults += faults
    return DicomLabels(_by_name(folder, ((s.folder, s.patient_id) for s in series)), "series")
