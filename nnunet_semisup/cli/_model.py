"""Arguments that name a trained model, and how it predicts."""

from __future__ import annotations

import argparse
import multiprocessing
import os
from pathlib import Path

from nnunet_semisup.errors import UserError

FOLDS = ("0", "1", "2", "3", "4")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a model, as nnU-Net's."""
    add = parser.add_argument
    add("-m", type=Path, metavar="DIR", help="model folder TRAINER__PLANS__CONFIGURATION")
    add("-d", metavar="ID", help="data set, in place of -m; with -c, -tr and -p")
    add("-c", metavar="NAME", help="configuration")
    add("-tr", default="nnUNetTrainer", metavar="NAME", help="trainer [%(default)s]")
    add("-p", default="nnUNetPlans", metavar="NAME", help="plans [%(default)s]")
    add("-f", nargs="+", default=FOLDS, metavar="FOLD", help="folds [0 1 2 3 4]")
    add("-chk", default="checkpoint_final.pth", metavar="FILE", help="checkpoint [%(default)s]")


def name_faults(arguments: argparse.Namespace) -> list[str]:
    """Return what is wrong with the arguments that name a model."""
    if (arguments.m is None) == (arguments.d is None):
        return ["give the model with -m, or with -d, -c, -tr and -p"]
    if arguments.d is not None and arguments.c is None:
        return ["-d needs the configuration, -c"]
    return []


def fold_faults(arguments: argparse.Namespace) -> list[str]:
    """Return what is wrong with the folds."""
    wrong = [fold for fold in arguments.f if fold != "all" and not fold.isdecimal()]
    return [f"-f {' '.join(wrong)}: give numbers, or all"] if wrong else []


def number_of_processes(variable: str) -> int:
    """Return a number of processes from nnU-Net's variable, or 3 as nnU-Net."""
    try:
        return int(os.environ.get(variable) or 3)
    except ValueError:
        return 3


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how a prediction runs, as nnU-Net's."""
    add = parser.add_argument
    processes = number_of_processes
    add("-step_size", type=float, default=0.5, help="of the sliding window [%(default)s]")
    add("--disable_tta", action="store_true", help="no mirroring: faster, less accurate")
    add("-npp", type=int, default=processes("nnUNet_npp"), help="preprocessing processes [3]")
    add(
        "-nps", type=int, default=processes("nnUNet_nps"), help="export processes [3]; both 0: none"
    )
    add("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="[%(default)s]")
    add("--disable_progress_bar", action="store_true", help="for jobs that are not interactive")


def add_part_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a work that several commands share, as nnU-Net's."""
    add = parser.add_argument
    add("-num_parts", type=int, default=1, help="commands that share the cases [%(default)s]")
    add("-part_id", type=int, default=0, help="which one this is, from 0 [%(default)s]")


def part_faults(arguments: argparse.Namespace) -> list[str]:
    """Return what is wrong with the part."""
    if 0 <= arguments.part_id < arguments.num_parts:
        return []
    return [f"-part_id {arguments.part_id}: give 0 to num_parts - 1"]


def run_faults(arguments: argparse.Namespace) -> list[str]:
    """Return what is wrong with folds, step size and numbers of processes."""
    problems = fold_faults(arguments)
    if not 0 < arguments.step_size <= 1:
        problems.append(f"-step_size {arguments.step_size}: give more than 0 and at most 1")
    if min(arguments.npp, arguments.nps) < 0 or (arguments.npp == 0) != (arguments.nps == 0):
        problems.append("-npp and -nps: give 1 or more, or 0 for both")
    return problems


def folds_of(arguments: argparse.Namespace) -> tuple[int | str, ...]:
    """Return the folds, which :func:`fold_faults` has looked at."""
    return tuple(fold if fold == "all" else int(fold) for fold in arguments.f)


def model_folder(arguments: argparse.Namespace) -> Path:
    """Return the model's folder, from ``-m`` or from nnU-Net's results.

    Raises:
        UserError: no such data set, or ``nnUNet_results`` is not set.
    """
    if arguments.m is not None:
        return Path(arguments.m)
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    from nnunet_semisup.preparation.environment import require_set

    require_set("nnUNet_results")
    try:
        folder = get_output_folder(arguments.d, arguments.tr, arguments.p, arguments.c)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"-d {arguments.d}: {error}") from error
    return Path(folder)


def use_threads_of_nnunet(device: str) -> None:
    """Let torch use as many threads as in ``nnUNetv2_predict``."""
    import torch

    if device != "mps":
        torch.set_num_threads(multiprocessing.cpu_count() if device == "cpu" else 1)
    if device == "cuda" and torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)
