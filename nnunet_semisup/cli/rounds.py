"""Offline self-training in rounds (``nnUNetv2_semisup_rounds``)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nnunet_semisup.cli._model import add_part_arguments, part_faults
from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError

DESCRIPTION = """\
Predict the unlabeled scans, keep what can be trusted, train on it as on labels, and go on. Every
round is an ordinary data set of nnU-Net in folders of its own; yours is only read. Each step is
done whole or not at all: after a crash, run the same command again.
"""

EXAMPLES = """\
examples:
  nnUNetv2_semisup_rounds plan ROUNDS -d 501 -c 3d_fullres -tr nnUNetTrainer -f 0 --steps 25000
  nnUNetv2_semisup_rounds run ROUNDS
  nnUNetv2_semisup_rounds status ROUNDS
  nnUNetv2_semisup_rounds report ROUNDS
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_semisup_rounds",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, told in (
        ("plan", "check everything, and write down what the rounds are made of"),
        ("run", "make the rounds, from where they stand"),
        ("label", "predict a part of the scans of the next round, before run; on several machines"),
        ("status", "say where they stand"),
        ("report", "write FOLDER/report.html: curves, kept and dropped scans with pictures"),
    ):
        one = commands.add_parser(name, help=told, description=told)
        one.add_argument("folder", type=Path, metavar="FOLDER", help="of the rounds")
        if name == "run":
            told = "end with the round that is made, to label the next one in parts"
            one.add_argument("--one-round", action="store_true", help=told)
        if name == "label":
            add_part_arguments(one)
        if name == "plan":
            _add_model(one)
            _add_training(one)
            _add_filter(one)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", required=True, metavar="ID", help="data set with imagesUn")
    add("-c", required=True, metavar="NAME", help="configuration")
    add(
        "-tr",
        default="nnUNetTrainer",
        metavar="NAME",
        help="trainer of the model that labels the "
        "first round, which must be trained [%(default)s]",
    )
    add("-p", default="nnUNetPlans", metavar="NAME", help="plans, of every round [%(default)s]")
    add(
        "-f",
        nargs="+",
        type=int,
        default=[0, 1, 2, 3, 4],
        metavar="FOLD",
        help="folds, which label together; with one, its mirrored images do [0 1 2 3 4]",
    )
    add("-chk", default="checkpoint_final.pth", metavar="FILE", help="checkpoint [%(default)s]")
    add("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="[%(default)s]")
    add("-np", type=int, default=3, metavar="N", help="processes [%(default)s]")


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rounds", type=int, default=3, metavar="N", help="at most [%(default)s]")
    add(
        "--converged",
        type=float,
        default=0.01,
        metavar="PART",
        help="end where the labels change "
        "by less than this part of the foreground; 0: never [%(default)s]",
    )
    add(
        "--trainer",
        default="nnUNetTrainerSupervised",
        metavar="NAME",
        help="of every round: nnU-Net's own or one of this package [%(default)s]",
    )
    add(
        "--steps",
        type=int,
        metavar="N",
        help="of a round, with a trainer of this package [as the trainer has it: 250000]",
    )
    add(
        "--fine-tune",
        type=int,
        default=0,
        metavar="N",
        help="then N steps on the labeled cases alone [%(default)s]",
    )
    add(
        "--labeled-share",
        type=float,
        default=0.5,
        metavar="PART",
        help="of the patches from labeled scans [%(default)s]",
    )
    add(
        "--settings",
        default="",
        metavar="NAME=VALUE,...",
        help="further ones of --trainer, as nnUNet_semisup_set takes them",
    )


def _add_filter(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--drop",
        type=float,
        default=0.04,
        metavar="PART",
        help="of the scans, those that the rounds or votes disagree about most [%(default)s]",
    )
    add(
        "--size-limit",
        type=float,
        default=2.0,
        metavar="F",
        help="drop scans with a class F times "
        "smaller or larger than in any labeled case, scattered more than there, or missing; 0: do "
        "not [%(default)s]",
    )
    add(
        "--confidence",
        type=float,
        default=0.8,
        metavar="P",
        help="ignore voxels that two classes share at less than P; 0: ignore none [%(default)s]",
    )
    add(
        "--no-filter",
        action="store_true",
        help="keep every scan and every voxel, and draw all "
        "scans alike: --drop 0 --size-limit 0 --confidence 0 --labeled-share 0",
    )


def _plan(arguments: argparse.Namespace) -> None:
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

    from nnunet_semisup.cli._model import model_folder
    from nnunet_semisup.preparation.device import require_device
    from nnunet_semisup.preparation.raw import find_dataset
    from nnunet_semisup.rounds.design import Design, Layout
    from nnunet_semisup.rounds.plan import plan_rounds

    require_device(arguments.device)
    if arguments.np < 0:
        raise UserError(f"-np {arguments.np}: give 1 or more, or 0 for none")
    folders = find_dataset(arguments.d)
    arguments.m = None
    filtered = not arguments.no_filter
    design = Design(
        dataset=folders.name,
        raw=str(Path(str(nnUNet_raw)).absolute()),
        preprocessed=str(Path(str(nnUNet_preprocessed)).absolute()),
        configuration=arguments.c,
        plans=arguments.p,
        folds=tuple(arguments.f),
        model=str(model_folder(arguments).absolute()),
        checkpoint=arguments.chk,
        rounds=arguments.rounds,
        trainer=arguments.trainer,
        steps=arguments.steps,
        fine_tune=arguments.fine_tune,
        settings=arguments.settings,
        drop=arguments.drop * filtered,
        size_limit=arguments.size_limit * filtered,
        confidence=arguments.confidence * filtered,
        labeled_share=arguments.labeled_share * filtered,
        converged=arguments.converged,
        device=arguments.device,
        processes=arguments.np,
    )
    plan_rounds(Layout(arguments.folder), design)
    print(
        f"{design.rounds} rounds at most, of {design.trainer}, "
        f"{design.steps or 'its own number of'} steps each; filter: --drop {design.drop:g} "
        f"--size-limit {design.size_limit:g} --confidence {design.confidence:g} (0: none)"
    )
    print(f"Start with: nnUNetv2_semisup_rounds run {arguments.folder}")


def _run(arguments: argparse.Namespace) -> int:
    from nnunet_semisup.rounds.commands import StepFailedError, StoppedError
    from nnunet_semisup.rounds.course import run_rounds
    from nnunet_semisup.rounds.design import Layout

    try:
        model = run_rounds(Layout(arguments.folder), arguments.one_round)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        return stopped.code
    except StepFailedError as error:
        print(f"error: {error}\nSettle that, then run the same command.", file=sys.stderr)
        return 1
    folds = " ".join(map(str, model.folds))
    print(f"The last model: nnUNetv2_semisup_predict -m {model.folder} -f {folds} -i IN -o OUT")
    return 0


def _label(arguments: argparse.Namespace) -> int:
    from nnunet_semisup.rounds.design import Layout
    from nnunet_semisup.rounds.parts import label_part

    if problems := part_faults(arguments):
        raise UserError("; ".join(problems))
    return label_part(Layout(arguments.folder), arguments.part_id, arguments.num_parts)


def _status(arguments: argparse.Namespace) -> None:
    from nnunet_semisup.rounds.design import Layout, read_design
    from nnunet_semisup.rounds.results import status

    layout = Layout(arguments.folder)
    print(status(layout, read_design(layout)))


def _report(arguments: argparse.Namespace) -> None:
    from nnunet_semisup.rounds.design import Layout, read_design
    from nnunet_semisup.rounds.report import write_report

    layout = Layout(arguments.folder)
    print(write_report(layout, read_design(layout)))


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "plan": _plan,
    "run": _run,
    "label": _label,
    "status": _status,
    "report": _report,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``nnUNetv2_semisup_rounds``; ``arguments`` default to the command line."""
    parsed = build_parser().parse_args(arguments)
    run_command(lambda: COMMANDS[parsed.command](parsed))


if __name__ == "__main__":
    main()
