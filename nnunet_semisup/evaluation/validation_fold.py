"""Find the fold whose validation is evaluated, and which cases it may have scores of."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed

from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.names import VALIDATION_FOLDER
from nnunet_semisup.preparation.folds import read_splits
from nnunet_semisup.preparation.layout import SPLITS_FILE
from nnunet_semisup.preparation.raw import bullet_list

GROUND_TRUTH = "gt_segmentations"
"""nnU-Net's copy of the labels in a data set's folder of ``nnUNet_preprocessed``."""


@dataclass(frozen=True)
class Fold:
    """Describe a fold of a split, and where it stands.

    Attributes:
        number: as nnU-Net has it, or ``"all"``.
        source: the ``splits_final.json``; ``None`` for ``"all"`` and where there is none.
        train, val: its cases, both ``None`` where they are not known.
    """

    number: str
    source: Path | None = None
    train: frozenset[str] | None = None
    val: frozenset[str] | None = None

    def warnings(self, cases: Collection[str]) -> list[str]:
        """Return sentences about scores of ``cases`` that are not those of cases held out."""
        if self.number == "all":
            return [
                "fold_all: this network was trained on all cases, so that these are scores of "
                "training cases"
            ]
        if self.train is None:
            where = (
                f"'{self.source}' has no fold {self.number}"
                if self.source
                else (f"no {SPLITS_FILE} found in nnUNet_preprocessed or beside the references")
            )
            return [f"{where}: whether fold_{self.number} was trained on these cases is not known"]
        learned = sorted(self.train & set(cases))
        if not learned:
            return []
        return [
            f"cases that are also in 'train' of fold {self.number} in '{self.source}', so that "
            f"these are scores of training cases: {', '.join(learned)}"
        ]


def find_fold(prediction_folder: Path, reference_folder: Path) -> Fold | None:
    """Return the fold whose validation cases a folder of predictions has; ``None`` if it is none.

    It is one if it is ``fold_N/validation``, as nnU-Net's trainings write it. The split is the one
    that nnU-Net reads: beside the references if they are ``gt_segmentations``, else in the data
    set's folder in ``nnUNet_preprocessed``; where there is none, the other of the two.

    Raises:
        UserError: the file of the split is damaged.
    """
    training = training_folder(prediction_folder)
    if training is None:
        return None
    number = _fold_name(prediction_folder).removeprefix("fold_")
    if number == "all":
        return Fold(number)
    places = [reference_folder.absolute().parent, reference_folder.resolve().parent]
    if nnUNet_preprocessed.is_set():
        # A split in nnUNet_raw is what planning once copied; that beside gt_segmentations is read.
        first = len(places) if reference_folder.resolve().name == GROUND_TRUTH else 0
        places.insert(first, Path(nnUNet_preprocessed, _dataset_name(training)))
    source = next((p / SPLITS_FILE for p in places if (p / SPLITS_FILE).is_file()), None)
    splits = [] if source is None else read_splits(source)
    if int(number) >= len(splits):
        return Fold(number, source)
    train, val = (frozenset(map(str, splits[int(number)][key])) for key in ("train", "val"))
    return Fold(number, source, train, val)


def training_folder(prediction_folder: Path) -> Path | None:
    """Return ``TRAINER__PLANS__CONFIGURATION`` of its ``fold_N/validation``; else ``None``."""
    named = prediction_folder.resolve().name == VALIDATION_FOLDER
    if not named or not re.fullmatch(r"fold_(\d+|all)", _fold_name(prediction_folder)):
        return None
    return prediction_folder.resolve().parents[1]


def _fold_name(prediction_folder: Path) -> str:
    return prediction_folder.resolve().parent.name


def _dataset_name(training: Path) -> str:
    """Return the name of a training's data set, which its plans know."""
    try:
        return str(json.loads((training / "plans.json").read_text("utf-8"))["dataset_name"])
    except (OSError, ValueError, LookupError, TypeError):
        return training.parent.name


def refuse_others(fold: Fold, cases: Collection[str], folder: Path) -> None:
    """Refuse predictions of cases that are not in ``val`` of the fold.

    Args:
        fold: of :func:`find_fold`.
        cases: that would be scored.
        folder: of the predictions, for the message.

    Raises:
        UserError: naming each such case.
    """
    if fold.val is None or fold.train is None:
        return
    others = sorted(set(cases) - fold.val)
    if not others:
        return
    listed = bullet_list(f"{c}{' (in train)' if c in fold.train else ''}" for c in others)
    raise UserError(
        f"'{folder}' has predictions of cases that are not in 'val' of fold {fold.number} in "
        f"'{fold.source}':\n{listed}\n"
        "They are left from a training with another split, or the split was changed after this "
        "training; nnU-Net's summary.json counts them, too. Move these files out of the folder and "
        "run this command again, or validate again with nnUNetv2_train ... --val (a trainer of "
        "this package then keeps the old folder under another name). To score the cases of an "
        "earlier split, give the folder another name. Nothing was written."
    )
