"""Rank the unlabeled scans in the order in which to annotate them (``nnUNetv2_semisup_rank``)."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from nnunet_semisup.cli._accepted import add_accepted
from nnunet_semisup.cli._model import (
    add_model_arguments,
    add_part_arguments,
    add_run_arguments,
    folds_of,
    model_folder,
    part_faults,
    run_faults,
    use_threads_of_nnunet,
)
from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.device import require_device

DESCRIPTION = """\
Predict the scans of imagesUn by the mean of folds and mirrored images, score how unsure that is,
and list them in the order in which to annotate them: a table, ranking.csv, predictions, maps of
uncertainty and pictures. A command that was killed goes on where it was. With -num_parts, each
command predicts and scores its part; the same command without it then writes the table.
"""

EXAMPLES = """\
examples:
  nnUNetv2_semisup_rank -d 501 -c 3d_fullres -tr nnUNetTrainerPseudoLabel -f 0 -o ranked
  nnUNetv2_semisup_rank -d 501 --moved-to-labeled MASKS
"""

ORDERS = ("stratified", "entropy", "disagreement", "foreground", "random")
"""As :data:`nnunet_semisup.scoring.order.ORDERS`, which needs torch."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_semisup_rank",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-o", type=Path, metavar="DIR", help="folder of the ranking")
    add_model_arguments(parser)
    add_run_arguments(parser)
    add_part_arguments(parser)
    add(
        "--by",
        choices=ORDERS,
        default="stratified",
        help="the order of the table: entropy of each class in turn, entropy of the foreground, "
        "disagreement of folds or mirrored images; foreground and random are random orders to "
        "compare with. The table has the places in all of them [%(default)s]",
    )
    add("--seed", type=int, default=0, metavar="N", help="of the random orders [%(default)s]")
    add("--before", type=Path, metavar="DIR", help="earlier predictions, to score what changed")
    add(
        "--overlays",
        type=int,
        default=0,
        metavar="N",
        help="draw the first N scans into DIR/overlays [%(default)s]",
    )
    add(
        "--moved-to-labeled",
        type=Path,
        metavar="MASKS",
        help="instead: check the masks CASE in this folder, move the scans to imagesTr and copy "
        "the masks to labelsTr; all or nothing",
    )
    add_accepted(parser)
    add(
        "-np",
        type=int,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="processes that check masks [%(default)s]",
    )
    return parser


def rank(arguments: argparse.Namespace) -> None:
    """Check the arguments, and rank or move.

    Raises:
        UserError: they do not fit, or what they name does not.
    """
    if arguments.d is None:
        raise UserError("give the data set with -d; -m may name a model folder in place of -tr -p")
    if arguments.moved_to_labeled is not None:
        _move(arguments)
        return
    _check(arguments)
    import torch

    from nnunet_semisup.inference.predict import Run
    from nnunet_semisup.preparation.raw import find_dataset
    from nnunet_semisup.scoring.ranking import TABLE, Ranking, table
    from nnunet_semisup.scoring.ranking import rank as rank_scans

    require_device(arguments.device)
    ranking = Ranking(
        folders=find_dataset(arguments.d),
        model=model_folder(arguments),
        folds=folds_of(arguments),
        checkpoint=arguments.chk,
        output=arguments.o,
        before=arguments.before,
        mirroring=not arguments.disable_tta,
        by=arguments.by,
        seed=arguments.seed,
        overlays=arguments.overlays,
    )
    run = Run(
        device=torch.device(arguments.device),
        step_size=arguments.step_size,
        continues=True,
        preprocessing=arguments.npp,
        exporting=arguments.nps,
        num_parts=arguments.num_parts,
        part=arguments.part_id,
        progress_bar=not arguments.disable_progress_bar,
    )
    scores = rank_scans(ranking, run)
    if run.num_parts > 1:
        print(f"\nPart {run.part} of {run.num_parts} is there. The table: without -num_parts")
    else:
        print(f"\n{table(scores)}\n\n{arguments.o / TABLE} has all scores")


def _check(arguments: argparse.Namespace) -> None:
    problems = run_faults(arguments) + part_faults(arguments)
    if arguments.o is None:
        problems.append("-o: give the folder of the ranking")
    if arguments.m is None and arguments.c is None:
        problems.append("-c: give the configuration of the model, or its folder with -m")
    if arguments.before is not None and not arguments.before.is_dir():
        problems.append(f"--before {arguments.before} is not a folder")
    if arguments.overlays < 0:
        problems.append(f"--overlays {arguments.overlays}: give 0 or more")
    if problems:
        raise UserError("; ".join(problems))


def _move(arguments: argparse.Namespace) -> None:
    from nnunet_semisup.dataset_conversion.newly_labeled import move_to_labeled, next_steps
    from nnunet_semisup.preparation.raw import find_dataset
    from nnunet_semisup.preparation.rules import Accepted

    if arguments.np < 1:
        raise UserError(f"-np {arguments.np} is not possible; give 1 or more.")
    folders = find_dataset(arguments.d)
    accepted = Accepted(arguments.allow_constant_channels, arguments.allow_empty)
    moved = move_to_labeled(folders, arguments.moved_to_labeled, arguments.np, accepted)
    for text in moved.warnings:
        print(f"warning: {text}")
    print(next_steps(folders, moved.cases))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``nnUNetv2_semisup_rank``; ``arguments`` default to the command line."""
    parsed = build_parser().parse_args(arguments)
    if parsed.moved_to_labeled is None:
        use_threads_of_nnunet(parsed.device)
    run_command(lambda: rank(parsed))


if __name__ == "__main__":
    main()
