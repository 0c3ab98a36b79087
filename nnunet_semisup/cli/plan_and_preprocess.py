"""Run nnU-Net's own planning, then imagesUn's part (``nnUNetv2_semisup_plan_and_preprocess``).

Takes the arguments of ``nnUNetv2_plan_and_preprocess``. The unlabeled images are checked first, so
that bad input is refused before anything is written.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nnunet_semisup.cli._accepted import add_accepted
from nnunet_semisup.cli._fit import FIT, print_fit, refuse_no_memory
from nnunet_semisup.cli._planning import (
    FINGERPRINT_EXTRACTOR,
    PLANNER,
    PREPROCESSOR,
    find_class,
    refuse_unknown_configurations,
)
from nnunet_semisup.cli._preprocessing import (
    add_configuration_arguments,
    add_dataset_argument,
    add_output_arguments,
    processes_per_configuration,
)
from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.layout import FINGERPRINT_FILE
from nnunet_semisup.preparation.plans import refuse_cascade, single_outputs
from nnunet_semisup.preparation.raw import DatasetFolders, find_dataset

if TYPE_CHECKING:
    from nnunet_semisup.dataset_conversion.checking.labeled_cases import CheckedLabeled
    from nnunet_semisup.preparation.unlabeled_images import CheckedDataset


def build_parser() -> argparse.ArgumentParser:
    """Build a parser with the arguments of ``nnUNetv2_plan_and_preprocess`` and more."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_semisup_plan_and_preprocess",
        description="Checks the labeled cases and the unlabeled images in imagesUn, does what "
        "nnUNetv2_plan_and_preprocess does, then preprocesses these images for the same "
        "configurations.",
    )
    add_dataset_argument(parser)
    _add_fingerprint_arguments(parser)
    _add_planning_arguments(parser)
    parser.add_argument("--no_pp", action="store_true", help="plan only, preprocess nothing")
    add_configuration_arguments(parser)
    add_output_arguments(parser)
    add_accepted(parser)
    return parser


def _add_fingerprint_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-fpe",
        default="DatasetFingerprintExtractor",
        help="class that extracts the fingerprint, default: %(default)s",
    )
    parser.add_argument(
        "-npfp",
        type=int,
        default=8,
        help="processes for the checks and the fingerprint, default: %(default)s",
    )
    parser.add_argument(
        "--verify_dataset_integrity",
        action="store_true",
        help="check the labeled cases first (recommended once for every data set)",
    )
    parser.add_argument(
        "--clean",
        action="store_true",
        help="extract the fingerprint again although there is one (needed after a change of the "
        "labeled cases)",
    )
    parser.add_argument(
        "--ignore-aware-fingerprint",
        action="store_true",
        help="leave voxels with the ignore label out of the fingerprint's intensities; nnU-Net "
        "counts them as foreground",
    )


def _add_planning_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-pl", default="ExperimentPlanner", help="class of the planner, default: %(default)s"
    )
    parser.add_argument(
        "-gpu_memory_target", type=float, default=None, help="GPU memory to plan for, in GB"
    )
    parser.add_argument("--fit", type=float, metavar="GIB", help=FIT)
    parser.add_argument(
        "-preprocessor_name",
        default="DefaultPreprocessor",
        help="class of the preprocessor, default: %(default)s",
    )
    parser.add_argument(
        "-overwrite_target_spacing",
        nargs="+",
        default=None,
        help="three numbers in mm: target spacing of 3d_fullres",
    )
    parser.add_argument(
        "-overwrite_plans_name",
        default=None,
        help="name of the plan to write; recommended with the three options above",
    )


def _check(args: argparse.Namespace) -> list[CheckedDataset]:
    """Check unlabeled and labeled cases of all data sets; write nothing."""
    from nnunet_semisup.dataset_conversion.checking.labeled_cases import check_labeled
    from nnunet_semisup.preparation.rules import Accepted
    from nnunet_semisup.preparation.unlabeled_images import check_dataset

    checked = []
    faults = []
    accepted = Accepted(args.allow_constant_channels, args.allow_empty)
    for dataset in args.d:
        try:
            folders = find_dataset(dataset)
        except UserError as error:
            faults.append(str(error))
            continue
        try:
            checked.append(
                check_dataset(
                    folders,
                    num_processes=args.npfp,
                    show_progress=not args.no_pbar,
                    allow_constant_channels=args.allow_constant_channels,
                )
            )
        except UserError as error:
            faults.append(str(error))
        try:
            labeled = check_labeled(folders, args.npfp, accepted, not args.no_pbar)
        except UserError as error:
            faults.append(str(error))
        else:
            _tell(labeled, folders, args)
    if faults:
        raise UserError("\n".join(dict.fromkeys(faults)))
    return checked


