"""NIH Pancreas-CT: TCIA's DICOM tree, copies of it as NIfTI, and the community's two h5 forms.

Roth et al., "Data from Pancreas-CT", The Cancer Imaging Archive, 2016.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_semisup.dataset_conversion.cases import CaseFacts, DatasetForm, SourceFiles
from nnunet_semisup.dataset_conversion.checking.ct_labels import (
    Tissue,
    largest_component_share,
    orientation_faults,
    share_below,
)
from nnunet_semisup.dataset_conversion.conversion import Collected, Prepared
from nnunet_semisup.dataset_conversion.findings import Findings
from nnunet_semisup.dataset_conversion.offers import OFFERS
from nnunet_semisup.dataset_conversion.reading.dicom import (
    Series,
    find_series,
    is_dicom,
    notes_on,
    read_dicom_folder,
)
from nnunet_semisup.dataset_conversion.reading.dicom_kinds import Identity
from nnunet_semisup.dataset_conversion.reading.h5 import h5_variant
from nnunet_semisup.dataset_conversion.reading.scans import read_itk
from nnunet_semisup.dataset_conversion.reading.tree import (
    by_case,
    choose_source,
    files_below,
    named_like,
)
from nnunet_semisup.dataset_conversion.shared_options import (
    add_extra_unlabeled,
    choose_split,
    need_folder,
)
from nnunet_semisup.dataset_conversion.subsets import Split, literature_split
from nnunet_semisup.dataset_conversion.volume import Volume, oriented
from nnunet_semisup.errors import UserError

WITHDRAWN = ("PANCREAS_0025", "PANCREAS_0070")
SAME_SCAN = ("PANCREAS_0002", *WITHDRAWN)
TISSUE = Tissue("soft tissue", -100, 250, tolerated=0.1)
_PATTERNS = {
    "nii": r"(?:PANCREAS_|image)(\d{4})\.nii(?:\.gz)?",
    "mcnet-h5": r"image(\d{4})_norm\.h5",
    "coranet-h5": r"(\d{4})\.h5",
}
_FURTHER = {
    "nii": r"(?!label\d{4}\.)(.+)\.nii(?:\.gz)?",
    "mcnet-h5": r"(.+)_norm\.h5",
    "coranet-h5": r"(.+)\.h5",
}
"""Names of further scans, which need not be of the collection."""
_DEFAULT_SPLIT = {"mcnet-h5": "mcnet_dedup"}
_LABEL = r"label(\d{4})\.nii(?:\.gz)?"
_EXPECTED = (
    "TCIA's folder 'Pancreas-CT' of DICOM series, 'PANCREAS_0001.nii.gz' ..., "
    "'image0001_norm.h5' ... (MC-Net) or '0001.h5' ... (CoraNet)"
)
_REFERENCE = "Roth et al., Data from Pancreas-CT, TCIA 2016, doi:10.7937/K9/TCIA.2016.tNB1kqBU"
_LABELS: dict[str, int | tuple[int, ...]] = {"background": 0, "pancreas": 1}
_USUAL_MEAN = (20, 150)
_AIR = -200
_MOST_IN_AIR = 0.05
_MAIN_PART = 0.9


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Prepare the cases, their subsets and their form, as the command line asks for."""
    collected, source = collect(arguments.raw_dir, arguments.source, arguments.labels_dir)
    print(f"{arguments.raw_dir} has the form '{source}' ({len(collected.cases)} cases)")
    published = {
        name: literature_split("pancreas", name) for name in ("coranet", "mcnet", "mcnet_dedup")
    }
    split = choose_split(arguments, published, _DEFAULT_SPLIT.get(source, "coranet"))
    _treat_withdrawn(collected, split, arguments.drop_withdrawn)
    add_extra_unlabeled(
        collected, arguments.extra_unlabeled, partial(collect_further, source=source)
    )
    form = ct_form(source) if source in ("raw", "nii") else h5_form(source, arguments.spacing)
    return Prepared(collected, split, form)


