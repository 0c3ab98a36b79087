"""Validation that scores the fold's cases and no others, by a network that never trained on them.

nnU-Net (2.8.1) computes ``validation/summary.json`` over every prediction that lies in the folder,
and validates whatever ``splits_final.json`` says at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.names import REPORT_NAME, VALIDATION_FOLDER
from nnunet_semisup.preparation.layout import SPLITS_FILE
from nnunet_semisup.training.archive import Log, archive


def archive_validation(folder: str, log: Log) -> None:
    """Rename ``validation`` in a fold's folder, so that none of its predictions is scored again.

    Args:
        folder: the fold's.
        log: told what was renamed.
    """
    archive(Path(folder, VALIDATION_FOLDER), log)


def archive_other_predictions(
    folder: str, file_ending: str, validation: Callable[[], Collection[str]], log: Log
) -> None:
    """Rename what an earlier validation left, where this one would not overwrite it.

    Args:
        folder: the fold's.
        file_ending: of the predictions.
        validation: gives the cases that are about to be predicted.
        log: told what was renamed.
    """
    predictions = Path(folder, VALIDATION_FOLDER)
    if not predictions.is_dir():
        return
    names = [path.name for path in predictions.iterdir()]
    there = {name[: -len(file_ending)] for name in names if name.endswith(file_ending)}
    if there and not there <= set(validation()):
        archive_validation(folder, log)
    # An evaluation of predictions that are about to be replaced.
    archive(predictions / REPORT_NAME, log)


def refuse_learned(
    train: Collection[str], val: Collection[str], trained_on: Sequence[str], fold: int | str
) -> None:
    """Refuse to validate a network on cases that it was trained on.

    Args:
        train: cases of the fold as it is now.
        val: likewise.
        trained_on: cases that the network has seen labels of.
        fold: number or ``"all"``.

    Raises:
        UserError: ``splits_final.json`` was changed since, so that some of them are in ``val``.
    """
    if learned := sorted(set(val) & set(trained_on) - set(train)):
        raise UserError(
            f"'val' of fold {fold} has cases that this network was trained on: "
            f"{', '.join(learned)}. {SPLITS_FILE} was changed after the training began. Put "
            f"these cases back into 'train' of the fold (it trained on: "
            f"{', '.join(trained_on)}), or train anew, without --c and --val."
        )
