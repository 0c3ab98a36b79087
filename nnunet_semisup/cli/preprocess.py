"""Preprocess ``imagesUn`` under an existing plan (``nnUNetv2_semisup_preprocess``)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunet_semisup.cli._accepted import add_constant_channels
from nnunet_semisup.cli._preprocessing import (
    add_configuration_arguments,
    add_dataset_argument,
    add_output_arguments,
    processes_per_configuration,
)
from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.plans import DEFAULT_PLANS


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_semisup_preprocess",
        description="Check and preprocess the unlabeled images in imagesUn under an existing plan. "
        "Cases that are already done are kept; an interrupted run is continued.",
    )
    add_dataset_argument(parser, str)
    parser.add_argument(
        "-plans_name", default=DEFAULT_PLANS, help="name of the plan, default: %(default)s"
    )
    add_configuration_arguments(parser)
    parser.add_argument(
        "--verify-only", action="store_true", help="run all checks and write nothing"
    )
    add_constant_channels(parser)
    add_output_arguments(parser)
    return parser


def _run(args: argparse.Namespace) -> None:
    from nnunet_semisup.preparation.preprocessing import (
        check_before_preprocessing,
        preprocess_checked,
    )

    processes = processes_per_configuration(args.c, args.np)
    progress = not args.no_pbar
    checked, faults = [], []
    for dataset in args.d:
        try:
            checked.append(
                check_before_preprocessing(
                    dataset,
                    args.c,
                    args.plans_name,
                    processes,
                    show_progress=progress,
                    allow_constant_channels=args.allow_constant_channels,
                )
            )
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
    if args.verify_only:
        return
    for outcome in checked:
        preprocess_checked(outcome, args.verbose, progress)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the console script; ``argv`` defaults to the command line."""
    args = build_parser().parse_args(argv)
    run_command(lambda: _run(args))


if __name__ == "__main__":
    main()
