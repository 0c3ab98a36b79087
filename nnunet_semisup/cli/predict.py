"""Predict with nnU-Net's own predictor, and more where asked (``nnUNetv2_semisup_predict``)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunet_semisup.cli._model import (
    add_model_arguments,
    add_part_arguments,
    add_run_arguments,
    folds_of,
    model_folder,
    name_faults,
    part_faults,
    run_faults,
    use_threads_of_nnunet,
)
from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.device import require_device

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
    add_model_arguments(parser)
    add_run_arguments(parser)
    add("--verbose", action="store_true", help="tell more")
    add("--save_probabilities", action="store_true", help="write them as well, as npz and pkl")
    add(
        *("--continue_prediction", "--c"),
        action="store_true",
        help="keep cases of which every file asked for is there",
    )
    add("-prev_stage_predictions", metavar="DIR", help="for a cascade's second stage")
    add_part_arguments(parser)
    add("--not_on_device", action="store_true", help="less GPU memory, slower")
    _add_own_arguments(parser)
    return parser


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


def predict(arguments: argparse.Namespace) -> None:
    """Check the arguments, predict, and draw.

    Raises:
        UserError: see :meth:`nnunet_semisup.inference.request.Request.checked`.
    """
    folds = _check(arguments)
    import torch

    from nnunet_semisup.inference.predict import Run, predict
    from nnunet_semisup.inference.request import Request

    require_device(arguments.device)
    request = Request(
        images=arguments.i,
        output=arguments.o,
        model=model_folder(arguments),
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
    problems = name_faults(arguments) + run_faults(arguments) + part_faults(arguments)
    if problems:
        raise UserError("; ".join(problems))
    return folds_of(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``nnUNetv2_semisup_predict``; ``arguments`` default to the command line."""
    parsed = build_parser().parse_args(arguments)
    use_threads_of_nnunet(parsed.device)
    run_command(lambda: predict(parsed))


if __name__ == "__main__":
    main()
