"""Pack a trained model into a zip that nnU-Net installs (``nnUNetv2_semisup_export``)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_semisup.cli._model import (
    add_model_arguments,
    fold_faults,
    folds_of,
    model_folder,
    name_faults,
)
from nnunet_semisup.cli._run import run_command
from nnunet_semisup.errors import UserError

DESCRIPTION = """\
Pack a trained model into a zip that nnUNetv2_install_pretrained_model_from_zip installs, with a
card that tells what was recorded about it. Where nnU-Net itself builds the network that predicts,
the zip names nnUNetTrainer and needs no further package. What only training needs, names of cases
and paths stay behind. The zip is written once its files predict as the training's network does.
"""

EXAMPLES = """\
example:
  nnUNetv2_semisup_export -d 501 -c 3d_fullres -tr nnUNetTrainerCPS -f 0 -o liver.zip \\
      --license CC-BY-4.0 --citation "Doe et al., 2026" --scanners "Siemens Aera 1.5 T"
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_semisup_export",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add_model_arguments(parser)
    add("-o", required=True, type=Path, metavar="FILE.zip", help="zip; never replaced")
    add("--license", default="", metavar="SPDX", help="of the weights, such as CC-BY-4.0")
    add("--citation", default="", metavar="TEXT", help="what users of the model shall cite")
    add("--authors", default="", metavar="TEXT", help="who made it")
    add("--scanners", default="", metavar="TEXT", help="that the images come from")
    add(
        "--evaluation",
        type=Path,
        metavar="FILE",
        help="of held-out cases, by nnUNetv2_semisup_evaluate; the folds' validation is in the "
        "card without it",
    )
    return parser


def export(arguments: argparse.Namespace) -> None:
    """Check the arguments, and pack.

    Raises:
        UserError: see :func:`nnunet_semisup.sharing.export.export`.
    """
    if problems := name_faults(arguments) + fold_faults(arguments):
        raise UserError("; ".join(problems))
    from nnunet_semisup.sharing.card import Terms
    from nnunet_semisup.sharing.export import Export
    from nnunet_semisup.sharing.export import export as pack

    texts = (arguments.license, arguments.citation, arguments.authors, arguments.scanners)
    terms = Terms(*(" ".join(text.split()) for text in texts))
    folds = tuple(dict.fromkeys(folds_of(arguments)))
    model = model_folder(arguments)
    pack(Export(model, folds, arguments.chk, arguments.o, terms, arguments.evaluation))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``nnUNetv2_semisup_export``; ``arguments`` default to the command line."""
    parsed = build_parser().parse_args(arguments)
    run_command(lambda: export(parsed))


if __name__ == "__main__":
    main()
