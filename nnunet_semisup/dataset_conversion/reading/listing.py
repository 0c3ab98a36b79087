"""The files of a raw data set of nnU-Net, sorted into cases; names that fit nothing are faults."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_semisup.dataset_conversion.cases import Case, Subset
from nnunet_semisup.dataset_conversion.findings import Findings
from nnunet_semisup.preparation.raw import (
    ImageFolder,
    composed,
    in_order,
    is_junk,
    list_images,
    training_images,
)
from nnunet_semisup.preparation.rules import (
    channel_faults,
    identifier_faults,
)

SUBSETS = (Subset.LABELED, Subset.UNLABELED, Subset.TEST)


@dataclass
class RawListing:
    """Hold what is in the folders of a raw data set.

    ``channels`` has, by folder and case, the files by channel number.
    """

    folder: Path
    file_ending: str
    cases: list[Case] = field(default_factory=list)
    channels: dict[str, dict[str, dict[int, Path]]] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)

    @property
    def training_ids(self) -> list[str]:
        """Return the cases of ``imagesTr``."""
        return [case.id for case in self.cases if case.subset.image_folder == "imagesTr"]

    @property
    def has_test_labels(self) -> bool:
        """Return whether the data set says anything about the labels of its test cases."""
        return (self.folder / Subset.TEST.label_folder).is_dir()

    def channel_faults(self, expected: int) -> list[str]:
        """Return missing and unexpected channels of all cases, for ``expected`` files a case."""
        return [
            f"{folder}: {fault}"
            for folder, cases in self.channels.items()
            for case, files in cases.items()
            for fault in channel_faults(case, files, expected, self.file_ending)
        ]


def list_raw(
    folder: Path,
    content: Mapping[str, Any],
    validation: Collection[str],
    subsets: Collection[Subset] = SUBSETS,
) -> RawListing:
    """Sort the files of a raw data set into cases.

    Args:
        folder: ``nnUNet_raw/DatasetXXX_Name``.
        content: its ``dataset.json``.
        validation: the cases of ``imagesTr`` that are kept for validation.
        subsets: whose folders to look into.
    """
    listing = RawListing(folder, content["file_ending"])
    if "dataset" in content:
        _list_entries(listing, content, validation)
    for subset in subsets:
        if subset is not Subset.LABELED or "dataset" not in content:
            _list_subset(listing, subset, validation)
    if not listing.training_ids:
        listing.findings.faults.append(
            f"imagesTr has no <case>_0000{listing.file_ending}; nnU-Net plans from labeled cases; "
            "put them there"
        )
    _check_identifiers(listing)
    return listing


def _list_entries(
    listing: RawListing, content: Mapping[str, Any], validation: Collection[str]
) -> None:
    """List the training cases that ``dataset.json`` names, wherever their files are."""
    for case, files in training_images(listing.folder, dict(content)).items():
        label = listing.folder / content["dataset"][case]["label"]
        for path in (*files, label):
            if not path.is_file():
                listing.findings.faults.append(f"case {case}: {path} in dataset.json is not there")
        if all(path.is_file() for path in files):
            subset = Subset.VALIDATION if case in validation else Subset.LABELED
            found = label if label.is_file() else None
            listing.cases.append(Case(case, subset, tuple(files), found))


def _list_subset(listing: RawListing, subset: Subset, validation: Collection[str]) -> None:
    """List one folder of images and the folder of its labels."""
    images = list_images(listing.folder / subset.image_folder, listing.file_ending)
    labels = _list_labels(listing, subset, images)
    listing.channels[subset.image_folder] = images.cases
    findings = listing.findings
    findings.faults += [f"{subset.image_folder}: {fault}" for fault in images.faults]
    for name in images.junk:
        if subset is not Subset.UNLABELED and name.endswith(listing.file_ending):
            findings.faults.append(
                f"{subset.image_folder}: {name}: nnU-Net takes every file that ends in "
                f"{listing.file_ending} for an image, hidden ones, too; delete it (macOS: "
                "dot_clean -m FOLDER), or rename it if it is one of yours"
            )
        else:
            findings.warnings.append(f"ignored in {subset.image_folder}: {name}")
    own = {composed(case): path for case, path in labels.items()}
    alike = {composed(case): case for case in images.cases}
    for case, path in labels.items():
        image = alike.get(composed(case))
        if image is None:
            findings.faults.append(
                f"case {case}: {path} has no image in {subset.image_folder}; add the image, or "
                "move the label away"
            )
        elif image != case:
            findings.faults.append(
                f"case {case}: {path} and its image look alike in name and differ in how a letter "
                "with an accent is stored (Unicode NFC and NFD, as macOS writes it); rename one of "
                "them, best without such letters"
            )
    for case, files in images.cases.items():
        used = Subset.VALIDATION if subset is Subset.LABELED and case in validation else subset
        label = labels.get(case) or own.get(composed(case))
        listing.cases.append(Case(case, used, tuple(in_order(files)), label))


def _list_labels(listing: RawListing, subset: Subset, images: ImageFolder) -> dict[str, Path]:
    """List the labels of a folder by case."""
    folder = listing.folder / subset.label_folder
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if is_junk(path):
            listing.findings.warnings.append(f"ignored in {folder.name}: {path.name}")
        elif path.name.endswith(listing.file_ending):
            found[path.name.removesuffix(listing.file_ending)] = path
        elif not (path.suffix == ".json" and path.stem in images.side_files):
            listing.findings.faults.append(
                f"{folder.name}: {path.name}: wrong file ending; the data set's is "
                f"{listing.file_ending}; convert it, or move it away"
            )
    return found


def _check_identifiers(listing: RawListing) -> None:
    """Check that ids are used once; unlabeled cases' ids follow nnU-Net's naming, too."""
    test = {case.id for case in listing.cases if case.subset is Subset.TEST}
    training = set(listing.training_ids)
    for case in listing.cases:
        if case.subset is Subset.UNLABELED:
            listing.findings.faults += identifier_faults(case.id, training, test)
    for identifier in sorted(training & test):
        listing.findings.faults.append(
            f"case {identifier}: the id is used in imagesTr and in imagesTs; ids must differ. "
            "Rename one of them"
        )
