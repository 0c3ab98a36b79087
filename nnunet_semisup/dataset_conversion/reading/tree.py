"""Search for the files of a download by name, at any depth and in whatever folder they are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from nnunet_semisup.dataset_conversion.findings import Findings
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.raw import is_junk

_SHOWN = 5


def files_below(folder: Path, findings: Findings) -> list[Path]:
    """List every file below ``folder`` in a fixed order.

    What systems leave behind (``._name``, ``.DS_Store``, ``desktop.ini``, ``__MACOSX`` ...) is
    passed over; ``findings`` is told.
    """
    found, junk = [], []
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        here = Path(parent)
        junk += [f"{name}/" for name in sorted(subfolders) if is_junk(here / name)]
        subfolders[:] = sorted(name for name in subfolders if not is_junk(here / name))
        junk += [name for name in sorted(names) if is_junk(here / name)]
        found += [here / name for name in sorted(names) if not is_junk(here / name)]
    if junk:
        shown = ", ".join(junk[:_SHOWN]) + (" ..." if len(junk) > _SHOWN else "")
        findings.warnings.append(
            f"{len(junk)} files or folders that systems leave behind are passed over: {shown}"
        )
    return found


def named_like(files: Iterable[Path], pattern: str) -> list[tuple[Path, re.Match[str]]]:
    """Return the files whose whole name matches ``pattern``, with the match."""
    expression = re.compile(pattern)
    return [(file, match) for file in files if (match := expression.fullmatch(file.name))]


def by_case(
    found: Iterable[tuple[str, Path]], findings: Findings, what: str = "file"
) -> dict[str, Path]:
    """Return the one path of every case; a second one is a fault and is left out."""
    paths: dict[str, Path] = {}
    for case, path in found:
        if case in paths:
            findings.faults.append(
                f"case {case}: has more than one {what}, {paths[case]} and {path}; remove one"
            )
        else:
            paths[case] = path
    return paths


def choose_source(folder: Path, source: str, present: Mapping[str, bool], expected: str) -> str:
    """Return the form of the files: the one asked for, or under ``auto`` the only one there.

    Args:
        folder: the download.
        source: as given.
        present: whether files of a form are there, by form.
        expected: what the folder should hold, in words.

    Raises:
        UserError: no such form, or several under ``auto``.
    """
    there = [form for form, found in present.items() if found]
    if source == "auto" and len(there) > 1:
        choices = " or ".join(f"--source {form}" for form in there)
        raise UserError(f"{folder} holds files of several forms; choose {choices}.")
    if source == "auto" and there:
        return there[0]
    if source not in there:
        form = "any known form" if source == "auto" else f"the form '{source}'"
        raise UserError(f"{folder} holds no case of {form}. Expected is {expected}.")
    return source
