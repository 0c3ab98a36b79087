"""Compare a folder of predictions with one of references (``nnUNetv2_semisup_evaluate``)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.configuration import default_num_processes

from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.folders import check_folders, refuse_exchanged
from nnunet_semisup.evaluation.names import REPORT_NAME

ALL_CASES = sys.maxsize

DESCRIPTION = """\
Compare predicted segmentations with references of the same file names: Dice, Jaccard, HD95 and
average surface distance (ASD, in mm) per case and class, with means and standard deviations.

Classes, regions, the ignore label and the file ending come from a dataset.json; nnUNetv2_predict
leaves one in its output folder, so usually nothing has to be given. A class that is missing in both
files is left out of the means of that class; one that is missing in only one of them gets Dice 0
and the image's diagonal as distance. In the validation folder of a fold, the cases of its 'val' are
expected, and predictions of others are refused.
"""

EXAMPLES = """\
examples:
  nnUNetv2_semisup_evaluate nnUNet_raw/Dataset501_LA/labelsTs predictions
  nnUNetv2_semisup_evaluate labelsTs predictions --images imagesTs --overlays 5 --chart
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_semisup_evaluate",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reference", metavar="GT", type=Path, help="folder of the true label files")
    parser.add_argument("prediction", metavar="PRED", type=Path, help="folder of the predictions")
    parser.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="dataset.json that declares the labels [in PRED, in GT, or beside GT]",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="JSON file for all results [PRED/semisup_evaluation.json]",
    )
    parser.add_argument(
        "--chill",
        action="store_true",
        help="leave out references without a prediction instead of stopping; the report lists them",
    )
    parser.add_argument(
        "--trust-affine",
        action="store_true",
        help="NIfTI files whose pixdim denies the voxel size of their sform: take the sform's",
    )
    parser.add_argument(
        "--cldice",
        action="store_true",
        help="also compute clDice, for vessels, airways and other thin structures",
    )
    _add_picture_arguments(parser)
    parser.add_argument(
        "-np",
        dest="num_processes",
        type=int,
        default=min(default_num_processes, os.cpu_count() or 1),
        metavar="N",
        help="cases evaluated at the same time [%(default)s]",
    )
    return parser


def _add_picture_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the images (CASE_0000 files), for --overlays",
    )
    parser.add_argument(
        "--overlays",
        nargs="?",
        type=int,
        const=ALL_CASES,
        metavar="N",
        help="draw the contours over the images, one PNG a case; with N only the N cases of the "
        "lowest Dice",
    )
    parser.add_argument(
        "--overlays-folder",
        type=Path,
        metavar="DIR",
        help="folder of these pictures [PRED/overlays]",
    )
    parser.add_argument(
        "--chart",
        action="store_true",
        help="draw box plots of Dice and HD95 per class, a PNG beside the JSON file (an SVG where "
        "the labels are PNG)",
    )


def evaluate(arguments: argparse.Namespace) -> None:
    """Evaluate, print the table and write the files.

    Raises:
        UserError: arguments or label files are unusable, and nothing has been written then; or
            images do not fit, and the results have been written.
    """
    check_folders(arguments.reference, arguments.prediction)
    refuse_exchanged(arguments.reference, arguments.prediction)
    output = arguments.output or arguments.prediction / REPORT_NAME
    _check_arguments(arguments, output)
    # Kept out of the module so that -h and wrong arguments answer at once.
    from nnunet_semisup.evaluation.chart import write_chart
    from nnunet_semisup.evaluation.evaluate import evaluate_inputs
    from nnunet_semisup.evaluation.inputs import find_inputs
    from nnunet_semisup.evaluation.overlays import find_images, write_overlays
    from nnunet_semisup.evaluation.report import format_report, write_report

    inputs = find_inputs(
        arguments.reference,
        arguments.prediction,
        arguments.dataset_json,
        arguments.chill,
        arguments.trust_affine,
    )
    images = {}
    if arguments.overlays is not None:
        names = [pair.name for pair in inputs.pairs]
        images = find_images(names, arguments.images, inputs.file_ending)
    evaluation = evaluate_inputs(inputs, arguments.num_processes, arguments.cldice)
    for warning in evaluation.warnings:
        print(f"warning: {warning}")
    print(format_report(evaluation))
    write_report(evaluation, output)
    print(f"written: {output}")
    # nnU-Net takes every file of the data set's ending for a prediction.
    chart = output.with_suffix(".svg" if inputs.file_ending == ".png" else ".png")
    if arguments.chart:
        write_chart(evaluation, chart)
        print(f"written: {chart}")
    elif chart.is_file():
        print(f"note: '{chart}' is of an earlier evaluation; --chart draws it anew")
    if arguments.overlays is not None:
        target = arguments.overlays_folder or arguments.prediction / "overlays"
        count = None if arguments.overlays == ALL_CASES else arguments.overlays
        drawn = write_overlays(evaluation, images, target, count, arguments.num_processes)
        print(f"written: {target}")
        if older := sorted(p.name for p in set(target.glob("*.png")) - set(drawn)):
            print(f"note: '{target}' also has pictures of before: {', '.join(older)}")


def _check_arguments(arguments: argparse.Namespace, output: Path) -> None:
    problems = []
    if arguments.num_processes < 1:
        problems.append(f"-np {arguments.num_processes}: give at least 1")
    if not output.parent.is_dir():
        problems.append(
            f"'{output.parent}' for the results is not a folder: create it or correct it"
        )
    elif output.is_dir():
        problems.append(f"--output '{output}' is a folder: give a file name")
    elif not os.access(output.parent, os.W_OK):
        problems.append(f"'{output.parent}' cannot be written to: give a place with --output")
    problems += _overlays_problems(arguments)
    if problems:
        raise UserError("; ".join(problems))


def _overlays_problems(arguments: argparse.Namespace) -> list[str]:
    folder = arguments.overlays_folder
    if arguments.overlays is None:
        if not (arguments.images or folder):
            return []
        return ["--images and --overlays-folder are for --overlays: add it or leave them out"]
    problems = []
    if arguments.overlays < 1:
        problems.append(
            f"--overlays {arguments.overlays}: give a positive number, or no number for all"
        )
    if arguments.images is None:
        problems.append("--overlays needs the folder of the images: add --images DIR")
    if folder is None:
        if not os.access(arguments.prediction, os.W_OK):
            problems.append(
                f"'{arguments.prediction}' cannot be written to: give a place with "
                "--overlays-folder"
            )
        return problems
    inputs = (arguments.reference, arguments.prediction, arguments.images)
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if folder.resolve() in (given.resolve() for given in inputs if given is not None):
        problems.append(
            f"--overlays-folder '{folder}' has labels, predictions or images, which pictures of "
            "the same names would replace: give another folder"
        )
    elif not existing.is_dir():
        problems.append(f"--overlays-folder: '{existing}' is a file: give a folder")
    elif not os.access(existing, os.W_OK):
        problems.append(f"--overlays-folder: '{existing}' cannot be written to: give another place")
    return problems


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``nnUNetv2_semisup_evaluate``; ``arguments`` default to the command line."""
    parsed = build_parser().parse_args(arguments)
    run_command(lambda: evaluate(parsed))


if __name__ == "__main__":
    main()
