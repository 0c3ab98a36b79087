"""Preprocessing of unlabeled images with the plan's own preprocessor.

A kill at any moment leaves a folder from which the next run continues. Every case is made in a
temporary folder, then its files are moved into place, and it counts as done only when all of them
are there. Outdated files are removed before the stamp is replaced, atomically, by one that lists
all cases and is not yet complete, so a file in the folder always belongs to the stamp's plan and
source files.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle

from nnunet_semisup.errors import UserError
from nnunet_semisup.parallel import run_parallel
from nnunet_semisup.preparation.layout import (
    FILE_SETS,
    IMAGES_UNLABELED,
    is_whole,
    partial_folder,
    stamp_file,
    unlabeled_folder,
)
from nnunet_semisup.preparation.lock import exclusive_lock
from nnunet_semisup.preparation.plans import (
    DEFAULT_CONFIGURATIONS,
    DEFAULT_PLANS,
    choose_configurations,
    load_plans,
    refuse_cascade,
)
from nnunet_semisup.preparation.raw import DatasetFolders, find_dataset, read_dataset_json
from nnunet_semisup.preparation.sources import SourceFile, UnlabeledCase
from nnunet_semisup.preparation.stamp import Stamp, plans_hash, read_stamp, write_stamp
from nnunet_semisup.preparation.unlabeled_images import CheckedDataset, check_dataset

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

_PROPERTIES_SUFFIX = ".pkl"
# nnU-Net unpacks .npz into these.
_UNPACKED = (".npy", "_seg.npy")


def preprocess_unlabeled(
    dataset_name_or_id: str | int,
    configurations: Sequence[str] = DEFAULT_CONFIGURATIONS,
    plans_identifier: str = DEFAULT_PLANS,
    num_processes: Sequence[int] = (8, 4, 8),
    *,
    checked: CheckedDataset | None = None,
    verbose: bool = False,
    show_progress: bool = True,
    allow_constant_channels: bool = False,
) -> dict[str, list[str]]:
    """Preprocess the images of ``imagesUn`` for some configurations of a plan.

    Cases that were made under an equal plan from the same files are kept. When the plan changed
    in what concerns preprocessing, the folder of this package is made anew.

    Args:
        dataset_name_or_id: data set in ``nnUNet_raw``.
        configurations: names in the plan; of nnU-Net's standard ones, those that the plan does
            not have are skipped.
        plans_identifier: name of the plans file.
        num_processes: spawned processes for each configuration, or one number for all; 0 works in
            this process.
        checked: of ``check_dataset`` for this data set, whose images then are not listed, read
            and told of again, unless the plan has another reader.
        verbose: passed to the preprocessor.
        show_progress: whether to show progress bars.
        allow_constant_channels: accept cases in which a channel has one value in every voxel.

    Returns:
        The ids of the preprocessed cases by configuration; empty when only the ``"unlabeled"``
        key of the splits is used.

    Raises:
        UserError: before anything is written; see :func:`check_before_preprocessing`.
        RuntimeError: a case failed or a process died; finished cases are kept.
    """
    work = check_before_preprocessing(
        dataset_name_or_id,
        configurations,
        plans_identifier,
        num_processes,
        checked=checked,
        show_progress=show_progress,
        allow_constant_channels=allow_constant_channels,
    )
    return preprocess_checked(work, verbose, show_progress)


@dataclass(frozen=True)
class CheckedPreprocessing:
    """Hold what :func:`check_before_preprocessing` found fit; ``processes`` is by configuration."""

    folders: DatasetFolders
    plans_manager: PlansManager
    configurations: Sequence[str]
    processes: Mapping[str, int]
    cases: Sequence[UnlabeledCase]


def check_before_preprocessing(
    dataset_name_or_id: str | int,
    configurations: Sequence[str] = DEFAULT_CONFIGURATIONS,
    plans_identifier: str = DEFAULT_PLANS,
    num_processes: Sequence[int] = (8, 4, 8),
    *,
    checked: CheckedDataset | None = None,
    show_progress: bool = True,
    allow_constant_channels: bool = False,
) -> CheckedPreprocessing:
    """Make the checks of :func:`preprocess_unlabeled`, with its arguments; write nothing.

    Raises:
        UserError: see ``unlabeled_images.check_dataset``; moreover, a plan or
            configuration that cannot be used.
    """
    folders = find_dataset(dataset_name_or_id)
    refuse_cascade(configurations)
    processes = _processes(configurations, num_processes)
    plans_manager = load_plans(folders, plans_identifier)
    chosen = choose_configurations(plans_manager, configurations, plans_identifier)
    stamps = {name: _own_stamp(folders, plans_manager, name) for name in chosen}
    if checked is None or checked.reader != plans_manager.image_reader_writer_class.__name__:
        checked = check_dataset(
            folders,
            plans_manager,
            _checked_before(plans_manager, stamps),
            _checking(max(processes[name] for name in chosen)),
            show_progress,
            allow_constant_channels,
        )
        warn(checked)
    report(checked)
    if not checked.cases:
        _refuse_left_over(folders, plans_manager, stamps)
    return CheckedPreprocessing(folders, plans_manager, tuple(stamps), processes, checked.cases)


def preprocess_checked(
    checked: CheckedPreprocessing, verbose: bool = False, show_progress: bool = True
) -> dict[str, list[str]]:
    """Do what :func:`preprocess_unlabeled` does after the checks, with its result.

    Raises:
        UserError: another process preprocesses the same images.
        RuntimeError: a case failed or a process died; finished cases are kept.
    """
    if not checked.cases:
        return {}
    folders, cases = checked.folders, checked.cases
    dataset_json = read_dataset_json(folders.preprocessed)
    for name in checked.configurations:
        job = _Job(folders.preprocessed, checked.plans_manager, name, dataset_json, verbose)
        if _is_finished(job, cases):
            print(f"{name}: 0 cases to preprocess, {len(cases)} already done.")
            continue
        with exclusive_lock(job.folder):
            _preprocess_configuration(job, cases, checked.processes[name], show_progress)
    return {name: [case.identifier for case in cases] for name in checked.configurations}


def _processes(configurations: Sequence[str], num_processes: Sequence[int]) -> dict[str, int]:
    if len(num_processes) not in (1, len(configurations)):
        raise UserError(
            f"{len(num_processes)} numbers of processes for {len(configurations)} configurations; "
            "give one number, or one for each configuration."
        )
    counts = list(num_processes) * (len(configurations) if len(num_processes) == 1 else 1)
    return dict(zip(configurations, counts, strict=True))


def _checking(processes: int) -> int:
    """Return how many processes to start for checking: it takes less time than to start one."""
    return 0 if processes == 1 else processes


def warn(checked: CheckedDataset) -> None:
    """Print what a check found that the user may want to stop for."""
    for warning in checked.warnings:
        print(f"warning: {warning}", flush=True)


def report(checked: CheckedDataset) -> None:
    """Print what a check found: notes and the number of cases."""
    for note in checked.notes:
        print(f"note: {note}")
    if checked.cases:
        print(f"{len(checked.cases)} unlabeled cases passed the checks.")


def _own_stamp(
    folders: DatasetFolders, plans_manager: PlansManager, configuration_name: str
) -> Stamp | None:
    identifier = plans_manager.get_configuration(configuration_name).data_identifier
    stamp = read_stamp(stamp_file(folders.preprocessed, identifier))
    folder = unlabeled_folder(folders.preprocessed, identifier)
    if stamp is None and folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"{folder} exists without {stamp_file(folders.preprocessed, identifier).name} beside "
            "it, so it may hold files of another program and is not touched. Move it away and run "
            "the command again."
        )
    return stamp


def _refuse_left_over(
    folders: DatasetFolders, plans_manager: PlansManager, stamps: Mapping[str, Stamp | None]
) -> None:
    """Refuse preprocessed images where ``imagesUn`` is empty: a training would use them."""
    for name, stamp in stamps.items():
        if stamp is not None and stamp.cases:
            identifier = plans_manager.get_configuration(name).data_identifier
            raise UserError(
                f"{folders.raw / IMAGES_UNLABELED} has no image, but {len(stamp.cases)} unlabeled "
                f"cases are preprocessed for {name}, and training uses them. Put the images back, "
                f"or, to do without them, remove {stamp_file(folders.preprocessed, identifier)} "
                f"and {unlabeled_folder(folders.preprocessed, identifier)}."
            )


def _checked_before(
    plans_manager: PlansManager, stamps: Mapping[str, Stamp | None]
) -> dict[str, tuple[SourceFile, ...]]:
    """Return the source files by case that passed the checks of a run under an equal plan."""
    known: dict[str, tuple[SourceFile, ...]] = {}
    for name, stamp in stamps.items():
        if stamp is not None and stamp.plans_hash == plans_hash(plans_manager, name):
            known.update(stamp.cases)
    return known


class _Job:
    """Make the cases of one configuration of one data set and move them to their place.

    An instance is sent to the worker processes.
    """

    def __init__(
        self,
        preprocessed: Path,
        plans_manager: PlansManager,
        configuration_name: str,
        dataset_json: dict[str, Any],
        verbose: bool,
    ) -> None:
        self.plans_manager = plans_manager
        self.configuration_name = configuration_name
        self.configuration = plans_manager.get_configuration(configuration_name)
        self.dataset_json = dataset_json
        self.verbose = verbose
        identifier = self.configuration.data_identifier
        self.folder = unlabeled_folder(preprocessed, identifier)
        self.partial = partial_folder(preprocessed, identifier)
        self.stamp_path = stamp_file(preprocessed, identifier)

    def new_stamp(self, cases: Sequence[UnlabeledCase]) -> Stamp:
        """Return the stamp of this plan for ``cases``, not yet complete."""
        return Stamp(
            plans_hash=plans_hash(self.plans_manager, self.configuration_name),
            plans_name=self.plans_manager.plans_name,
            configuration=self.configuration_name,
            complete=False,
            cases={case.identifier: case.sources for case in cases},
        )

    def make_case(self, case: UnlabeledCase) -> None:
        """Preprocess one case in a folder of its own, then move it into place."""
        from nnunet_semisup.preparation.images_only import preprocessor_of

        own = Path(tempfile.mkdtemp(prefix=f"{case.identifier}.", dir=self.partial))
        preprocessor = preprocessor_of(self.configuration)(verbose=self.verbose)
        preprocessor.run_case_save(
            str(own / case.identifier),
            [str(path) for path in case.images],
            None,
            self.plans_manager,
            self.configuration,
            self.dataset_json,
        )
        if not is_whole(own, case.identifier):
            raise RuntimeError(
                f"{type(preprocessor).__name__} wrote {sorted(p.name for p in own.iterdir())}; "
                f"nnU-Net's data sets need one of {FILE_SETS}"
            )
        properties = load_pickle(str(own / f"{case.identifier}{_PROPERTIES_SUFFIX}"))
        # nnU-Net's loader looks it up in every case; without labels there are no locations.
        properties["class_locations"] = {}
        write_pickle(properties, str(own / f"{case.identifier}{_PROPERTIES_SUFFIX}"))
        for source, path in zip(case.sources, case.images, strict=False):
            if not source.unchanged(path):
                raise RuntimeError(f"{path} changed while it was being preprocessed; run again")
        for path in list(own.iterdir()):
            os.replace(path, self.folder / path.name)
        own.rmdir()


def _is_finished(job: _Job, cases: Sequence[UnlabeledCase]) -> bool:
    """Return whether everything is as preprocessing would leave it."""
    return (
        read_stamp(job.stamp_path) == replace(job.new_stamp(cases), complete=True)
        and all(is_whole(job.folder, case.identifier) for case in cases)
        and not _others(job.folder, {case.identifier for case in cases})
        and not job.partial.exists()
    )


def _preprocess_configuration(
    job: _Job, cases: Sequence[UnlabeledCase], num_processes: int, show_progress: bool
) -> None:
    stamp, previous = job.new_stamp(cases), read_stamp(job.stamp_path)
    if previous is not None and previous.plans_hash != stamp.plans_hash:
        print(f"{job.configuration_name}: the plan changed, {job.folder.name} is made anew.")
        shutil.rmtree(job.folder, ignore_errors=True)
        previous = None
    recorded = {} if previous is None else previous.cases
    done = {
        case.identifier
        for case in cases
        if case.same_content(recorded.get(case.identifier, ()))
        and is_whole(job.folder, case.identifier)
    }
    todo = {case.identifier: (case,) for case in cases if case.identifier not in done}
    print(f"{job.configuration_name}: {len(todo)} cases to preprocess, {len(done)} already done.")
    for path in _others(job.folder, done):
        path.unlink()
    shutil.rmtree(job.partial, ignore_errors=True)
    if todo:
        write_stamp(job.stamp_path, stamp)
        job.folder.mkdir(exist_ok=True)
        job.partial.mkdir()
        run_parallel(
            job.make_case,
            todo,
            num_processes,
            f"Preprocessing unlabeled, {job.configuration_name}",
            show_progress,
        )
        job.partial.rmdir()
    complete = replace(stamp, complete=True)
    if todo or complete != previous:
        write_stamp(job.stamp_path, complete)


def _others(folder: Path, done: Collection[str]) -> list[Path]:
    """Return the files of all cases but ``done``."""
    if not folder.is_dir():
        return []
    suffixes = {suffix for suffixes in (*FILE_SETS, _UNPACKED) for suffix in suffixes}
    kept = {f"{identifier}{suffix}" for identifier in done for suffix in suffixes}
    return [path for path in folder.iterdir() if path.name not in kept]