def _tell(labeled: CheckedLabeled, folders: DatasetFolders, args: argparse.Namespace) -> None:
    """Print what the user should know of the labeled cases."""
    from nnunet_semisup.preparation.fingerprint import leaves_ignored_out

    for warning in labeled.warnings:
        print(f"warning: {warning}")
    if not labeled.ignored or args.ignore_aware_fingerprint:
        return
    if leaves_ignored_out(folders.preprocessed / FINGERPRINT_FILE) and not args.clean:
        print(
            f"note: the fingerprint of {folders.name} leaves voxels with the ignore label out and "
            "is kept; --clean makes nnU-Net's own"
        )
        return
    print(
        f"warning: {labeled.ignored:.1%} of the voxels that nnU-Net takes for foreground in the "
        f"fingerprint of {folders.name} have the ignore label. The fingerprint's intensities, by "
        "which CT channels are normalised, count them; --ignore-aware-fingerprint leaves them out."
    )


def _extract_fingerprints(args: argparse.Namespace) -> None:
    """Extract fingerprints as nnU-Net's command does, or without the ignore label."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    from nnunet_semisup.preparation.fingerprint import IgnoreAwareFingerprintExtractor

    given = (args.npfp, args.verify_dataset_integrity, args.clean, args.verbose)
    progress = not args.no_pbar
    if not args.ignore_aware_fingerprint:
        api.extract_fingerprints(args.d, args.fpe, *given, show_progress_bar=progress)
        return
    for dataset in args.d:
        api.extract_fingerprint_dataset(
            dataset, IgnoreAwareFingerprintExtractor, *given, show_progress_bar=progress
        )


def _check_fingerprint(args: argparse.Namespace) -> None:
    find_class(FINGERPRINT_EXTRACTOR, args.fpe)
    if args.ignore_aware_fingerprint and args.fpe != FINGERPRINT_EXTRACTOR.base:
        raise UserError(
            f"--ignore-aware-fingerprint and -fpe {args.fpe} are two ways to extract the "
            "fingerprint; leave one of them out."
        )


def _check_numbers(args: argparse.Namespace) -> None:
    if args.fit is not None:
        refuse_no_memory(args.fit)
    if args.npfp < 1:
        raise UserError(f"-npfp {args.npfp} is too small; give 1 or more.")
    if args.gpu_memory_target is not None and not args.gpu_memory_target > 0:
        raise UserError(f"-gpu_memory_target {args.gpu_memory_target:g}: give GB, more than 0.")
    spacing = args.overwrite_target_spacing
    if spacing is not None and not (len(spacing) == 3 and all(map(_is_length, spacing))):
        raise UserError(
            f"-overwrite_target_spacing {' '.join(spacing)}: give three positive numbers in mm, in "
            "the order in which nnU-Net has the axes of an image (z y x)."
        )


def _is_length(word: str) -> bool:
    try:
        return 0 < float(word) < math.inf
    except ValueError:
        return False


@contextmanager
def at_least_one_worker() -> Iterator[None]:
    """Let nnU-Net plan where ``nnUNet_n_proc_DA=0`` is set, which is right for trainings.

    nnU-Net 2.8.1's planner gives that number to torch as its number of threads
    (``ExperimentPlanner.static_estimate_VRAM_usage``), and torch takes none below 1.
    """
    name = "nnUNet_n_proc_DA"
    given = os.environ.get(name)
    if given == "0":
        os.environ[name] = "1"
    try:
        yield
    finally:
        if given is not None:
            os.environ[name] = given


def _run(args: argparse.Namespace) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments, preprocess

    from nnunet_semisup.preparation.preprocessing import preprocess_unlabeled, report, warn

    refuse_cascade(args.c)
    processes = processes_per_configuration(args.c, args.np, smallest=1)
    _check_numbers(args)
    planner = find_class(PLANNER, args.pl)
    _check_fingerprint(args)
    find_class(PREPROCESSOR, args.preprocessor_name)
    refuse_unknown_configurations(args.c, planner, args.overwrite_plans_name, args.d)
    progress = not args.no_pbar
    checked = _check(args)
    for outcome in checked:
        warn(outcome)
    _extract_fingerprints(args)
    with at_least_one_worker():
        plans_identifier = plan_experiments(
            args.d,
            args.pl,
            args.gpu_memory_target,
            args.preprocessor_name,
            args.overwrite_target_spacing,
            args.overwrite_plans_name,
        )
    for outcome in checked:
        for fault in single_outputs(outcome.folders, plans_identifier):
            print(f"warning: {fault}")
        if args.fit is not None:
            print_fit(outcome.folders, plans_identifier, args.c, args.fit)
    if args.no_pp:
        for outcome in checked:
            report(outcome)
        return
    preprocess(
        args.d, plans_identifier, args.c, processes, args.verbose, show_progress_bar=progress
    )
    for outcome in checked:
        preprocess_unlabeled(
            outcome.folders.name,
            args.c,
            plans_identifier,
            processes,
            checked=outcome,
            verbose=args.verbose,
            show_progress=progress,
            allow_constant_channels=args.allow_constant_channels,
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the console script; ``argv`` defaults to the command line."""
    args = build_parser().parse_args(argv)
    run_command(lambda: _run(args))


if __name__ == "__main__":
    main()
