"""Every check of the converters, on a raw data set of nnU-Net as it lies on the disk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_semisup.dataset_conversion.cases import CaseFacts, DatasetForm, Subset
from nnunet_semisup.dataset_conversion.checking.all_cases import (
    MOST_SIMILAR_LISTED,
    Duplicate,
    absent_labels,
    compare_names,
    describe_many,
    find_duplicates,
    nothing_labeled,
    placed_scans,
    spacing_outliers,
)
from nnunet_semisup.dataset_conversion.checking.coverage import Coverage, compare_scans
from nnunet_semisup.dataset_conversion.checking.coverage_text import coverage_warnings
from nnunet_semisup.dataset_conversion.checking.one_case import inspect_case
from nnunet_semisup.dataset_conversion.checking.outliers import unlike_the_others
from nnunet_semisup.dataset_conversion.checking.raw_splits import (
    hidden_by_fold,
    only_fold,
    split_faults,
    too_few_for_folds,
    without_unlabeled,
)
from nnunet_semisup.dataset_conversion.findings import Findings, counted
from nnunet_semisup.dataset_conversion.reading.as_nnunet import (
    by_nibabel,
    has_channel_axis,
    scan_reader,
)
from nnunet_semisup.dataset_conversion.reading.formats import PICTURE_ENDINGS, is_tif_stack
from nnunet_semisup.dataset_conversion.reading.listing import SUBSETS, RawListing, list_raw
from nnunet_semisup.dataset_conversion.reading.pictures import read_as_nnunet, read_stack_as_nnunet
from nnunet_semisup.dataset_conversion.volume import UnreadableFileError, Volume
from nnunet_semisup.errors import UserError
from nnunet_semisup.headers.nifti import contradicting_headers, read_nifti_header, unit_fault
from nnunet_semisup.parallel import map_cases
from nnunet_semisup.preparation.labeled_classes import contradicting_labels, read_labeled_classes
from nnunet_semisup.preparation.layout import LABELED_CLASSES_FILE
from nnunet_semisup.preparation.orientation import ADVICE, turned_warning
from nnunet_semisup.preparation.plans import single_outputs
from nnunet_semisup.preparation.raw import DatasetFolders, num_channels, read_dataset_json
from nnunet_semisup.preparation.rules import STRICT, Accepted, declared_copies

_CHANNEL_AXIS = (
    "the images hold their channels in a fourth dimension. nnU-Net reads such files, but it stops "
    "when it writes a prediction for one, which it does at the end of training. Save each channel "
    "as a file of three dimensions: CASE_0000, CASE_0001 ..."
)


@dataclass(frozen=True)
class Verified:
    """Hold the outcome of :func:`verify_dataset`: cases by subset, and what was found.

    ``coverage`` has unlabeled beside labeled scans; ``None`` where there are none of either.
    """

    name: str
    counts: Mapping[str, int]
    findings: Findings
    coverage: Coverage | None = None

    def summary(self) -> str:
        """Return one line about the whole."""
        cases = ", ".join(f"{number} {subset}" for subset, number in self.counts.items() if number)
        return (
            f"{self.name}: {cases or 'no'} cases checked, "
            f"{counted(len(self.findings.faults), 'fault')}, "
            f"{counted(len(self.findings.warnings), 'warning')}"
        )


@dataclass(frozen=True)
class ReadCases:
    """Hold the cases of a raw data set that were read completely, and what was found in each."""

    content: Mapping[str, Any]
    listing: RawListing
    form: DatasetForm
    facts: Sequence[CaseFacts]


def read_cases(
    folders: DatasetFolders,
    num_processes: int,
    accepted: Accepted,
    findings: Findings,
    subsets: Collection[Subset] = SUBSETS,
    show_progress: bool = True,
) -> ReadCases | None:
    """Read every file of some subsets; ``None`` where ``dataset.json`` does not say what to expect.

    Args:
        folders: raw and preprocessed folder of the data set.
        num_processes: processes that read files.
        accepted: by the user; what was accepted when the data set was converted is, too.
        findings: where to put what is found.
        subsets: whose folders to look into.
        show_progress: whether to show a progress bar.

    Raises:
        UserError: ``dataset.json`` cannot be used at all.
    """
    content = read_dataset_json(folders.raw)
    findings.faults += _dataset_json_faults(content)
    if findings.faults:
        return None
    validation = set(only_fold(folders).get("val", ()))
    listing = list_raw(folders.raw, content, validation, subsets)
    findings.faults += listing.findings.faults
    findings.warnings += listing.findings.warnings
    form = _form(content, listing)
    findings.faults += listing.channel_faults(num_channels(content) // form.components)
    accepted = accepted.or_as_converted(folders.raw)
    inspect = partial(inspect_case, form=form, accepted=accepted)
    names = [case.id for case in listing.cases]
    facts = map_cases(inspect, listing.cases, names, num_processes, "verifying", show_progress)
    for found in facts:
        findings.faults += [f"case {found.case.id}: {text}" for text in found.faults]
        findings.warnings += [f"case {found.case.id}: {text}" for text in found.warnings]
    findings.faults += nothing_labeled(facts, form)
    return ReadCases(content, listing, form, facts)


def verify_dataset(
    folders: DatasetFolders, num_processes: int = 1, accepted: Accepted = STRICT
) -> Verified:
    """Read every file of a raw data set and collect all that is wrong with it.

    nnU-Net's own ``verify_dataset_integrity`` runs last, and only if nothing was found before:
    it stops at the first damaged file.

    Args:
        folders: raw and preprocessed folder of the data set; nothing is written to them.
        num_processes: processes that read files.
        accepted: by the user, though it is a fault otherwise. What was accepted when the data set
            was converted always is.

    Raises:
        UserError: ``dataset.json`` cannot be used at all.
    """
    findings = Findings()
    cases = read_cases(folders, num_processes, accepted, findings)
    if cases is None:
        return Verified(folders.name, {}, findings)
    content, listing, form, facts = cases.content, cases.listing, cases.form, cases.facts
    read = [file.path for found in facts for file in (*found.images, found.label) if file]
    if by_nibabel(form.read_image):
        findings.faults += _unit_faults(read)
    elif contradiction := contradicting_headers(read):
        findings.warnings.append(contradiction)
    if form.components > 1 and has_channel_axis(listing.cases[0].images[0]):
        findings.faults.append(_CHANNEL_AXIS)
    _check_together(facts, form, num_processes, findings, declared_copies(folders.raw))
    _check_counts(content, listing, findings)
    if not any(case.subset is Subset.UNLABELED for case in listing.cases):
        findings.warnings += filter(None, [without_unlabeled(folders)])
    findings.faults += split_faults(folders, listing.training_ids)
    findings.warnings += filter(None, [too_few_for_folds(folders, listing.training_ids)])
    findings.warnings += single_outputs(folders)
    findings.faults += _partial_label_faults(folders, content, facts)
    coverage = compare_scans(facts, form, hidden_by_fold(folders))
    findings.warnings += coverage_warnings(coverage) if coverage else []
    if not findings.faults:
        findings.faults += _faults_by_nnunet(folders.raw, num_processes)
    counts = {s.value: sum(c.subset is s for c in listing.cases) for s in Subset}
    return Verified(folders.name, counts, findings, coverage)


def _dataset_json_faults(content: Mapping[str, Any]) -> list[str]:
    """Return what in ``dataset.json`` prevents any further check."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_file_ending
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    where = "dataset.json"
    faults = [
        f"{where}: the key '{key}' is missing; add it"
        for key in ("labels", "channel_names", "numTraining")
        if key not in content
    ]
    if "labels" in content:
        try:
            labels = LabelManager(content["labels"], content.get("regions_class_order"))
            values = [int(value) for value in labels.all_labels]
        except Exception as error:  # nnU-Net asserts and raises several kinds
            faults.append(f"{where}: the labels are not usable: {error}")
        else:
            if values != list(range(len(values))):
                faults.append(
                    f"{where}: the label values are {values}; they must be 0, 1, 2 ... without gap"
                )
    try:
        determine_reader_writer_from_file_ending(content["file_ending"], verbose=False)
    except RuntimeError:
        faults.append(
            f"{where}: nnU-Net reads no files that end in '{content['file_ending']}'; convert the "
            "images, for example to .nii.gz or .png, and correct 'file_ending'"
        )
    return faults


