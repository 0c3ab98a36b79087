"""The optional ``"unlabeled"`` key of a fold in ``splits_final.json``.

nnU-Net reads only ``train`` and ``val`` of a fold and ignores every other key. The ids under
``"unlabeled"`` are preprocessed cases of the labeled folder whose labels are never read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.layout import IMAGES_UNLABELED, UNLABELED_KEY
from nnunet_semisup.preparation.raw import bullet_list, named

STOCK_FOLDS = 5
"""Folds that nnU-Net 2.8.1 splits labeled cases into where no file says otherwise."""
_EMPTY = {
    "train": "name the labeled cases to learn from",
    "val": "nnU-Net validates after every epoch, so name at least one labeled case there and not "
    "in 'train'; or train the fold all, which validates on the cases it learns from",
}
"""What to do about an empty list of a fold."""


def read_splits(splits_file: str | Path) -> list[dict[str, Any]]:
    """Read the folds of ``splits_file``; an absent file has none.

    Raises:
        UserError: the file is not JSON, or not a list of folds with ``train`` and ``val``.
    """
    path = Path(splits_file)
    if not path.is_file():
        return []
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). Correct or remove it.") from error
    if not isinstance(splits, list) or not all(_is_fold(fold) for fold in splits):
        raise UserError(
            f"{path} must be a list with one object per fold, each with the keys 'train' and 'val' "
            f"and optionally '{UNLABELED_KEY}', all lists of case ids (strings)."
        )
    return splits


def _is_fold(content: Any) -> bool:
    return isinstance(content, dict) and all(
        isinstance(content.get(key), list) and all(isinstance(i, str) for i in content[key])
        for key in ("train", "val")
    )


def folds_with_unlabeled(splits_file: str | Path) -> list[int]:
    """Return the numbers of the folds that carry the ``"unlabeled"`` key.

    Raises:
        UserError: see :func:`read_splits`.
    """
    return [i for i, fold in enumerate(read_splits(splits_file)) if UNLABELED_KEY in fold]


def unlabeled_of_fold(
    splits_file: str | Path, fold: int | str, available_ids: Collection[str]
) -> list[str]:
    """Return the ids under ``"unlabeled"`` of ``fold``, sorted.

    Args:
        splits_file: ``splits_final.json`` of the data set; it need not exist.
        fold: number of the fold, or ``"all"``, which has no such key.
        available_ids: ids of the preprocessed cases of the labeled folder.

    Returns:
        The ids; empty when the file, the fold or the key is absent.

    Raises:
        UserError: naming every id that is repeated, unknown, or also in ``train`` or ``val`` of the
            fold, or saying that the value is not a list of strings.
    """
    if fold == "all":
        return []
    splits = read_splits(splits_file)
    number = int(fold)
    if number >= len(splits) or UNLABELED_KEY not in splits[number]:
        return []
    where = f"'{UNLABELED_KEY}' of fold {number} in {splits_file}"
    ids = splits[number][UNLABELED_KEY]
    if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
        raise UserError(f"{where} must be a list of case ids (strings), it is: {ids!r}.")
    faults = _id_faults(ids, splits[number], set(available_ids))
    if faults:
        raise UserError(
            f"{where} is not usable:\n"
            + bullet_list(faults)
            + "\nAllowed are ids of preprocessed cases of imagesTr in neither train nor val of the "
            f"fold, each once. Cases of {IMAGES_UNLABELED} are used anyway and are not "
            "listed here. Correct the file and run the command again."
        )
    return sorted(ids)


def hidden_by_other_folds(splits_file: str | Path, fold: int | str) -> list[str]:
    """Return the ids that other folds list under ``"unlabeled"``, where ``fold`` is none of them.

    For ``"all"`` and for a number that the file lacks nnU-Net draws from all of ``imagesTr``, with
    labels. Sorted; empty for a fold of the file and for a file that cannot be read.
    """
    try:
        splits = read_splits(splits_file)
    except UserError:
        return []
    if fold != "all" and int(fold) < len(splits):
        return []
    return sorted({str(i) for folds in splits for i in folds.get(UNLABELED_KEY) or ()})


def fold_faults(
    splits_file: str | Path, number: int, known: Collection[str], unknown: str, remedy: str
) -> list[str]:
    """Return what nnU-Net could not train and validate with in ``train`` and ``val`` of a fold.

    nnU-Net 2.8.1 looks at none of it before the first step: a missing case ends a worker process,
    and so does an empty list, of ``val`` only after a whole epoch.

    Args:
        splits_file: ``splits_final.json`` of the data set.
        number: of the fold, which the file has.
        known: ids of the cases that there are.
        unknown: what is said of an id that is none of them, such as ``"not in imagesTr"``.
        remedy: how to provide it.

    Raises:
        UserError: see :func:`read_splits`.
    """
    fold = read_splits(splits_file)[number]
    where = f"{splits_file}, fold {number}"
    faults = []
    for key, advice in _EMPTY.items():
        ids = fold[key]
        if not ids:
            faults.append(f"{where}: '{key}' is empty; {advice}")
        if absent := [i for i in ids if i not in known]:
            faults.append(
                f"{where}: '{key}' names cases {unknown}: {named(absent)}; {remedy}, or take "
                "them out"
            )
    if both := sorted(set(fold["train"]) & set(fold["val"])):
        faults.append(
            f"{where}: in 'train' and in 'val': {named(both)}; name each case in one of "
            "the two, since scores of cases that were trained on say nothing"
        )
    return faults


def _id_faults(ids: list[str], fold: dict[str, Any], available: set[str]) -> list[str]:
    faults = []
    for identifier, count in sorted(Counter(ids).items()):
        if count > 1:
            faults.append(f"case {identifier}: listed {count} times")
        faults += [
            f"case {identifier}: is also in '{subset}' of this fold"
            for subset in ("train", "val")
            if identifier in fold[subset]
        ]
        if identifier not in available:
            faults.append(f"case {identifier}: unknown, no such case in the labeled folder")
    return faults