def _treat_withdrawn(collected: Collected, split: Split, drop: bool) -> None:
    """Take the withdrawn cases out, or say what it means that they stay.

    Raises:
        UserError: they are to be left out but the split names them.
    """
    subsets = split.subset_of()
    named = [case for case in WITHDRAWN if case in subsets]
    if drop and named:
        raise UserError(
            f"the split {split.lists.name} names {' and '.join(named)}, which show the same scan "
            f"as {SAME_SCAN[0]} and were withdrawn. Give --split mcnet_dedup or a list without "
            "them, or --no-drop-withdrawn to repeat results on the published list."
        )
    if drop:
        for case in WITHDRAWN:
            if collected.cases.pop(case, None):
                collected.findings.warnings.append(
                    f"{case} is left out: it shows the same scan as {SAME_SCAN[0]} and was "
                    "withdrawn by TCIA"
                )
    here = {case: subsets[case].value for case in SAME_SCAN if case in subsets}
    if len(set(here.values())) > 1:
        places = ", ".join(f"{case} ({subset})" for case, subset in here.items())
        collected.findings.warnings.append(f"one scan is in several subsets: {places}")


def ct_form(source: str) -> DatasetForm:
    """Return the form of scans in Hounsfield units, DICOM (``raw``) or NIfTI (``nii``), in LPS."""
    return DatasetForm(
        name=OFFERS["pancreas"].name,
        source=source,
        channel_names={0: "CT"},
        labels=dict(_LABELS),
        label_map={0: 0, 1: 1},
        read_image=_read_dicom if source == "raw" else _read_nifti,
        read_label=_read_nifti,
        description=(
            "Pancreas in portal-venous CT. Image and label are turned to the axes LPS; the "
            "label takes the image's origin."
        ),
        reference=_REFERENCE,
        licence="CC BY 3.0",
        check=_check_hounsfield,
        check_voxels=_check_label_on_ct,
    )


def h5_form(source: str, spacing: float) -> DatasetForm:
    """Return the form of the h5 files of MC-Net or CoraNet: no Hounsfield units, no geometry.

    Args:
        source: ``mcnet-h5`` or ``coranet-h5``.
        spacing: voxel size in millimetres to assume, equal along all axes.

    Raises:
        UserError: the spacing is not positive, or h5py is not installed.
    """
    made = {
        "mcnet-h5": "resampled to 1 mm, windowed to [-125, 275] HU, cropped around the ground "
        "truth in the slice plane and z-scored",
        "coranet-h5": "resampled (not to 1 mm between slices), windowed to [-125, 275] HU, scaled "
        "to [0, 1] and cropped around the ground truth",
    }[source]
    return h5_variant(
        ct_form("raw"),
        spacing,
        description=(
            f"Pancreas in CT, from h5 files of the semi-supervised literature: {made} by their "
            "authors, test cases too, so results do not compare with those on the scans "
            f"themselves. The values are no Hounsfield units. The voxel size is assumed "
            f"({spacing:g} mm), not read."
        ),
        source=source,
        channel_names={0: "zscore"},
        check_voxels=_check_parts,
    )


def _read_dicom(folder: Path) -> Volume:
    return oriented(read_dicom_folder(folder))


def _read_nifti(path: Path) -> Volume:
    return oriented(read_itk(path))


def _check_hounsfield(facts: CaseFacts) -> list[str]:
    """Check that there is air, which belongs to every scan."""
    image = facts.images[0]
    if image.minimum <= -500:
        return []
    return [
        f"the grey values are {image.minimum:g} to {image.maximum:g}; Hounsfield units of a whole "
        "scan reach below -500. Take the original files"
    ]


def _check_label_on_ct(facts: CaseFacts, image: np.ndarray, label: np.ndarray | None) -> list[str]:
    """Check that the label lies on soft tissue, and not better when it is mirrored."""
    if label is None:
        return []
    faults = orientation_faults(image, label, TISSUE)
    in_air = share_below(image, label, _AIR)
    if not faults and in_air > _MOST_IN_AIR:
        faults.append(
            f"{in_air:.0%} of the label lies in air or lung (below {_AIR} HU): image and label do "
            "not belong together"
        )
    if not faults and label.any():
        mean = float(image[label != 0].mean())
        if not _USUAL_MEAN[0] <= mean <= _USUAL_MEAN[1]:
            facts.warnings.append(f"the mean inside the label is {mean:.0f} HU, which is unusual")
    return faults + _check_parts(facts, image, label)


def _check_parts(facts: CaseFacts, _image: np.ndarray, label: np.ndarray | None) -> list[str]:
    """Warn where a pancreas is not one piece."""
    if label is not None and label.any():
        share = largest_component_share(label)
        if share < _MAIN_PART:
            facts.warnings.append(
                f"the label is in pieces; the largest has {share:.0%} of its voxels"
            )
    return []


