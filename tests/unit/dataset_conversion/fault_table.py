"""The table of broken trees: what was broken, and the message that the command gives.

    python -m tests.unit.dataset_conversion.fault_table > docs/datasets/faults.md

The faults are those that the tests of each data set break a tree with. A test compares the page
with this output.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nnunet_semisup.cli import verify
from tests.formats.harness import CASE, raw_dataset
from tests.formats.matrix import ROWS, plain_of
from tests.formats.row import Row
from tests.helpers import nnunet_folders
from tests.unit.dataset_conversion import (
    content_faults,
    layout_faults,
    test_acdc,
    test_brats2019,
    test_faults,
    test_generic_faults,
    test_msd_lung,
    test_pancreas,
    trees,
    verify_faults,
)
from tests.unit.dataset_conversion.trees_acdc import make_acdc
from tests.unit.dataset_conversion.trees_brats2019 import make_brats2019
from tests.unit.dataset_conversion.trees_common import Tree
from tests.unit.dataset_conversion.trees_generic import (
    PHOTO_OPTIONS,
    WHAT,
    convert,
    make_folders,
    make_photos,
)
from tests.unit.dataset_conversion.trees_msd_lung import make_msd_lung
from tests.unit.dataset_conversion.trees_pancreas import make_pancreas

HEADER = """\
# Broken trees and their messages

Every row is a tree that a test breaks in one way, and the line that the command prints for it.
The exit code is 2 and nothing is written. All faults of all cases come in one list; the table
shows one at a time. Paths are shortened, and what a library says about a damaged file is left out,
since it changes with the library.

Printed by `python -m tests.unit.dataset_conversion.fault_table`; a test compares the page with
that output.

| data set | broken | message |
|---|---|---|
"""


LAYOUTS = {**layout_faults.FAULTS, **content_faults.FAULTS}
_WITHOUT = "without:"
"""Before an option that is to be left out."""


@dataclass(frozen=True)
class BrokenTree:
    """One fault of one data set.

    ``make`` writes a sound tree below a folder, ``spoil`` breaks it, ``run`` calls the command,
    with further options if there are any, and gives its exit code; ``fragment`` is part of the
    message.
    """

    dataset: str
    name: str
    fragment: str
    make: Callable[[Path], Any]
    spoil: Callable[[Any], object]
    run: Callable[..., int]


def broken_trees() -> Iterator[BrokenTree]:
    """Every broken tree of every data set."""
    yield from _of("la", test_faults.FAULTS, trees.make_download, trees.convert)
    yield from _of("pancreas", test_pancreas.FAULTS, make_pancreas, Tree.convert)
    yield from _of("brats2019", test_brats2019.FAULTS, make_brats2019, Tree.convert)
    yield from _of(
        "msd_lung",
        test_msd_lung.FAULTS,
        make_msd_lung,
        lambda tree, *extra: tree.convert("--use-imagesTs", *extra),
    )
    yield from _of("acdc", test_acdc.FAULTS, make_acdc, Tree.convert)
    for name in (*test_generic_faults.FAULTS, *test_generic_faults.PHOTO_FAULTS):
        yield _generic(name)
    yield from map(_layout, LAYOUTS)
    yield from _of(
        "verify",
        {name: (spoil, messages[-1]) for name, (spoil, *messages) in verify_faults.FAULTS.items()},
        lambda folder: verify_faults.make_raw(folder.parent / "raw"),
        lambda _, *extra: _verify(*extra),
    )
    yield from _misread()


def _misread() -> Iterator[BrokenTree]:
    """Files of the matrix that are refused; one of each fault that a command names."""
    seen = set()
    for row in ROWS:
        command = "generic" if "convert" in row.refused else "verify"
        kind = (command, row.format, row.fault)
        if not (row.refused and row.fault) or kind in seen:
            continue
        seen.add(kind)
        name = f"{row.format}: {row.says}"
        if command == "verify":
            make, spoil = partial(_raw_dataset, row), partial(_spoil_raw, row)
            yield BrokenTree(
                command, name, row.fault, make, spoil, lambda _, *extra: _verify(*extra)
            )
        else:
            yield _unlabeled_image(row, name)


def _raw_dataset(row: Row, folder: Path) -> Path:
    """A raw data set of plain files in the row's format."""
    return raw_dataset(row, plain_of(row), folder.parent / "raw", intact=True).raw


def _spoil_raw(row: Row, raw: Path) -> None:
    """Put the row's file in the place of the unlabeled image."""
    row.write(raw / "imagesUn" / f"{CASE}_0000{row.ending}", row.image())


