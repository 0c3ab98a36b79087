"""Add arguments and checks that commands for unlabeled images share with nnU-Net's own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.plans import DEFAULT_CONFIGURATIONS

_DEFAULT_PROCESSES = {"2d": 8, "3d_fullres": 4, "3d_lowres": 8}
_OTHER_PROCESSES = 4


def add_dataset_argument(
    parser: argparse.ArgumentParser, kind: type[int] | type[str] = int
) -> None:
    """Add ``-d``; with ``kind=str`` it also takes names, which not all of nnU-Net does."""
    what = "ids" if kind is int else "ids or names"
    parser.add_argument(
        "-d",
        nargs="+",
        type=kind,
        required=True,
        help=f"{what} of the data sets, for example 501 502",
    )


def add_configuration_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``-c`` and ``-np`` with nnU-Net's defaults."""
    parser.add_argument(
        "-c",
        nargs="+",
        default=list(DEFAULT_CONFIGURATIONS),
        help="configurations to preprocess for, default: %(default)s; those of the "
        "default that the plan does not have are skipped, 3d_cascade_fullres is not possible with "
        "unlabeled cases",
    )
    parser.add_argument(
        "-np",
        nargs="+",
        type=int,
        default=None,
        help="background processes, one number or one for each configuration; default: 8 for 2d, "
        "4 for 3d_fullres, 8 for 3d_lowres; use fewer when memory runs out",
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--verbose`` and ``--no_pbar``."""
    parser.add_argument("--verbose", action="store_true", help="print details of every case")
    parser.add_argument("--no_pbar", action="store_true", help="show no progress bars")


def processes_per_configuration(
    configurations: Sequence[str], given: Sequence[int] | None, smallest: int = 0
) -> list[int]:
    """Return the number of processes for each configuration.

    Args:
        configurations: value of ``-c``.
        given: value of ``-np``.
        smallest: allowed; 0 means no background process, which nnU-Net's own part does not know.

    Raises:
        UserError: the count is neither one nor that of the configurations, or a number is too
            small.
    """
    if given is None:
        return [_DEFAULT_PROCESSES.get(name, _OTHER_PROCESSES) for name in configurations]
    if len(given) not in (1, len(configurations)) or min(given) < smallest:
        raise UserError(
            f"-np {' '.join(map(str, given))} does not fit -c {' '.join(configurations)}: give one "
            f"number, or one for each configuration, none below {smallest}."
        )
    return list(given) if len(given) > 1 else list(given) * len(configurations)
