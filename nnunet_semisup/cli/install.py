"""Install a model's zip once it has been looked at (``nnUNetv2_semisup_install``)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_semisup.cli._run import run_command

DESCRIPTION = """\
Install a zip of nnUNetv2_semisup_export, or of nnUNetv2_export_model_to_zip, into nnUNet_results.
Files that would land elsewhere, links, sizes that no model has, hashes other than the card's, and
checkpoints that hold code are refused, and so are models that would replace one.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_semisup_install",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("zip", type=Path, metavar="FILE.zip", help="the model")
    add("--into", type=Path, metavar="DIR", help="folder of results [nnUNet_results]")
    add(
        "--overwrite",
        action="store_true",
        help="install over a model of that name, which is kept as NAME_previous",
    )
    return parser


def install(arguments: argparse.Namespace) -> None:
    """Install, and print how to predict.

    Raises:
        UserError: see :func:`nnunet_semisup.sharing.install.install`.
    """
    from nnunet_semisup.preparation.environment import require_set

    if arguments.into is None:
        require_set("nnUNet_results")
    from nnunet_semisup.sharing.install import install as unpack
    from nnunet_semisup.sharing.install import tell

    for folder in unpack(arguments.zip, arguments.into, arguments.overwrite):
        tell(folder, arguments.into is None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``nnUNetv2_semisup_install``; ``arguments`` default to the command line."""
    parsed = build_parser().parse_args(arguments)
    run_command(lambda: install(parsed))


if __name__ == "__main__":
    main()
