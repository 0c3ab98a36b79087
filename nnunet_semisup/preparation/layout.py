"""Names and paths of the unlabeled data, beside nnU-Net's own folders.

Raw: ``nnUNet_raw/DatasetXXX_Name/imagesUn``. Preprocessed, per configuration:
``nnUNet_preprocessed/DatasetXXX_Name/<data_identifier>_unlabeled`` with case files only, because
nnU-Net infers the kind of data set from the file endings in a folder, and
``<data_identifier>_unlabeled.json`` (the stamp) beside it.
"""

from __future__ import annotations

from pathlib import Path

IMAGES_UNLABELED = "imagesUn"
UNLABELED_KEY = "unlabeled"
FINGERPRINT_FILE = "dataset_fingerprint.json"
CONVERSION_REPORT = "conversion_report.json"
SPLITS_FILE = "splits_final.json"
LABELED_CLASSES_FILE = "labeled_classes.json"
_SUFFIX = "_unlabeled"
FILE_SETS = ((".b2nd", "_seg.b2nd", ".pkl"), (".npz", ".pkl"))
"""What nnU-Net's data set classes read for one preprocessed case."""


def unlabeled_folder(preprocessed_dataset_folder: str | Path, data_identifier: str) -> Path:
    """Return the folder of the preprocessed unlabeled cases of one configuration."""
    return Path(preprocessed_dataset_folder) / f"{data_identifier}{_SUFFIX}"


def stamp_file(preprocessed_dataset_folder: str | Path, data_identifier: str) -> Path:
    """Return the file that says which plan and source files made an :func:`unlabeled_folder`."""
    return Path(preprocessed_dataset_folder) / f"{data_identifier}{_SUFFIX}.json"


def partial_folder(preprocessed_dataset_folder: str | Path, data_identifier: str) -> Path:
    """Return the folder of cases in the making, on the file system of :func:`unlabeled_folder`."""
    return Path(preprocessed_dataset_folder) / f"{data_identifier}{_SUFFIX}.partial"


def is_whole(folder: str | Path, identifier: str) -> bool:
    """Return whether a folder holds all that nnU-Net reads for one preprocessed case."""
    return any(
        all((Path(folder) / f"{identifier}{suffix}").is_file() for suffix in suffixes)
        for suffixes in FILE_SETS
    )