def _form(content: Mapping[str, Any], listing: RawListing) -> DatasetForm:
    """Return what ``dataset.json`` and the first readable training image promise for all cases."""
    values: set[int] = set()
    for value in content["labels"].values():
        values.update(int(v) for v in (value if isinstance(value, list) else [value]))
    training = [case for case in listing.cases if case.subset.needs_label]
    first = training[0].images[0] if training else None
    reader: Callable[[Path], Volume] = read_as_nnunet
    label_reader: Callable[[Path], Volume] = partial(read_as_nnunet, is_label=True)
    dimensions, components = 2, 1
    if content["file_ending"].lower() not in PICTURE_ENDINGS:
        reader = label_reader = scan_reader(content, first)
        dimensions = 3
    elif first is not None and is_tif_stack(first):
        reader = label_reader = read_stack_as_nnunet
        dimensions = 3
    for case in training:
        try:
            example = reader(case.images[0])
        except (UnreadableFileError, OSError):
            continue
        dimensions, components = len(example.geometry.size), example.components
        break
    return DatasetForm(
        name=listing.folder.name,
        source="raw data set of nnU-Net",
        channel_names={int(key): name for key, name in content["channel_names"].items()},
        labels=dict(content["labels"]),
        label_map={value: value for value in sorted(values)},
        read_image=reader,
        read_label=label_reader,
        description="",
        reference="",
        licence="",
        file_ending=content["file_ending"],
        dimensions=2 if dimensions == 2 else 3,
        components=components,
        test_labels=listing.has_test_labels,
        label_advice="Correct the file, or the labels in dataset.json",
        absent_label_advice="check the labels in dataset.json",
    )


