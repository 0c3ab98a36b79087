"""The folds of a raw data set: which cases they use, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunet_semisup.dataset_conversion.findings import counted
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.folds import (
    STOCK_FOLDS,
    fold_faults,
    folds_with_unlabeled,
    read_splits,
    unlabeled_of_fold,
)
from nnunet_semisup.preparation.layout import IMAGES_UNLABELED, SPLITS_FILE, UNLABELED_KEY
from nnunet_semisup.preparation.raw import DatasetFolders


def only_fold(folders: DatasetFolders) -> dict[str, Any]:
    """Return the fold of a split that has just one; empty where there are several, or none."""
    for folder in (folders.preprocessed, folders.raw):
        try:
            folds = read_splits(folder / SPLITS_FILE)
        except UserError:
            return {}
        if folds:
            return folds[0] if len(folds) == 1 else {}
    return {}


def hidden_by_fold(folders: DatasetFolders) -> set[str]:
    """Return labeled cases that :func:`only_fold` uses without their labels."""
    named = only_fold(folders).get(UNLABELED_KEY)
    return {case for case in named if isinstance(case, str)} if isinstance(named, list) else set()


def split_faults(folders: DatasetFolders, training_ids: Sequence[str]) -> list[str]:
    """Return the faults of ``splits_final.json``, in the raw and in the preprocessed folder."""
    faults = []
    known = set(training_ids)
    for path in (folders.raw / SPLITS_FILE, folders.preprocessed / SPLITS_FILE):
        try:
            folds = read_splits(path)
        except UserError as error:
            faults.append(str(error))
            continue
        for number, fold in enumerate(folds):
            faults += fold_faults(path, number, known, "not in imagesTr", "put them there")
            if UNLABELED_KEY in fold:
                try:
                    unlabeled_of_fold(path, number, known)
                except UserError as error:
                    faults.append(str(error))
    return faults


def too_few_for_folds(folders: DatasetFolders, training_ids: Sequence[str]) -> str | None:
    """Return a warning about labeled cases that nnU-Net cannot split into its five folds."""
    number = len(training_ids)
    files = [folder / SPLITS_FILE for folder in (folders.raw, folders.preprocessed)]
    if number >= STOCK_FOLDS or any(file.is_file() for file in files):
        return None
    return (
        f"{counted(number, 'labeled case')} and no {SPLITS_FILE}: nnU-Net splits {STOCK_FOLDS} or "
        "more, so that only the fold all can be trained. Convert again with --validation 1, or "
        "write the file"
    )


def without_unlabeled(folders: DatasetFolders) -> str | None:
    """Return a warning about a data set without ``imagesUn``, unless a fold names its own."""
    for folder in (folders.preprocessed, folders.raw):
        try:
            if folds_with_unlabeled(folder / SPLITS_FILE):
                return None
        except UserError:
            return None  # the file is a fault already
    return (
        f"there is no unlabeled case: put images into {folders.raw / IMAGES_UNLABELED}, or name "
        f"cases under '{UNLABELED_KEY}' in a fold of {SPLITS_FILE}"
    )
