"""Write plans with another network, or fit trainers to a GPU (``nnUNetv2_semisup_plans``)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunet_semisup.architectures.insert import describe_inserts
from nnunet_semisup.cli._fit import FIT, print_fit
from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.plans import DEFAULT_PLANS
from nnunet_semisup.preparation.raw import DatasetFolders


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_semisup_plans",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write a copy of plans whose network has parts of other papers inserted. What "
        "is preprocessed\nstays as it is, and every trainer, nnU-Net's own included, trains with "
        "-p NAME.\nOr say by --fit with which settings a training fits a GPU.\n\ninserts:\n"
        + describe_inserts(),
    )
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", help="id or name of the data set")
    add("-p", default=DEFAULT_PLANS, metavar="PLANS", help="plans, default: %(default)s")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--insert",
        nargs="+",
        metavar="INSERT",
        help="names of inserts, in the order in which they go into the network; an option of one "
        "is written NAME:OPTION=VALUE",
    )
    what.add_argument("--fit", type=float, metavar="GIB", help=FIT)
    add("-tr", nargs="+", default=[], metavar="TRAINER", help="trainers of --fit, default: all")
    add("-o", metavar="NAME", help="name of the new plans, for --insert")
    add(
        "-c",
        nargs="+",
        default=[],
        metavar="CONFIGURATION",
        help="configurations; default: all that the inserts go into, or all there are",
    )
    return parser


def _run(args: argparse.Namespace) -> None:
    from nnunet_semisup.preparation.raw import find_dataset

    if args.insert and not args.o:
        raise UserError("--insert writes new plans: give their name with -o NAME.")
    folders = find_dataset(int(args.d) if args.d.isdigit() else args.d)
    if args.insert:
        _insert(args, folders)
    else:
        print_fit(folders, args.p, args.c, args.fit, args.tr)


def _insert(args: argparse.Namespace, folders: DatasetFolders) -> None:
    from nnunet_semisup.preparation.inserted_plans import read_choice, write_inserted_plans
    from nnunet_semisup.preparation.plans import load_plans

    chosen = [read_choice(text) for text in args.insert]
    load_plans(folders, args.p)
    written = write_inserted_plans(folders.preprocessed, args.p, args.o, chosen, args.c)
    for note in written.left_out:
        print(f"left out: {note}")
    configurations = ", ".join(written.plans["configurations"])
    print(f"wrote {folders.preprocessed / args.o}.json with {configurations}")
    first = next(iter(written.plans["configurations"]))
    print(f"train:    nnUNetv2_train {args.d} {first} 0 -p {args.o} -tr TRAINER")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the console script; ``argv`` defaults to the command line."""
    args = build_parser().parse_args(argv)
    run_command(lambda: _run(args))


if __name__ == "__main__":
    main()
