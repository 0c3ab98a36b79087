"""The preprocessed unlabeled cases of a fold, and whether they fit plan and raw data set."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from os.path import isdir, isfile, join
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nnunet_semisup.data.unlabeled import UnlabeledDataset
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.folds import unlabeled_of_fold
from nnunet_semisup.preparation.layout import (
    IMAGES_UNLABELED,
    SPLITS_FILE,
    UNLABELED_KEY,
    stamp_file,
    unlabeled_folder,
)
from nnunet_semisup.preparation.plans import DEFAULT_PLANS
from nnunet_semisup.preparation.raw import bullet_list, named, unlabeled_ids
from nnunet_semisup.preparation.sources import SourceFile
from nnunet_semisup.preparation.stamp import plans_hash, read_stamp

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager


class UnlabeledOfFold(NamedTuple):
    """Hold the unlabeled cases of a fold.

    Attributes:
        folders: case id to the folder of its preprocessed files.
        unused: ids of images in ``imagesUn`` that are not preprocessed and therefore not used.
    """

    folders: dict[str, str]
    unused: tuple[str, ...]


def find_unlabeled(
    dataset_folder: str, plans_manager: PlansManager, configuration: str, fold: int | str
) -> UnlabeledOfFold:
    """Return the unlabeled cases of a fold, from ``imagesUn`` and from its ``"unlabeled"`` key.

    Args:
        dataset_folder: the data set's folder in ``nnUNet_preprocessed``.
        plans_manager: current plans.
        configuration: name of the configuration.
        fold: number of the fold or ``"all"``.

    Raises:
        UserError: no unlabeled case at all, plans that changed since preprocessing, files missing,
            cases that are labeled and unlabeled at once, or that are no longer in ``imagesUn``.
    """
    identifier = plans_manager.get_configuration(configuration).data_identifier
    labeled_folder = join(dataset_folder, identifier)
    folder = unlabeled_folder(dataset_folder, identifier)
    images = check_preprocessed(dataset_folder, plans_manager, configuration)
    raw = unlabeled_ids(plans_manager.dataset_name)
    known = UnlabeledDataset.get_identifiers(labeled_folder) if isdir(labeled_folder) else []
    _refuse_outdated(images, known, raw, plans_manager, configuration)
    cases = dict.fromkeys(images, str(folder))
    splits_file = join(dataset_folder, SPLITS_FILE)
    if isfile(splits_file) and isdir(labeled_folder):
        listed = unlabeled_of_fold(splits_file, fold, known)
        cases.update(dict.fromkeys(listed, labeled_folder))
    name = plans_manager.dataset_name
    if not cases or (not images and raw):
        what = "Unlabeled images that are not preprocessed" if cases else "No unlabeled case"
        raise UserError(
            f"{what} for {name}, configuration {configuration}, fold {fold}. "
            f"{_how_to_provide(len(raw), plans_manager, configuration, splits_file)}"
        )
    return UnlabeledOfFold(cases, tuple(sorted(set(raw) - set(cases))))


def unused_note(
    unused: Sequence[str], plans_manager: PlansManager, configuration: str
) -> str | None:
    """Say which images of ``imagesUn`` a training does not use, and what to do; or ``None``.

    Args:
        unused: their ids.
        plans_manager: current plans.
        configuration: name of the configuration.
    """
    if not unused:
        return None
    return (
        f"{IMAGES_UNLABELED} holds cases that are not preprocessed and therefore not used "
        f"({named(unused)}). To use them: {_command(plans_manager, configuration)}"
    )


def _refuse_outdated(
    images: Collection[str],
    labeled: Iterable[str],
    raw: Collection[str],
    plans_manager: PlansManager,
    configuration: str,
) -> None:
    """Refuse preprocessed images of which the user has labels now, or which were taken away."""
    name, command = plans_manager.dataset_name, _command(plans_manager, configuration)
    if both := sorted(set(images) & set(labeled)):
        raise UserError(
            f"Cases of {name} are preprocessed as labeled and as unlabeled ones ({named(both)}): "
            "training would use images of validation cases. Remove these images from "
            f"{IMAGES_UNLABELED} if they are still there, then run: {command}"
        )
    if raw and (gone := sorted(set(images) - set(raw))):
        raise UserError(
            f"Preprocessed unlabeled cases of {name} are no longer in {IMAGES_UNLABELED} "
            f"({named(gone)}). Put them back, or remove what was made of them: {command}"
        )


def _command(plans_manager: PlansManager, configuration: str) -> str:
    command = f"nnUNetv2_semisup_preprocess -d {plans_manager.dataset_name[7:10]}"
    command += f" -c {configuration}"
    if plans_manager.plans_name != DEFAULT_PLANS:
        command += f" -plans_name {plans_manager.plans_name}"
    return command


def _how_to_provide(
    number: int, plans_manager: PlansManager, configuration: str, splits_file: str
) -> str:
    """Say what to do where a fold has no unlabeled case; ``number`` of images in ``imagesUn``."""
    name, command = plans_manager.dataset_name, _command(plans_manager, configuration)
    if number:
        what = "1 case that is" if number == 1 else f"{number} cases that are"
        where = f"{IMAGES_UNLABELED} holds {what} not preprocessed for {configuration}"
        return f"{where}. Run: {command}"
    return (
        "Provide them in one of two ways: put images named like those of imagesTr into "
        f"nnUNet_raw/{name}/{IMAGES_UNLABELED} and run {command}; or list ids of preprocessed "
        f'cases under the key "{UNLABELED_KEY}" of the fold in {splits_file} (their labels are '
        "then never read)."
    )


def check_preprocessed(
    preprocessed_dataset_folder: str | Path, plans_manager: PlansManager, configuration: str
) -> list[str]:
    """Return the ids of the preprocessed unlabeled cases, after checking that they fit the plan.

    Args:
        preprocessed_dataset_folder: folder of the data set in ``nnUNet_preprocessed``.
        plans_manager: the plan that the training uses.
        configuration: name of the configuration that the training uses.

    Returns:
        Sorted ids; empty when unlabeled images were never preprocessed for this configuration.

    Raises:
        UserError: the cases were made under another plan, preprocessing was interrupted, or files
            are missing; the message has the command to run.
    """
    identifier = plans_manager.get_configuration(configuration).data_identifier
    folder = unlabeled_folder(preprocessed_dataset_folder, identifier)
    stamp_path = stamp_file(preprocessed_dataset_folder, identifier)
    stamp = read_stamp(stamp_path)
    if stamp is None and not folder.exists():
        return []
    remedy = f"Run: {_command(plans_manager, configuration)}"
    if stamp is None:
        raise UserError(
            f"{folder} has no {stamp_path.name} beside it, so its origin is unknown. Move the "
            f"folder away. {remedy}"
        )
    if stamp.plans_hash != plans_hash(plans_manager, configuration):
        raise UserError(
            f"The unlabeled cases in {folder} were preprocessed under another state of plan "
            f"{plans_manager.plans_name}, configuration {configuration} (the reader, the "
            f"spacing, the normalization or the resampling differ). {remedy}"
        )
    missing = _missing_cases(folder, stamp.cases)
    if missing or not stamp.complete:
        reason = "files are missing" if stamp.complete else "preprocessing was interrupted"
        raise UserError(
            f"{folder} is incomplete ({reason}): {len(stamp.cases) - len(missing)} of "
            f"{len(stamp.cases)} cases are there. Missing:\n{bullet_list(missing) or '  none'}\n"
            f"{remedy}"
        )
    return sorted(stamp.cases)


def _missing_cases(folder: Path, cases: Mapping[str, tuple[SourceFile, ...]]) -> list[str]:
    """Return the cases without an image; training reads it alone, so a mask file may be absent."""
    images = (".b2nd", ".npz", ".npy")
    return [
        identifier
        for identifier in sorted(cases)
        if not any((folder / f"{identifier}{suffix}").is_file() for suffix in images)
    ]
