"""``nnUNetv2_semisup_convert``: bring a public data set into nnU-Net's raw format."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from nnunet_semisup.cli._run import run_command
from nnunet_semisup.dataset_conversion import la
from nnunet_semisup.dataset_conversion.convert import LINKS, Options, convert
from nnunet_semisup.dataset_conversion.splits import (
    Split,
    apply_budget,
    literature_split,
    read_split_file,
)

_DESCRIPTION = """Bring a public data set into nnU-Net's raw format: labeled cases to imagesTr and
labelsTr, the others to imagesUn without their labels. Every file is read and checked first; if
anything is wrong, all of it is listed, nothing is written and the exit code is 2. A conversion
that was interrupted continues when the same command is given again."""


def build_parser() -> argparse.ArgumentParser:
    """The command line: one subcommand a data set."""
    parser = argparse.ArgumentParser(prog="nnUNetv2_semisup_convert", description=_DESCRIPTION)
    datasets = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    _add_la(
        datasets.add_parser(
            "la", help="2018 Atrial Segmentation Challenge, nrrd or h5", description=_DESCRIPTION
        )
    )
    return parser


def _add_common(parser: argparse.ArgumentParser, name: str) -> None:
    """Options that every data set has."""
    add = parser.add_argument
    add("raw_dir", type=Path, metavar="RAW_DIR", help="folder the download was extracted to")
    add("-d", "--dataset-id", type=int, required=True, metavar="ID", help="nnU-Net's data set id")
    add("--name", default=name, help=f"name that follows the id (default: {name})")
    add(
        "--split",
        default="literature",
        metavar="literature|FILE.json",
        help="published lists (default), or a json file with the lists labeled, unlabeled and "
        "optionally validation and test",
    )
    add(
        "--keep-hidden-labels",
        action="store_true",
        help="write the labels of unlabeled cases to labelsUn, for analysis; never trained on",
    )
    add(
        "--drop-duplicates",
        action="store_true",
        help="leave out unlabeled cases that show the same scan as another case",
    )
    add(
        "--link",
        default="copy",
        choices=LINKS,
        help="how images arrive that need no conversion (default: copy)",
    )
    add("--allow-partial", action="store_true", help="convert although cases are not on disk")
    add("--allow-empty", action="store_true", help="accept labels without foreground")
    add(
        "--overwrite",
        action="store_true",
        help="replace a data set, or discard an unfinished one, that this command has written",
    )
    add("--dry-run", action="store_true", help="do all checks, write no data set")
    add("--report", type=Path, metavar="FILE", help="write a copy of the report here")
    add(
        "-np",
        "--num-processes",
        type=int,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="processes (default: %(default)s)",
    )
    _add_budget(parser)


def _add_budget(parser: argparse.ArgumentParser) -> None:
    """Options that decide which cases keep their labels."""
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--labeled",
        metavar="N",
        help="how many cases keep their labels, the first of the list: a number such as 8, or a "
        "fraction of the literature's table such as 0.1",
    )
    budget.add_argument(
        "--labeled-list",
        type=Path,
        metavar="FILE",
        help="text file with the cases that keep their labels, one a line",
    )


def _add_la(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, la.NAME)
    parser.add_argument(
        "--source",
        default="auto",
        choices=la.SOURCES,
        help="form of the files (default: auto, the one that is there)",
    )
    parser.add_argument(
        "--spacing",
        type=float,
        default=la.SPACING,
        metavar="MM",
        help="voxel size to assume for h5 files, which hold none (default: %(default)s)",
    )
    parser.set_defaults(run=_convert_la)


def _options(arguments: argparse.Namespace) -> Options:
    return Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})


def _split(arguments: argparse.Namespace, dataset: str) -> Split:
    """The split that ``--split``, ``--labeled`` and ``--labeled-list`` mean."""
    lists = literature_split(dataset)
    if arguments.split != "literature":
        lists = read_split_file(Path(arguments.split), lists.counts)
    return apply_budget(lists, arguments.labeled, arguments.labeled_list)


def _convert_la(arguments: argparse.Namespace) -> None:
    split = _split(arguments, "la")
    collected, source = la.collect(arguments.raw_dir, arguments.source)
    print(f"{arguments.raw_dir} has the form '{source}' ({len(collected.cases)} cases)")
    form = la.h5_form(arguments.spacing) if source == "h5" else la.raw_form()
    convert(collected, split, form, _options(arguments))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``nnUNetv2_semisup_convert``."""
    arguments = build_parser().parse_args(argv)
    run_command(lambda: arguments.run(arguments))
