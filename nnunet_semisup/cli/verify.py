"""Check a raw data set, unlabeled and test images included (``nnUNetv2_semisup_verify``)."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from nnunet_semisup.cli._accepted import add_accepted
from nnunet_semisup.cli._run import run_command

_DESCRIPTION = """Read every file of a raw data set (imagesTr, imagesUn, imagesTs and their labels)
and list all that is wrong with it; exit code 2 if anything is. Ends with nnU-Net's own
verify_dataset_integrity. Writes nothing."""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = argparse.ArgumentParser(prog="nnUNetv2_semisup_verify", description=_DESCRIPTION)
    parser.add_argument("dataset", metavar="ID", help="id or name of the data set, such as 501")
    add_accepted(parser)
    parser.add_argument(
        "-np",
        "--num-processes",
        type=int,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="processes (default: %(default)s)",
    )
    return parser


def _verify(arguments: argparse.Namespace) -> None:
    from nnunet_semisup.dataset_conversion.checking.raw_dataset import verify_dataset
    from nnunet_semisup.errors import UserError
    from nnunet_semisup.preparation.raw import find_dataset
    from nnunet_semisup.preparation.rules import Accepted

    if arguments.num_processes < 1:
        raise UserError(f"-np {arguments.num_processes} is not possible; give 1 or more.")
    folders = find_dataset(arguments.dataset)
    accepted = Accepted(arguments.allow_constant_channels, arguments.allow_empty)
    verified = verify_dataset(folders, arguments.num_processes, accepted)
    for text in verified.findings.warnings:
        print(f"warning: {text}")
    print(verified.summary())
    verified.findings.raise_faults(f"{folders.raw} has", "")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the console script; ``argv`` defaults to the command line."""
    arguments = build_parser().parse_args(argv)
    run_command(lambda: _verify(arguments))


if __name__ == "__main__":
    main()