def _unit_faults(files: Sequence[Path]) -> list[str]:
    """Return the files in another unit than the first, for a reader that knows no units."""
    headers = {path: read_nifti_header(path) for path in files}
    first = next(iter(headers.values()), None)
    return [
        f"{path} {unit_fault(header.unit, first.unit)}"
        for path, header in headers.items()
        if first is not None and header.factor != first.factor
    ]


def _check_together(
    facts: Sequence[CaseFacts],
    form: DatasetForm,
    num_processes: int,
    findings: Findings,
    copies: str,
) -> None:
    """Compare the cases with each other: copies, labels that none has, voxel sizes.

    ``copies`` ends the names of copies that are meant; empty: there are none.
    """
    found = find_duplicates(facts, form, {}, num_processes, findings)
    duplicates = [pair for pair in found if not (copies and _is_meant(pair, copies))]
    similar = [pair for pair in duplicates if pair.kind == "acquisition"]
    if len(similar) > MOST_SIMILAR_LISTED:
        pairs = sorted(similar, key=lambda pair: -pair.correlation)
        listed = ", ".join(
            f"{p.first.case.id} and {p.second.case.id} ({p.correlation:.2f})" for p in pairs
        )
        findings.warnings.append(f"{describe_many(similar)}; compare them: {listed}")
    else:
        findings.warnings += [f"{pair.describe()}; compare them" for pair in similar]
    for pair in duplicates:
        if pair.leaks:
            findings.faults.append(f"{pair.describe()}; remove one of them")
        elif pair.kind != "acquisition":
            findings.warnings.append(f"{pair.describe()}; compare their images")
    findings.warnings += absent_labels(facts, form)
    findings.warnings += unlike_the_others(facts, form)
    if turned := turned_warning(placed_scans(facts), ADVICE):
        findings.warnings.append(turned)
    compare_names(facts, form, findings)
    for subset, text in spacing_outliers(facts):
        place = findings.warnings if subset.image_folder == "imagesTr" else findings.faults
        place.append(text)


def _is_meant(pair: Duplicate, ending: str) -> bool:
    first, second = pair.first.case.id, pair.second.case.id
    return first == f"{second}{ending}" or second == f"{first}{ending}"


def _check_counts(content: Mapping[str, Any], listing: RawListing, findings: Findings) -> None:
    """Compare the numbers in ``dataset.json`` with the folders."""
    training = len(listing.training_ids)
    if content["numTraining"] != training:
        findings.faults.append(
            f"dataset.json: numTraining is {content['numTraining']}, imagesTr has {training} "
            "cases; correct the number, or add the cases"
        )
    announced = content.get("semisup", {}).get("num_unlabeled")
    found = sum(case.subset is Subset.UNLABELED for case in listing.cases)
    if announced is not None and announced != found:
        findings.warnings.append(
            f"dataset.json announces {announced} unlabeled cases, imagesUn has {found}"
        )


def _partial_label_faults(
    folders: DatasetFolders, content: Mapping[str, Any], facts: Sequence[CaseFacts]
) -> list[str]:
    """Return the faults of ``labeled_classes.json``, where there is one."""
    file = folders.raw / LABELED_CLASSES_FILE
    if not file.is_file():
        return []
    try:
        labeled = read_labeled_classes(file, content)
    except UserError as error:
        return [str(error)]
    found = {f.case.id: f.label_counts for f in facts if f.case.subset.image_folder == "imagesTr"}
    return contradicting_labels(labeled, found, content)


def _faults_by_nnunet(folder: Path, num_processes: int) -> list[str]:
    """Return what nnU-Net's own check says; it prints details."""
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    try:
        with np.errstate(all="ignore"):
            verify_dataset_integrity(str(folder), num_processes)
    except Exception as error:  # it asserts and raises several kinds
        return [f"nnU-Net's verify_dataset_integrity: {error}"]
    return []
