"""Bring a data set into nnU-Net's raw format (``nnUNetv2_semisup_convert``)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from nnunet_semisup.cli._accepted import add_accepted
from nnunet_semisup.cli._run import run_command
from nnunet_semisup.dataset_conversion.offers import EXTRA, LINKS, OFFERS

_DESCRIPTION = """Bring a data set into nnU-Net's raw format: labeled cases to imagesTr and
labelsTr, the others to imagesUn without their labels. Every file is read and checked first; if
anything is wrong, all of it is listed, nothing is written and the exit code is 2. A conversion
that was interrupted continues when the same command is given again."""


@dataclass(frozen=True)
class _Words:
    """Hold help of the options that mean something else for a user's own folders.

    ``split`` is metavar and help of ``--split``, ``fraction`` what ``--labeled 0.1`` is one of.
    """

    raw_dir: str
    fraction: str
    extra_unlabeled: str
    split: tuple[str, str]


_PUBLISHED = _Words(
    raw_dir="folder the download was extracted to",
    fraction="of the literature's table",
    extra_unlabeled="folder of the same form whose images become unlabeled cases; may be repeated",
    split=(
        "literature|NAME|seed:N|FILE.json",
        "published lists (default; by name where there are several), random lists of the same "
        "sizes, or a json file with the lists labeled, unlabeled and optionally validation and "
        "test",
    ),
)


def _own(split: tuple[str, str]) -> _Words:
    return _Words(
        raw_dir="folder with your images and labels",
        fraction="of the training cases",
        extra_unlabeled="folder of scans without labels, in RAW_DIR or anywhere; may be repeated",
        split=split,
    )


def build_parser() -> argparse.ArgumentParser:
    """Build the command line: one subcommand a data set."""
    parser = argparse.ArgumentParser(prog="nnUNetv2_semisup_convert", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    for name, offer in OFFERS.items():
        command = commands.add_parser(
            name,
            help=offer.title,
            usage=f"{parser.prog} {name} RAW_DIR -d ID [options]",
            description=f"{offer.title}. {_DESCRIPTION}",
            epilog=f"The layout, the checks and examples: docs/datasets/{name}.md",
        )
        split = offer.split_option
        _add_common(command, offer.name, _PUBLISHED if split is None else _own(split))
        offer.add_arguments(command)
        command.set_defaults(prepare=offer.prepare)
    return parser


def _add_common(parser: argparse.ArgumentParser, name: str, words: _Words) -> None:
    """Add the options that every data set has."""
    add = parser.add_argument
    add("raw_dir", type=Path, metavar="RAW_DIR", help=words.raw_dir)
    add(
        "-d",
        "--dataset-id",
        type=int,
        required=True,
        metavar="ID",
        help="nnU-Net's data set id, a free number such as 508",
    )
    add("--name", default=name, help=f"name that follows the id (default: {name})")
    _add_cases(parser, words)
    _add_checks(parser)
    add(
        "--reorient",
        action="store_true",
        help="write all scans and labels with the axes in the order of most labeled ones",
    )
    add(
        "--link",
        default="copy",
        choices=LINKS,
        help="how images arrive that need no conversion (default: copy)",
    )
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


def _add_cases(parser: argparse.ArgumentParser, words: _Words) -> None:
    """Add the options that decide what the cases are used for."""
    add = parser.add_argument
    add("--split", default="literature", metavar=words.split[0], help=words.split[1])
    add("--no-val", action="store_true", help="leave the validation cases of the split out")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--labeled",
        metavar="N",
        help="how many cases keep their labels, the first of the list: a number such as 8, or a "
        f"fraction {words.fraction} such as 0.1",
    )
    budget.add_argument(
        "--labeled-list",
        type=Path,
        metavar="FILE",
        help="text file with the cases that keep their labels, one a line",
    )
    add(
        "--extra",
        default="ignore",
        choices=EXTRA,
        help="what becomes of cases on disk that the split does not name (default: ignore)",
    )
    add(
        "--extra-unlabeled",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help=words.extra_unlabeled,
    )
    add(
        "--keep-hidden-labels",
        action="store_true",
        help="write the labels of unlabeled cases to labelsUn, for analysis; never trained on",
    )


def _add_checks(parser: argparse.ArgumentParser) -> None:
    """Add the options that soften a check."""
    add = parser.add_argument
    add(
        "--drop-duplicates",
        action="store_true",
        help="leave out unlabeled cases that show the same scan as another case",
    )
    add("--allow-partial", action="store_true", help="convert although cases are not on disk")
    add_accepted(parser)
    add(
        "--trust-affine",
        action="store_true",
        help="NIfTI files whose pixdim denies the voxel size of their sform: write the sform's",
    )


def _convert(arguments: argparse.Namespace) -> None:
    from nnunet_semisup.dataset_conversion.conversion import Options, Prepared, convert
    from nnunet_semisup.dataset_conversion.writing.target import Target

    Target(arguments.dataset_id, arguments.name)  # refuses id, name and place before any search
    prepared: Prepared = arguments.prepare(arguments)
    options = Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})
    convert(prepared.collected, prepared.split, prepared.form, options)


def _deciding(given: Sequence[str]) -> Iterator[str]:
    """Yield the words of a command line without those that cannot change what is written."""
    words = iter(given)
    for word in words:
        if word in ("-np", "--num-processes"):
            next(words, None)
        elif word != "--overwrite":
            yield word


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``nnUNetv2_semisup_convert``; ``argv`` defaults to the command line."""
    given = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser()
    arguments = parser.parse_args(given)
    arguments.command = (parser.prog, *_deciding(given))
    run_command(lambda: _convert(arguments))


if __name__ == "__main__":
    main()
