"""Checks of the raw unlabeled images, all of them before anything is written."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_semisup.errors import UserError
from nnunet_semisup.headers.nifti import NIBABEL_READERS
from nnunet_semisup.parallel import run_parallel
from nnunet_semisup.preparation.folds import folds_with_unlabeled, unlabeled_of_fold
from nnunet_semisup.preparation.image_files import read_header
from nnunet_semisup.preparation.labeled_headers import refuse_misread
from nnunet_semisup.preparation.layout import (
    FINGERPRINT_FILE,
    IMAGES_UNLABELED,
    SPLITS_FILE,
    UNLABELED_KEY,
)
from nnunet_semisup.preparation.orientation import (
    ADVICE,
    REORIENTING_READERS,
    PlacedScan,
    file_axes,
    turned_warning,
)
from nnunet_semisup.preparation.raw import (
    DatasetFolders,
    ImageFolder,
    bullet_list,
    in_order,
    list_images,
    num_channels,
    read_dataset_json,
    training_images,
)
from nnunet_semisup.preparation.rules import Accepted, channel_faults, identifier_faults
from nnunet_semisup.preparation.sources import SourceFile, UnlabeledCase
from nnunet_semisup.preparation.unlabeled_case import Reference, inspect_unlabeled

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager


@dataclass(frozen=True)
class CheckedDataset:
    """Hold the outcome of :func:`check_dataset`, to be passed on to whoever needs it.

    ``reader`` is the name of nnU-Net's class that read the images, ``cases`` are those of
    ``imagesUn`` (none when only the key of the splits is used), ``folds_with_key`` the folds with
    that key. The user should be told ``notes``, and ``warnings`` before anything is written.
    """

    folders: DatasetFolders
    reader: str
    cases: tuple[UnlabeledCase, ...]
    folds_with_key: tuple[int, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def check_dataset(
    folders: DatasetFolders,
    plans_manager: PlansManager | None = None,
    known: Mapping[str, Sequence[SourceFile]] | None = None,
    num_processes: int = 0,
    show_progress: bool = True,
    allow_constant_channels: bool = False,
) -> CheckedDataset:
    """Check everything a data set says about unlabeled cases; nothing is written.

    Args:
        folders: raw and preprocessed folder of the data set.
        plans_manager: plan whose reader is used; without one, nnU-Net's choice for the data set.
        known: files by case id that passed before; cases whose files are unchanged since are not
            read again.
        num_processes: spawned processes; 0 reads in this process.
        show_progress: whether to show a progress bar.
        allow_constant_channels: accept cases in which a channel has one value in every voxel. A
            data set that was converted so is always accepted.

    Raises:
        UserError: there are neither images in ``imagesUn`` nor an ``"unlabeled"`` key in the
            splits, or something is wrong with them; every fault is in the one message.
    """
    dataset_json = read_dataset_json(folders.raw)
    training = training_images(folders.raw, dataset_json)
    first = next(iter(training.values()))[0]
    reader_class = _reader_class(dataset_json, first, plans_manager)
    refuse_misread(folders.raw, dataset_json, training, reader_class.__name__)
    listed = list_images(folders.raw / IMAGES_UNLABELED, dataset_json["file_ending"])
    folds, notes = _folds_with_key(folders, training)
    notes += [f"ignored in {IMAGES_UNLABELED}: {name}" for name in listed.junk]
    test = list_images(folders.raw / "imagesTs", dataset_json["file_ending"])
    warnings = _turned_scans(training, listed, test, reader_class.__name__)
    outcome = partial(CheckedDataset, folders, reader_class.__name__)
    if not listed.cases and not listed.faults:
        if not folds:
            raise UserError(_nothing_unlabeled(folders, dataset_json, notes))
        notes.append(
            f"{folders.name} has no images in {IMAGES_UNLABELED}; its unlabeled cases are those "
            f"under '{UNLABELED_KEY}' in {SPLITS_FILE} (folds {', '.join(map(str, folds))})."
        )
        return outcome((), tuple(folds), tuple(notes), warnings)
    accepted = Accepted(allow_constant_channels).or_as_converted(folders.raw)
    reference = replace(
        _training_reference(folders, dataset_json, training, reader_class), accepted=accepted
    )
    ids = (training.keys(), test.cases.keys())
    cases, found = _check_images(
        folders, listed, ids, reference, known, num_processes, show_progress
    )
    return outcome(tuple(cases), tuple(folds), tuple(notes), (*warnings, *found))


def _nothing_unlabeled(
    folders: DatasetFolders, dataset_json: dict[str, Any], notes: Sequence[str]
) -> str:
    folder = folders.raw / IMAGES_UNLABELED
    state = "has no image in it" if folder.is_dir() else "does not exist"
    ending = dataset_json["file_ending"]
    return "\n".join(
        [
            f"{folders.name} has no unlabeled cases: {folder} {state}, and no fold of "
            f"{SPLITS_FILE} has the key '{UNLABELED_KEY}'. Provide them in one of two ways:",
            f"  1. put images without labels into {folder}, named like those of imagesTr "
            f"(<case>_0000{ending}, one file a channel, ids not used in imagesTr or imagesTs);",
            f"  2. or add '{UNLABELED_KEY}': [ids] beside 'train' and 'val' to a fold in "
            f"{folders.raw / SPLITS_FILE} (before planning) or {folders.preprocessed / SPLITS_FILE}"
            ", with ids of imagesTr; their labels are then never read in training.",
            *notes,
        ]
    )


def _folds_with_key(
    folders: DatasetFolders, training: Mapping[str, Any]
) -> tuple[list[int], list[str]]:
    raw, used = folders.raw / SPLITS_FILE, folders.preprocessed / SPLITS_FILE
    notes = []
    if not used.is_file():
        used = raw
    elif folds_with_unlabeled(raw) and not folds_with_unlabeled(used):
        notes.append(
            f"the key '{UNLABELED_KEY}' in {raw} has no effect: nnU-Net reads {used}, which exists "
            "and does not have it. Add it there, or remove that file and plan again."
        )
    folds = folds_with_unlabeled(used)
    for fold in folds:
        unlabeled_of_fold(used, fold, training.keys())
    return folds, notes


def _turned_scans(
    training: Mapping[str, list[Path]], listed: ImageFolder, test: ImageFolder, reader: str
) -> tuple[str, ...]:
    """Return a line about scans with axes in another order, unless the reader turns them."""
    if reader in REORIENTING_READERS:
        return ()
    firsts = {("imagesTr", case): files[0] for case, files in training.items()}
    for folder, images in ((IMAGES_UNLABELED, listed), ("imagesTs", test)):
        firsts |= {(folder, case): in_order(files)[0] for case, files in images.cases.items()}
    scans = [
        PlacedScan(case, folder, file_axes(path, reader == "NibabelIO"))
        for (folder, case), path in firsts.items()
    ]
    warning = turned_warning(scans, ADVICE)
    return () if warning is None else (warning,)


def _training_reference(
    folders: DatasetFolders,
    dataset_json: dict[str, Any],
    training: Mapping[str, list[Path]],
    reader_class: type[Any],
) -> Reference:
    first = next(iter(training.values()))
    factor = 1.0
    try:
        header = read_header(first[0])
        if header is not None and reader_class.__name__ in NIBABEL_READERS:
            factor = header.factor
        spacings = _training_spacings(folders, training, reader_class, factor)
    except Exception as error:  # readers raise whatever their library raises
        raise UserError(
            f"The training images cannot serve as reference: {type(error).__name__}: {error}. "
            "Run nnUNetv2_plan_and_preprocess with --verify_dataset_integrity first."
        ) from error
    ranges = tuple(
        (min(axis), max(axis)) for axis in zip(*(sorted(s) for s in spacings), strict=True)
    )
    return Reference(
        reader_class=reader_class,
        num_files=len(first),
        num_channels=num_channels(dataset_json),
        dimension=None if header is None else header.dimension,
        unit="mm" if header is None else header.unit,
        factor=factor,
        spacing_range=ranges,
    )


def _reader_class(
    dataset_json: dict[str, Any], example: Path, plans_manager: PlansManager | None
) -> type[Any]:
    if plans_manager is not None:
        return plans_manager.image_reader_writer_class
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    try:
        return determine_reader_writer_from_dataset_json(dataset_json, str(example), verbose=False)
    except RuntimeError as error:
        raise UserError(f"nnU-Net has no reader for {example}: {error}") from error


def _training_spacings(
    folders: DatasetFolders,
    training: Mapping[str, list[Path]],
    reader_class: type[Any],
    factor: float,
) -> list[Sequence[float]]:
    """Return spacings in mm: the fingerprint's (``factor`` is that of its numbers), else headers'.

    A fingerprint that other cases were counted for, or that is older than an image, does not count.
    """
    fingerprint = folders.preprocessed / FINGERPRINT_FILE
    if fingerprint.is_file():
        written = fingerprint.stat().st_mtime
        known = json.loads(fingerprint.read_text(encoding="utf-8"))["spacings"]
        newest = max(file.stat().st_mtime for files in training.values() for file in files)
        if len(known) == len(training) and newest <= written:
            return [[float(step) * factor for step in spacing] for spacing in known]
    _, properties = reader_class().read_images([str(next(iter(training.values()))[0])])
    spacings: list[Sequence[float]] = [[float(s) * factor for s in properties["spacing"]]]
    for files in training.values():
        header = read_header(files[0])
        if header is not None and header.dimension == len(spacings[0]):
            spacings.append(header.spacing)
    return spacings


def _check_images(
    folders: DatasetFolders,
    listed: ImageFolder,
    labeled_and_test: tuple[Collection[str], Collection[str]],
    reference: Reference,
    known: Mapping[str, Sequence[SourceFile]] | None,
    num_processes: int,
    show_progress: bool,
) -> tuple[list[UnlabeledCase], list[str]]:
    """Return the cases, and what was accepted in those that were read."""
    faults = list(listed.faults)
    for identifier, files in listed.cases.items():
        faults += identifier_faults(identifier, *labeled_and_test)
        faults += channel_faults(identifier, files, reference.num_files, listed.file_ending)
    sources: dict[str, Sequence[SourceFile]] = {}
    to_read = {}
    for identifier, files in listed.cases.items():
        side_file = listed.side_files.get(identifier)
        recorded = (known or {}).get(identifier, ())
        if _unchanged(in_order(files), side_file, recorded):
            sources[identifier] = recorded
        else:
            to_read[identifier] = (identifier, in_order(files), side_file, reference)
    inspections = run_parallel(
        inspect_unlabeled, to_read, num_processes, f"Checking {IMAGES_UNLABELED}", show_progress
    )
    warnings: list[str] = []
    for identifier, inspection in inspections.items():
        sources[identifier] = inspection.sources
        faults += inspection.faults
        warnings += inspection.notes
    if faults:
        raise UserError(
            f"{len(faults)} fault(s) in {folders.raw / IMAGES_UNLABELED}; nothing was written:\n"
            f"{bullet_list(faults)}\n"
            "Unlabeled images must be like those of imagesTr: same channels, file ending, "
            "dimension and spacing unit. Correct or remove these files and run the command again."
        )
    cases = [
        UnlabeledCase(identifier, tuple(in_order(files)), tuple(sources[identifier]))
        for identifier, files in listed.cases.items()
    ]
    return cases, warnings


def _unchanged(
    images: Sequence[Path], side_file: Path | None, recorded: Sequence[SourceFile]
) -> bool:
    paths = [*images, *([] if side_file is None else [side_file])]
    return len(paths) == len(recorded) and all(
        source.unchanged(path) for path, source in zip(paths, recorded, strict=True)
    )
