"""Check a design against the data set, the model and the trainer before anything is written."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_semisup.errors import UserError
from nnunet_semisup.inference.request import Request
from nnunet_semisup.method import IGNORE_LABEL, Method
from nnunet_semisup.preparation.folds import fold_faults, read_splits
from nnunet_semisup.preparation.layout import (
    FINGERPRINT_FILE,
    IMAGES_UNLABELED,
    SPLITS_FILE,
    UNLABELED_KEY,
)
from nnunet_semisup.preparation.raw import (
    bullet_list,
    list_images,
    named,
    read_dataset_json,
    training_images,
)
from nnunet_semisup.registry import METHODS, method_of
from nnunet_semisup.rounds.design import EPOCH, SUPERVISED, Design, Layout, write_design
from nnunet_semisup.training.settings import Settings, split_assignments

_RANGES = {
    "drop": (0.0, 0.9),
    "fragments_limit": (0.0, 1.0),
    "labeled_share": (0.0, 0.95),
    "converged": (0.0, 1.0),
}


def plan_rounds(layout: Layout, design: Design) -> None:
    """Write the design of rounds.

    Raises:
        UserError: something does not fit, all at once, or the folder is in use.
    """
    faults = [*_folder_faults(layout), *_number_faults(design)]
    faults += _dataset_faults(design) + _trainer_faults(design)
    if not faults:
        try:
            request = Request(
                images=str(design.raw_folder / IMAGES_UNLABELED),
                output=str(layout.folder / "labels"),
                model=Path(design.model),
                folds=design.folds,
                checkpoint=design.checkpoint,
            )
            request.checked()
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError(
            f"These rounds cannot be made:\n{bullet_list(faults)}\nNothing was written."
        )
    write_design(layout, design)


def _folder_faults(layout: Layout) -> list[str]:
    if layout.folder.exists() and (not layout.folder.is_dir() or any(layout.folder.iterdir())):
        return [f"{layout.folder} is in use; give a new or an empty folder"]
    return []


def _number_faults(design: Design) -> list[str]:
    faults = []
    if design.rounds < 1:
        faults.append(f"--rounds {design.rounds}: give 1 or more")
    for name, (low, high) in _RANGES.items():
        value = getattr(design, name)
        if not low <= value <= high:
            faults.append(f"--{name.replace('_', '-')} {value}: give {low:g} to {high:g}")
    if design.size_limit and design.size_limit < 1:
        faults.append(f"--size-limit {design.size_limit}: give 1 or more, or 0 for none")
    if design.confidence and not 0.5 < design.confidence < 1:
        faults.append(f"--confidence {design.confidence}: give 0.5 to 1, or 0 to ignore no voxel")
    for option, steps in (("--steps", design.steps), ("--fine-tune", design.fine_tune)):
        if steps and (steps < 0 or (steps > EPOCH and steps % EPOCH)):
            faults.append(f"{option} {steps}: give a multiple of {EPOCH}, or less than that")
    return faults


def _dataset_faults(design: Design) -> list[str]:
    """Return what the data set lacks for rounds."""
    content = read_dataset_json(design.raw_folder)
    faults, images = [], design.raw_folder / IMAGES_UNLABELED
    unlabeled = list_images(images, content["file_ending"]).cases
    labeled = set(training_images(design.raw_folder, content))
    if not unlabeled:
        faults.append(f"{images} has no unlabeled scan")
    if both := sorted(labeled & unlabeled.keys()):
        faults.append(
            f"{images} has cases of imagesTr: {named(both)}; take them out of {IMAGES_UNLABELED}, "
            "since predicted labels would replace their own"
        )
    folder = design.preprocessed_folder
    for name in (f"{design.plans}.json", FINGERPRINT_FILE):
        if not (folder / name).is_file():
            faults.append(
                f"{folder} has no {name}; run nnUNetv2_semisup_plan_and_preprocess -d "
                f"{design.number}"
            )
    return faults + _fold_faults(design, labeled)


def _fold_faults(design: Design, known: set[str]) -> list[str]:
    splits_file = design.preprocessed_folder / SPLITS_FILE
    splits = read_splits(splits_file)
    faults = []
    for number in design.folds:
        if number >= len(splits):
            faults.append(
                f"{splits_file} has no fold {number}. Rounds need cases with labels to validate "
                "on, so fold 'all' is none of them; write the file, or train five folds"
            )
    for number, fold in enumerate(splits):
        faults += fold_faults(splits_file, number, known, "not in imagesTr", "put them there")
        if fold.get(UNLABELED_KEY):
            faults.append(
                f"{splits_file}, fold {number}: '{UNLABELED_KEY}' names cases of imagesTr; move "
                f"their images to {IMAGES_UNLABELED}, where rounds look for unlabeled scans"
            )
    return faults


def _trainer_faults(design: Design) -> list[str]:
    """Return why the trainer cannot train these rounds."""
    method = method_of_trainer(design.trainer)
    if method is None:
        if _trainer_class(design.trainer) is None:
            return [f"--trainer {design.trainer}: nnU-Net finds no such trainer"]
        told = design.steps is not None or design.settings
        return [
            "--steps and --settings are read by trainers of this package, not by "
            f"{design.trainer}; leave them out, or take {SUPERVISED}, which trains as nnUNetTrainer"
        ] * bool(told)
    faults = _settings_faults(design)
    if design.confidence and IGNORE_LABEL not in method.labels:
        faults.append(
            f"--trainer {design.trainer} cannot train with ignored voxels; give --confidence 0"
        )
    if design.fine_tune and method.predicts_as != "nnUNetTrainer":
        faults.append(
            f"--fine-tune: the network of {design.trainer} is not nnUNetTrainer's; leave it out"
        )
    return faults


def settings_of(trainer: str, steps: int | None, settings: str) -> str:
    """Return ``nnUNet_semisup_set`` of a training; empty for trainers that do not read it.

    The seed is fixed, so that a training which is killed before its first checkpoint begins as it
    did. Checkpoints are written every epoch or, of long trainings, a hundred times. What the user
    sets counts in place of that.

    Args:
        trainer: name of the class.
        steps: ``None``: as the trainer has it.
        settings: of the user, as ``nnUNet_semisup_set`` takes them.

    Raises:
        UserError: they cannot be read.
    """
    if method_of_trainer(trainer) is None:
        return ""
    parts: dict[str, object] = {"seed": 0}
    if steps:
        epochs = max(1, steps // EPOCH)
        parts |= {
            "num_epochs": epochs,
            "num_iterations_per_epoch": steps // epochs,
            "num_val_iterations_per_epoch": max(1, min(50, steps // epochs // 5)),
            "save_every": max(1, epochs // 100),
        }
    parts |= split_assignments(settings)
    return ",".join(f"{name}={value}" for name, value in parts.items())


def _settings_faults(design: Design) -> list[str]:
    """Return what the trainer does not know, or not in this range."""
    try:
        text = settings_of(design.trainer, design.steps, design.settings)
        Settings.of(_trainer_class(design.trainer), text)
    except UserError as error:
        return [f"--settings: {error}"]
    return []


def method_of_trainer(name: str) -> Method | None:
    """Return the registry's row of a trainer; ``None`` for one of nnU-Net's or the user's own."""
    listed = next((method for method in METHODS if method.trainer == name), None)
    if listed is not None:
        return listed
    found = _trainer_class(name)
    return method_of(found) if found else None


def _trainer_class(name: str) -> Any:
    """Return a trainer as nnU-Net finds it, which tells much; ``None`` where it finds none."""
    try:
        with redirect_stdout(StringIO()):
            return recursive_find_trainer_class_by_name(name)
    except RuntimeError:
        return None
