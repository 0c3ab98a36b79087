"""Predict with nnU-Net's own predictor, and more where asked (``nnUNetv2_semisup_predict``)."""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path

from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError

DESCRIPTION = """\
Predict a folder of images with the flags of nnUNetv2_predict and nnUNetv2_predict_from_modelfolder.
Without further flags the files are theirs, byte by byte. Each is written whole or not at all, so
that a prediction that was killed goes on with --continue_prediction.
"""

EXAMPLES = """\
examples:
  nnUNetv2_semisup_predict -i imagesTs -o out -d 501 -c 3d_fullres -f 0 -tr nnUNetTrainerCPS
  nnUNetv2_semisup_predict -i imagesTs -o out -m MODEL_FOLDER -f 0 --members mean --uncertainty
"""

FOLDS = ("0", "1", "2", "3", "4")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_semisup_predict",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-i", required=True, metavar="DIR", help="images, CASE_0000 files")
    add("-o", required=True, metavar="DIR", help="folder of the predictions")
    _add_model_arguments(parser)
    add("-step_size", type=float, default=0.5, help="of the sliding window [%(default)s]")
    add("--disable_tta", action="store_true", help="no mirroring: faster, less accurate")
    add("--verbose", action="store_true", help="tell more")
    add("--save_probabilities", action="store_true", help="write them as well, as npz and pkl")
    add(
        *("--continue_prediction", "--c"),
        action="store_true",
        help="keep cases of which every file asked for is there",
    )
    add("-npp", type=int, default=_number("nnUNet_npp"), help="preprocessing processes [3]")
    add("-nps", type=int, default=_number("nnUNet_nps"), help="export processes [3]; both 0: none")
    add("-prev_stage_predictions", metavar="DIR", help="for a cascade's second stage")
    add("-num_parts", type=int, default=1, help="commands that share the cases [%(default)s]")
    add("-part_id", type=int, default=0, help="which one this is, from 0 [%(default)s]")
    add("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="[%(default)s]")
    add("--disable_progress_bar", action="store_true", help="for jobs that are not interactive")
    add("--not_on_device", action="store_true", help="less GPU memory, slower")
    _add_own_arguments(parser)
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-m", type=Path, metavar="DIR", help="model folder TRAINER__PLANS__CONFIGURATION")
    add("-d", metavar="ID", help="data set, in place of -m; with -c, -tr and -p")
    add("-c", metavar="NAME", help="configuration")
    add("-tr", default="nnUNetTrainer", metavar="NAME", help="trainer [%(default)s]")
    add("-p", default="nnUNetPlans", metavar="NAME", help="plans [%(default)s]")
    add("-f", nargs="+", default=FOLDS, metavar="FOLD", help="folds [0 1 2 3 4]")
    add("-chk", default="checkpoint_final.pth", metavar="FILE", help="checkpoint [%(default)s]")


def _add_own_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--weights",
        choices=("default", "student", "teacher"),
        default="default",
        help="whose weights predict [those that the checkpoint names]",
    )
    add(
        "--members",
        default="first",
        metavar="first|mean|N",
        help="of several networks or decoders: the first, the mean of their probabilities, or the "
        "N-th [first]",
    )
    add(
        "--uncertainty",
        nargs="?",
        const="auto",
        choices=("auto", "folds", "members", "weights", "mirrors"),
        help="also write maps from 0 (sure) to 1 into OUTPUT/uncertainty: the calibrated entropy "
        "of the mean of these predictions [the first of the list that the model has]",
    )
    add("--overlays", action="store_true", help="also draw predictions into OUTPUT/overlays")


def _number(variable: str) -> int:
    """Return a number of processes from nnU-Net's variable, or 3 as nnU-Net."""
    try:
        return int(os.environ.get(variable) or 3)
    except ValueError:
        return 3


def predict(arguments: argparse.Namespace) -> None:
    """Check the arguments, predict, and draw.

    Raises:
        UserError: see :meth:`nnunet_semisup.inference.request.Request.checked`.
    """
    folds = _check(arguments)
    import torch

    from nnunet_semisup.inference.predict import Run, predict
    from nnunet_semisup.inference.request import Request

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("-device cuda, the default: torch sees no such GPU here. Give -device cpu.")
    request = Request(
        images=arguments.i,
        output=arguments.o,
        model=_model_folder(arguments),
        folds=folds,
        checkpoint=arguments.chk,
        weights=arguments.weights,
        members=arguments.members,
        uncertainty=arguments.uncertainty,
        mirroring=not arguments.disable_tta,
        previous=arguments.prev_stage_predictions,
    )
    run = Run(
        device=torch.device(arguments.device),
        step_size=arguments.step_size,
        on_device=not arguments.not_on_device,
        save_probabilities=arguments.save_probabilities,
        continues=arguments.continue_prediction,
        preprocessing=arguments.npp,
        exporting=arguments.nps,
        num_parts=arguments.num_parts,
        part=arguments.part_id,
        verbose=arguments.verbose,
        progress_bar=not arguments.disable_progress_bar,
        overlays=arguments.overlays,
    )
    predict(request, run)


def _check(arguments: argparse.Namespace) -> tuple[int | str, ...]:
    """Return the folds, once the arguments fit each other."""
    problems = []
    if (arguments.m is None) == (arguments.d is None):
        problems.append("give the model with -m, or with -d, -c, -tr and -p")
    elif arguments.d is not None and arguments.c is None:
        problems.append("-d needs the configuration, -c")
    if wrong := [fold for fold in arguments.f if fold != "all" and not fold.isdecimal()]:
        problems.append(f"-f {' '.join(wrong)}: give numbers, or all")
    if not 0 < arguments.step_size <= 1:
        problems.append(f"-step_size {arguments.step_size}: give more than 0 and at most 1")
    if not 0 <= arguments.part_id < arguments.num_parts:
        problems.append(f"-part_id {arguments.part_id}: give 0 to num_parts - 1")
    if min(arguments.npp, arguments.nps) < 0 or (arguments.npp == 0) != (arguments.nps == 0):
        problems.append("-npp and -nps: give 1 or more, or 0 for both")
    if problems:
        raise UserError("; ".join(problems))
    return tuple(fold if fold == "all" else int(fold) for fold in arguments.f)


def _model_folder(arguments: argparse.Namespace) -> Path:
    if arguments.m is not None:
        return Path(arguments.m)
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    from nnunet_semisup.preparation.environment import require_set

    require_set("nnUNet_results")
    try:
        folder = get_output_folder(arguments.d, arguments.tr, arguments.p, arguments.c)
    except RuntimeError as error:
        raise UserError(f"-d {arguments.d}: {error}") from error
    return Path(folder)


def _use_threads_of_nnunet(device: str) -> None:
    """Let torch use as many threads as in ``nnUNetv2_predict``."""
    import torch

    if device != "mps":
        torch.set_num_threads(multiprocessing.cpu_count() if device == "cpu" else 1)
    if device == "cuda" and torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``nnUNetv2_semisup_predict``; ``arguments`` default to the command line."""
    parsed = build_parser().parse_args(arguments)
    _use_threads_of_nnunet(parsed.device)
    run_command(lambda: predict(parsed))


if __name__ == "__main__":
    main()
