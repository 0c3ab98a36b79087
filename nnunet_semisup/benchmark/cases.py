"""Roles of the cases of a benchmark."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.folds import read_splits
from nnunet_semisup.preparation.labeled_classes import (
    class_names,
    find_labeled_classes,
    read_labeled_classes,
)
from nnunet_semisup.preparation.layout import SPLITS_FILE, UNLABELED_KEY
from nnunet_semisup.preparation.raw import (
    DatasetFolders,
    read_dataset_json,
    training_images,
    unlabeled_in,
)


class Cases(NamedTuple):
    """Hold the roles of the labeled cases of a data set.

    Attributes:
        pool: in the order in which budgets take them.
        unlabeled: whose labels no budget uses.
        evaluation: on which the results are measured.
        order: where the order comes from, in words.
    """

    pool: tuple[str, ...]
    unlabeled: tuple[str, ...]
    evaluation: tuple[str, ...]
    order: str


def choose_cases(
    folders: DatasetFolders,
    fold: int,
    subset_seed: int | None = None,
    left_out: Collection[str] = (),
) -> Cases:
    """Take the roles from a fold of ``splits_final.json``: ``train`` is the pool, ``val`` measures.

    Args:
        folders: of the data set.
        fold: number in the file.
        subset_seed: draws the order of the pool, so that larger budgets hold the smaller ones;
            ``None``: the order of the file, the literature's where it was converted so.
        left_out: cases that get no role.

    Raises:
        UserError: no such file or fold, a file that is none, unknown cases, a role without
            cases, or evaluation cases that have labels of some classes only.
    """
    path = _splits_file(folders)
    splits = read_splits(path)
    if not 0 <= fold < len(splits):
        raise UserError(f"{path} has the folds 0 to {len(splits) - 1}; --fold {fold} was given.")
    split = splits[fold]
    labeled = training_images(folders.raw, read_dataset_json(folders.raw))
    unlabeled = split.get(UNLABELED_KEY, [])
    _refuse_unknown([*split["train"], *split["val"], *unlabeled], labeled, path)
    others = unlabeled_in(folders.raw)
    if wrong := [case for case in left_out if case not in labeled and case not in others]:
        raise UserError(f"--leave-out {' '.join(wrong)}: no case of {folders.name} has that name.")
    pool = [case for case in split["train"] if case not in left_out]
    order = f"the order of 'train' in fold {fold} of {SPLITS_FILE}"
    if subset_seed is not None:
        pool.sort()
        random.Random(subset_seed).shuffle(pool)
        order = f"drawn with seed {subset_seed} from 'train' in fold {fold} of {SPLITS_FILE}"
    roles = {"train": pool, "val": [c for c in split["val"] if c not in left_out]}
    if empty := [name for name, cases in roles.items() if not cases]:
        raise UserError(f"{path}, fold {fold}: no case is left in {' or '.join(empty)}.")
    _refuse_partial(folders, roles["val"])
    kept = tuple(case for case in unlabeled if case not in left_out)
    return Cases(tuple(pool), kept, tuple(roles["val"]), order)


def check_budgets(budgets: Sequence[int], cases: Cases, others: int) -> None:
    """Refuse budgets that cannot be had.

    Args:
        budgets: numbers of labeled cases.
        cases: roles.
        others: unlabeled cases beside the pool.

    Raises:
        UserError: fewer than one, more than the pool has, or so many that nothing is unlabeled.
    """
    there = len(cases.pool)
    if wrong := [budget for budget in budgets if not 1 <= budget <= there]:
        raise UserError(
            f"--budgets {' '.join(map(str, wrong))}: {there} labeled cases are there to train on; "
            f"give numbers from 1 to {there}."
        )
    if there in budgets and others == 0:
        raise UserError(
            f"--budgets {there}: with all {there} cases labeled none is unlabeled. Give fewer, or "
            "put unlabeled images into imagesUn."
        )


def _splits_file(folders: DatasetFolders) -> Path:
    for folder in (folders.raw, folders.preprocessed):
        if (folder / SPLITS_FILE).is_file():
            return folder / SPLITS_FILE
    raise UserError(
        f"{folders.raw} has no {SPLITS_FILE}, which says which labeled cases are trained on and on "
        'which results are measured. Write it: [{"train": [...], "val": [...]}].'
    )


def _refuse_partial(folders: DatasetFolders, evaluation: Sequence[str]) -> None:
    """Refuse to measure on cases with labels of some classes only: others count as background."""
    file = find_labeled_classes(folders.preprocessed, folders.name)
    if file is None:
        return
    if file.parent != folders.raw:
        raise UserError(f"Move {file} into {folders.raw}, from where cases are taken.")
    content = read_dataset_json(folders.raw)
    labeled, names = read_labeled_classes(file, content), set(class_names(content))
    if partial := [case for case in evaluation if names - set(labeled.get(case, names))]:
        raise UserError(
            f"{file} names cases of 'val', whose other classes would count as background in every "
            f"result: {', '.join(partial)}. --leave-out them, or name others."
        )


def _refuse_unknown(named: Sequence[str], labeled: Collection[str], path: Path) -> None:
    if unknown := [case for case in named if case not in labeled]:
        raise UserError(
            f"{path} names cases that imagesTr does not have: {', '.join(unknown)}. Correct one of "
            "the two."
        )
    if twice := sorted({case for case in named if list(named).count(case) > 1}):
        raise UserError(f"{path} gives cases two roles: {', '.join(twice)}. Name each once.")
