"""Show what distinguishes evaluations of the same cases (``nnUNetv2_semisup_compare``)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_semisup.cli._run import run_command
from nnunet_semisup.evaluation.names import HIGHER_IS_BETTER

DESCRIPTION = """\
Compare evaluations of the same cases with the first one, case by case: the mean difference with a
95 % interval, in how many cases it is better or worse, and Wilcoxon's signed-rank test.

The evaluations are written by nnUNetv2_semisup_evaluate; nothing is computed from images here.
"""

EXAMPLES = """\
examples:
  nnUNetv2_semisup_compare predictions_supervised predictions_pseudo_label predictions_vqseg
  nnUNetv2_semisup_compare first.json second.json --metrics Dice HD95 --markdown
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_semisup_compare",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "evaluations",
        metavar="PRED",
        type=Path,
        nargs="+",
        help="folder of evaluated predictions, or the JSON file of its evaluation; the first is "
        "what the others are compared with",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=tuple(HIGHER_IS_BETTER),
        default=["Dice"],
        metavar="METRIC",
        help=f"of {', '.join(HIGHER_IS_BETTER)} [Dice]",
    )
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    return parser


def compare(arguments: argparse.Namespace) -> None:
    """Print the comparison; write nothing.

    Raises:
        UserError: the evaluations cannot be read or compared.
    """
    from nnunet_semisup.evaluation.compare import format_comparison, load_evaluations

    evaluations = load_evaluations(arguments.evaluations)
    print(format_comparison(evaluations, arguments.metrics, arguments.markdown))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``nnUNetv2_semisup_compare``; ``arguments`` default to the command line."""
    parsed = build_parser().parse_args(arguments)
    run_command(lambda: compare(parsed))


if __name__ == "__main__":
    main()