def _unlabeled_image(row: Row, name: str) -> BrokenTree:
    """A user's folders whose unlabeled image is that of the row."""
    if row.is_picture:
        make: Callable[[Path], Any] = partial(make_photos, image=row.ending)
        options, stem = PHOTO_OPTIONS, "p4_training"
    else:
        make, options, stem = partial(make_folders, ending=row.ending), WHAT, "p4"
    return BrokenTree(
        "generic",
        name,
        row.fault,
        make,
        lambda tree: row.write(tree.images / f"{stem}{row.ending}", row.image()),
        lambda tree, *extra: convert(tree.root, *_with(options, extra)),
    )


def _of(
    dataset: str,
    faults: Mapping[str, tuple[Callable[[Any], object], str]],
    make: Callable[[Path], Any],
    run: Callable[..., int],
) -> Iterator[BrokenTree]:
    for name, (spoil, fragment) in faults.items():
        yield BrokenTree(dataset, name, fragment, make, spoil, run)


def _generic(name: str) -> BrokenTree:
    make = make_folders if name in test_generic_faults.FAULTS else make_photos
    table = {**test_generic_faults.FAULTS, **test_generic_faults.PHOTO_FAULTS}
    fragment = next(text for text in reversed(table[name]) if isinstance(text, str))

    def run(tree: Any, *extra: str) -> int:
        return convert(tree.root, *_with(test_generic_faults.case_of(name, tree)[2], extra))

    return BrokenTree("generic", name, fragment, make, table[name][0], run)


def _with(options: Sequence[str], extra: Sequence[str]) -> list[str]:
    """The options of a command with further ones, and without those that are to be left out."""
    words = list(options)
    for word in extra:
        if not word.startswith(_WITHOUT):
            words.append(word)
            continue
        place = words.index(word.removeprefix(_WITHOUT))
        has_value = not "".join(words[place + 1 : place + 2]).startswith("--")
        del words[place : place + 1 + has_value]
    return words


def _layout(name: str) -> BrokenTree:
    fault = LAYOUTS[name]

    def run(tree: Any, *extra: str) -> int:
        return convert(tree.root, *_with(fault.options, extra))

    return BrokenTree("generic", name, fault.message, fault.make, fault.spoil, run)


def _verify(*extra: str) -> int:
    try:
        verify.main(["501", "-np", "1", *extra])
    except SystemExit as end:
        return int(end.code or 0)
    raise AssertionError("the command did not end through sys.exit")


@contextlib.contextmanager
def environment(folder: Path) -> Iterator[None]:
    """nnU-Net's folders in ``folder``, and no search for similar scans, which tiny ones all are."""
    with pytest.MonkeyPatch.context() as patch:
        nnunet_folders(folder, patch)
        place = "nnunet_semisup.dataset_conversion"
        patch.setattr(f"{place}.checking.all_cases.near_duplicates", lambda *_: [])
        patch.setattr(f"{place}.checking.raw_dataset._faults_by_nnunet", lambda *_: [])
        yield


def errors(broken: BrokenTree, tree: Any, *extra: str) -> tuple[int, list[str]]:
    """Exit code of the command, and the lines of its error."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        code = broken.run(tree, *extra)
    return code, error.getvalue().splitlines()


def message(broken: BrokenTree, folder: Path) -> str:
    """The line that the command prints for a broken tree, made below ``folder``."""
    with environment(folder):
        tree = broken.make(folder / "data")
        broken.spoil(tree)
        code, lines = errors(broken, tree)
    assert code == 2, f"{broken.dataset}, {broken.name}: exit code {code}"
    return shortened(next(line for line in lines if broken.fragment in line), folder)


def shortened(line: str, folder: Path) -> str:
    """Without list mark, temporary folder and the words of libraries."""
    text = line.strip().removeprefix("- ").removeprefix("error: ")
    text = text.replace(f"{folder}/", "")
    text = re.sub(r"(damaged or not [\w ]+?) \(.*\)(?=\. Download|$)", r"\1 (...)", text)
    return text.replace("|", "\\|")


def page(known: Mapping[tuple[str, str], str] | None = None) -> str:
    """The whole page; ``known`` has the messages that were seen already, by data set and name."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, broken in enumerate(broken_trees()):
            text = (known or {}).get((broken.dataset, broken.name))
            text = text or message(broken, Path(scratch) / str(number))
            rows.append(f"| {broken.dataset} | {broken.name} | {text} |\n")
    return HEADER + "".join(rows)


if __name__ == "__main__":
    print(page(), end="")
