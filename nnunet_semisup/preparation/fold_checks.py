"""Checks that a fold can be trained and validated, before the first step and the first file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_semisup.data.unlabeled import UnlabeledDataset
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.folds import STOCK_FOLDS, fold_faults, read_splits
from nnunet_semisup.preparation.layout import SPLITS_FILE, is_whole
from nnunet_semisup.preparation.plans import single_output_fault
from nnunet_semisup.preparation.raw import bullet_list, named
from nnunet_semisup.preparation.rules import judge_foreground_of_all
from nnunet_semisup.safe_files import read_pickle

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

_SPLIT_ADVICE = (
    "convert again with --validation 1, or write one by hand, with at least one labeled case in "
    "'train' and another in 'val', or train the fold all, which validates on the cases it learns "
    "from"
)


def check_fold(
    dataset_folder: str | Path,
    plans_manager: PlansManager,
    configuration: str,
    fold: int | str,
    file_ending: str,
    deep_supervision: bool = True,
    further: Sequence[str] = (),
) -> None:
    """Refuse a fold that nnU-Net could not train and validate, and say what to do.

    nnU-Net 2.8.1 finds out in the first step, after the first epoch or at the end of the training,
    mostly by the death of a worker process.

    Args:
        dataset_folder: the data set's folder in ``nnUNet_preprocessed``.
        plans_manager: current plans.
        configuration: name of the configuration.
        fold: number of the fold or ``"all"``.
        file_ending: of the data set's labels.
        deep_supervision: whether the training uses it.
        further: faults that were found before, for the one message.

    Raises:
        UserError: an empty ``train`` or ``val``, a case in both, cases without all of their
            preprocessed files or without the label that validation needs, no foreground in any
            training case, fewer labeled cases than nnU-Net's own folds need, or a plan whose loss
            is not defined; every fault is in the one message.
    """
    labeled = Path(dataset_folder, plans_manager.get_configuration(configuration).data_identifier)
    remedy = f"run nnUNetv2_preprocess -d {plans_manager.dataset_name[7:10]} "
    remedy += f"-plans_name {plans_manager.plans_name} -c {configuration}"
    faults = [*further]
    if deep_supervision and (fault := single_output_fault(plans_manager, configuration)):
        faults.append(fault)
    cases = UnlabeledDataset.get_identifiers(str(labeled)) if labeled.is_dir() else []
    whole = {case for case in cases if is_whole(labeled, case)}
    if not whole:
        faults.append(f"{labeled} has no preprocessed labeled case; {remedy}")
    else:
        splits = Path(dataset_folder, SPLITS_FILE)
        unknown = f"without all preprocessed files in {labeled}"
        train, validation, found = _cases_of_fold(splits, fold, cases, whole, (unknown, remedy))
        faults += found
        labels = Path(dataset_folder, "gt_segmentations")
        faults += [f"{fault}; {remedy}" for fault in _label_faults(labels, validation, file_ending)]
        faults += _foreground_faults(labeled, [case for case in train if case in whole])
    if faults:
        raise UserError(
            f"{plans_manager.dataset_name}, {configuration}, fold {fold} cannot be trained; "
            f"nothing was written:\n{bullet_list(faults)}"
        )


def _cases_of_fold(
    splits_file: Path,
    fold: int | str,
    cases: list[str],
    whole: Collection[str],
    words: tuple[str, str],
) -> tuple[list[str], list[str], list[str]]:
    """Return the cases that nnU-Net would train and validate on, and what is wrong with them.

    Without the fold in the file it draws them from all preprocessed cases; then each may be either.
    ``words`` are what is said of a case that is not ``whole``, and what to do about it.
    """
    unknown, remedy = words
    parts = [case for case in cases if case not in whole]
    drawn = [f"cases {unknown}: {named(parts)}; {remedy}"] if parts else []
    if fold == "all":
        return cases, cases, drawn
    number = int(fold)
    if number < 0:
        return [], [], [f"there is no fold {fold}; give a number from 0, or all"]
    folds = read_splits(splits_file)
    if number < len(folds):
        faults = fold_faults(splits_file, number, whole, unknown, remedy)
        return folds[number]["train"], folds[number]["val"], faults
    needed = 2 if splits_file.is_file() else STOCK_FOLDS
    if len(cases) < needed:
        what = f"nnU-Net's folds need {needed} labeled cases, and {len(cases)} are preprocessed"
        drawn.append(f"{splits_file} has no fold {fold}: {what}; {_SPLIT_ADVICE}")
    return cases, cases, drawn


def _label_faults(folder: Path, validation: list[str], file_ending: str) -> list[str]:
    """Return validation cases without the label that the scores at the end are computed from."""
    absent = [case for case in validation if not (folder / f"{case}{file_ending}").is_file()]
    if not absent:
        return []
    return [
        f"{folder} lacks labels of validation cases, which nnU-Net scores the trained network "
        f"with: {named(absent)}"
    ]


def _foreground_faults(labeled: Path, train: list[str]) -> list[str]:
    """Return a fault where the labels of no training case have foreground; stops at the first one.

    nnU-Net records where each class or region is. The key with -1 is all that is annotated, the
    background included, where there is an ignore label.
    """
    for case in train:
        properties, _ = read_pickle(labeled / f"{case}.pkl")
        places = properties.get("class_locations") or {}
        for key, found in places.items():
            if len(found) and not (isinstance(key, tuple) and -1 in key):
                return []
    return judge_foreground_of_all(dict.fromkeys(train, ()), None)
