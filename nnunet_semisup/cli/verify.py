"""Check a raw data set, unlabeled and test images included (``nnUNetv2_semisup_verify``)."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_semisup.cli._accepted import add_accepted
from nnunet_semisup.cli._run import run_command

if TYPE_CHECKING:
    from nnunet_semisup.dataset_conversion.checking.raw_dataset import Verified

_DESCRIPTION = """Read every file of a raw data set (imagesTr, imagesUn, imagesTs and their labels)
and list all that is wrong with it; exit code 2 if anything is. Ends with nnU-Net's own
verify_dataset_integrity. Says which unlabeled scans lie outside of what the labeled ones show,
which is no fault. Writes nothing but the picture that --picture names."""


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
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE.png",
        help="draw labeled beside unlabeled scans: voxel size, size and intensities",
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
    _check_picture(arguments.picture, folders.raw.parent)
    accepted = Accepted(arguments.allow_constant_channels, arguments.allow_empty)
    verified = verify_dataset(folders, arguments.num_processes, accepted)
    for text in verified.findings.warnings:
        print(f"warning: {text}")
    _draw(arguments.picture, verified)
    print(verified.summary())
    verified.findings.raise_faults(f"{folders.raw} has", "")


def _check_picture(path: Path | None, raw: Path) -> None:
    """Refuse a place for the picture where it cannot be, or would be taken for data.

    Raises:
        UserError: what is wrong with ``path``, for ``raw``, nnU-Net's folder of raw data sets.
    """
    from nnunet_semisup.errors import UserError

    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise UserError(f"--picture {path} is no PNG; give a name that ends in .png.")
    if path.is_dir() or not os.access(path.resolve().parent, os.W_OK):
        raise UserError(
            f"--picture {path} cannot be written; give a file in a folder that is there."
        )
    if path.resolve().is_relative_to(raw.resolve()):
        raise UserError(
            f"--picture {path} is in {raw}, where files are data; give a place elsewhere."
        )


def _draw(path: Path | None, verified: Verified) -> None:
    """Draw the picture where it was asked for, or say that it can be where it would help."""
    coverage = verified.coverage
    if path is None:
        if coverage is not None and not coverage.all_within:
            print("note: --picture FILE.png draws labeled beside unlabeled scans")
    elif coverage is None:
        print("note: no picture was drawn; it takes sound labeled and unlabeled scans")
    else:
        from nnunet_semisup.dataset_conversion.checking.coverage_picture import write_coverage

        write_coverage(coverage, verified.name, path)
        print(f"written: {path}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the console script; ``argv`` defaults to the command line."""
    arguments = build_parser().parse_args(argv)
    run_command(lambda: _verify(arguments))


if __name__ == "__main__":
    main()