def collect(
    raw_dir: Path, source: str = "auto", labels_dir: Path | None = None
) -> tuple[Collected, str]:
    """Find the scans and labels below ``raw_dir`` and decide which form they have.

    Args:
        raw_dir: the extracted download.
        source: one of those of ``--source``.
        labels_dir: where the labels are; below ``raw_dir`` by default.

    Raises:
        UserError: no such folder, no scan in it, or several forms under ``auto``.
    """
    for folder in (raw_dir, labels_dir or raw_dir):
        need_folder(folder)
    findings = Findings()
    files = files_below(raw_dir, findings)
    found = {form: named_like(files, pattern) for form, pattern in _PATTERNS.items()}
    dicom = any(is_dicom(file) for file in files)
    present = {"raw": dicom} | {form: bool(matches) for form, matches in found.items()}
    source = choose_source(raw_dir, source, present, _EXPECTED)
    collected = Collected(raw_dir, {}, findings)
    if source == "raw":
        images = _scans(collected)
    else:
        matches = [(f"PANCREAS_{match[1]}", path) for path, match in found[source]]
        images = by_case(matches, collected.findings, "image")
    if source in ("raw", "nii"):
        labels = _labels(
            collected, files if labels_dir is None else files_below(labels_dir, findings)
        )
        if not labels:
            raise UserError(
                f"{labels_dir or raw_dir} holds no label0001.nii.gz ...; extract TCIA's label "
                "archive, a download of its own, and give its folder by --labels-dir DIR."
            )
    else:
        labels = images
    _note_labels_without_image(collected, images, labels)
    for case, image in sorted(images.items()):
        collected.cases[case] = SourceFiles((image,), labels.get(case))
    return collected, source


def collect_further(folder: Path, source: str) -> Collected:
    """Find scans of any patient in the same form, for use without labels.

    Args:
        folder: with DICOM series, NIfTI or h5 files at any depth.
        source: the form.

    Raises:
        UserError: no such folder, or no scan in it.
    """
    need_folder(folder)
    collected = Collected(folder, {})
    if source == "raw":
        images = _scans(collected, of_the_collection=False)
    else:
        matches = [
            (match[1], path)
            for path, match in named_like(files_below(folder, collected.findings), _FURTHER[source])
        ]
        images = by_case(matches, collected.findings, "image")
    if not images and not collected.findings.faults:
        raise UserError(f"--extra-unlabeled {folder} holds no scan of the form '{source}'.")
    collected.cases = {case: SourceFiles((image,), None) for case, image in images.items()}
    return collected


def _labels(collected: Collected, files: list[Path]) -> dict[str, Path]:
    """Find the label of every case."""
    matches = [(f"PANCREAS_{match[1]}", path) for path, match in named_like(files, _LABEL)]
    return by_case(matches, collected.findings, "label")


def _note_labels_without_image(
    collected: Collected, images: dict[str, Path], labels: dict[str, Path]
) -> None:
    """Note labels that nothing belongs to; two are expected: their scans were withdrawn."""
    unused = [case for case in labels if case not in images]
    if unused:
        collected.findings.warnings.append(
            f"{len(unused)} labels have no scan and are left out: {', '.join(sorted(unused))} "
            f"({' and '.join(WITHDRAWN)} were withdrawn)"
        )


def _scans(collected: Collected, of_the_collection: bool = True) -> dict[str, Path]:
    """Find the folder of every patient's one series, by PatientID; folders' order is no guide."""
    faults: list[str] = []
    beside: list[Identity] = []
    found = find_series(collected.root, faults, beside)
    collected.findings.faults += faults
    collected.findings.warnings += notes_on(collected.root, found, beside)
    by_folder: defaultdict[Path, list[Series]] = defaultdict(list)
    for series in found:
        for folder in {file.parent for file in series.files}:
            by_folder[folder].append(series)
    scans = []
    for series in found:
        case = re.sub(r"[^A-Za-z0-9._-]", "_", series.patient_id)
        if of_the_collection and not re.fullmatch(r"PANCREAS_[0-9]{4}", case):
            collected.findings.warnings.append(
                f"{series.folder} is left out: its PatientID is {series.patient_id!r}, not "
                "PANCREAS_ and four digits"
            )
        elif series.modality != "CT":
            collected.findings.warnings.append(
                f"{series.folder} is left out: its modality is {series.modality!r}, not CT"
            )
        elif len(by_folder[series.folder]) != 1:
            collected.findings.faults.append(
                f"case {case}: {series.folder} holds files of several series, or this series is in "
                "several folders; one folder must hold one series"
            )
        else:
            scans.append((case, series.folder))
    return by_case(scans, collected.findings, "series")
