"""Record of a training: what it says about itself in its log and in ``semisup_config.json``."""

from __future__ import annotations

from os.path import join
from typing import Any

from nnunet_semisup.networks.bfloat16 import slow_bfloat16_note
from nnunet_semisup.preparation.folds import hidden_by_other_folds
from nnunet_semisup.preparation.layout import SPLITS_FILE, UNLABELED_KEY
from nnunet_semisup.training.settings import forced_patches

OVERSAMPLING = "oversample_foreground_percent"


def notes_of_run(trainer: Any) -> list[str]:
    """Return what the log says at the start of a training, about labels and the processor."""
    hidden = hidden_labels_note(trainer.preprocessed_dataset_folder_base, trainer.fold)
    drawn = oversampling_note(
        trainer.configuration_manager.batch_size,
        trainer.hyperparameters()[OVERSAMPLING],
        trainer.probabilistic_oversampling,
    )
    mixed = trainer.cpu_bfloat16 and trainer.device.type == "cpu"
    slow = slow_bfloat16_note() if mixed else None
    return [note for note in (hidden, slow, drawn) if note]


def oversampling_note(batch_size: int, fraction: float, probabilistic: bool) -> str:
    """Return what ``oversample_foreground_percent`` comes to in a batch of the plan's size."""
    if probabilistic:
        return f"Each labeled patch is centred on foreground with probability {fraction:g}"
    forced = forced_patches(batch_size, fraction)
    patches = f"{forced} of {batch_size} labeled patches"
    note = f"{OVERSAMPLING}={fraction:g} centres {patches} on foreground"
    if forced or not fraction:
        return note
    least = 0.5 / batch_size
    return f"WARNING: {note}. Above {least:.3g} it is 1; or set probabilistic_oversampling=True"


def hidden_labels_note(dataset_folder: str, fold: int | str) -> str | None:
    """Return a warning where labels are used that the data set's folds hide; else ``None``.

    Args:
        dataset_folder: the data set's folder in ``nnUNet_preprocessed``.
        fold: number or ``"all"``.
    """
    hidden = hidden_by_other_folds(join(dataset_folder, SPLITS_FILE), fold)
    if not hidden:
        return None
    return (
        f"WARNING: fold {fold} is not in {SPLITS_FILE}, whose folds hide labels (key "
        f"'{UNLABELED_KEY}', cases: {len(hidden)}). Here they are used like all others of "
        "imagesTr. Train a fold of the file to keep them hidden."
    )
