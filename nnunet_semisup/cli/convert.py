"""``nnUNetv2_semisup_convert``: bring a public data set into nnU-Net's raw format."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from nnunet_semisup.cli._run import run_command
from nnunet_semisup.dataset_conversion import la
from nnunet_semisup.dataset_conversion.convert import Options, convert
from nnunet_semisup.dataset_conversion.splits import (
    Split,
    apply_budget,
    literature_split,
    read_split_file,
)


def build_parser() -> argparse.ArgumentParser:
    """The command line: one subcommand a data set."""
    parser = argparse.ArgumentParser(prog="nnUNetv2_semisup_convert", description=__doc__)
    datasets = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    _add_la(datasets.add_parser("la", help="2018 Atrial Segmentation Challenge, nrrd or h5"))
    return parser


def _add_common(parser: argparse.ArgumentParser, name: str) -> None:
    add = parser.add_argument
    add("raw_dir", type=Path, metavar="RAW_DIR", help="folder the download was extracted to")
    add("-d", "--dataset-id", type=int, required=True, metavar="ID", help="nnU-Net's data set id")
    add("--name", default=name, help=f"name after the id (default {name})")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--labeled", metavar="N", help="labeled cases: number, or fraction")
    budget.add_argument("--labeled-list", type=Path, metavar="FILE", help="labeled cases by name")
    add("--split", default="literature", metavar="literature|FILE.json")
    add("--source", default="auto", choices=("auto", "raw", "h5"))
    add("--keep-hidden-labels", action="store_true")
    add("--drop-duplicates", action="store_true")
    add("-np", "--num-processes", type=int, default=min(8, os.cpu_count() or 1), metavar="N")
    add("--dry-run", action="store_true")
    add("--allow-partial", action="store_true")
    add("--allow-empty", action="store_true")
    add("--overwrite", action="store_true")
    add("--report", type=Path, metavar="FILE")


def _add_la(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, la.NAME)
    parser.add_argument("--spacing", type=float, default=la.SPACING, metavar="MM")
    parser.set_defaults(run=_convert_la)


def _options(arguments: argparse.Namespace) -> Options:
    return Options(**{name: getattr(arguments, name) for name in Options.__dataclass_fields__})


def _split(arguments: argparse.Namespace, dataset: str) -> Split:
    literature = literature_split(dataset)
    lists = literature
    if arguments.split != "literature":
        lists = read_split_file(Path(arguments.split), literature.counts)
    return apply_budget(lists, arguments.labeled, arguments.labeled_list)


def _convert_la(arguments: argparse.Namespace) -> None:
    split = _split(arguments, "la")
    collected, source = la.collect(arguments.raw_dir, arguments.source)
    print(f"reading the form '{source}'")
    form = la.h5_form(arguments.spacing) if source == "h5" else la.raw_form()
    convert(collected, split, form, _options(arguments))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``nnUNetv2_semisup_convert``."""
    arguments = build_parser().parse_args(argv)
    run_command(lambda: arguments.run(arguments))
