"""Options that several data sets share, and the split that they mean."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_semisup.dataset_conversion.conversion import Collected
from nnunet_semisup.dataset_conversion.subsets import (
    Split,
    SplitLists,
    apply_budget,
    read_split_file,
    seeded_split,
)
from nnunet_semisup.errors import UserError


def choose_split(
    arguments: argparse.Namespace, published: Mapping[str, SplitLists], default: str
) -> Split:
    """Choose the split that ``--split``, ``--no-val``, ``--labeled``, ``--labeled-list`` mean.

    Args:
        arguments: of the command line.
        published: the data set's published splits by name.
        default: the one that ``literature`` and ``seed:N`` refer to.

    Raises:
        UserError: no such split, or the label budget is not available in it.
    """
    lists = _lists(arguments.split, published, default)
    if arguments.no_val:
        lists = replace(lists, validation=(), left_out=lists.left_out + lists.validation)
    return apply_budget(lists, arguments.labeled, arguments.labeled_list)


def _lists(choice: str, published: Mapping[str, SplitLists], default: str) -> SplitLists:
    base = published[default]
    if choice == "literature":
        return base
    if choice in published:
        return published[choice]
    if choice.startswith("seed:"):
        if not re.fullmatch(r"seed:\d{1,9}", choice):
            raise UserError(f"--split {choice} is not possible; give a number, as in seed:42.")
        return seeded_split(base, int(choice.removeprefix("seed:")))
    if not choice.endswith(".json"):
        named = "".join(f", {name}" for name in published if len(published) > 1)
        raise UserError(
            f"--split {choice} is unknown; give literature{named}, seed:N (such as seed:42) or a "
            "FILE.json."
        )
    return read_split_file(Path(choice), base.counts, base.groups)


def add_extra_unlabeled(
    collected: Collected, folders: Sequence[Path], collect: Callable[[Path], Collected]
) -> None:
    """Add the images in the folders of ``--extra-unlabeled`` as unlabeled cases.

    Args:
        collected: what was found in the download itself; is extended.
        folders: as given.
        collect: finds the cases of one folder, which has the form of the download.
    """
    for folder in folders:
        other = collect(folder)
        collected.add_unlabeled(other)
        print(f"{folder} has {len(other.cases)} further cases, used without labels")


def need_folder(folder: Path, advice: str = "give the one the data were extracted to") -> None:
    """Refuse a folder that is not there.

    Args:
        folder: as given.
        advice: what to give instead, for the message.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; {advice}.")
