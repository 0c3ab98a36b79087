"""nnU-Net's three folders as the environment names them, and what it would misunderstand.

nnU-Net 2.8.1 takes the variables as they are (``nnunetv2/paths.py``): a quotation mark, a blank or
``~`` is part of a folder's name, which it makes where it lacks one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from nnunet_semisup.errors import UserError

_CONTENT = {
    "nnUNet_raw": "raw data sets",
    "nnUNet_preprocessed": "preprocessed data sets",
    "nnUNet_results": "results of trainings",
}
_QUOTES = "\"'`\u2018\u2019\u201c\u201d"


def require_set(*variables: str) -> None:
    """Refuse to go on without nnU-Net's folders.

    Args:
        variables: ``"nnUNet_raw"``, ``"nnUNet_preprocessed"``, ``"nnUNet_results"``.

    Raises:
        UserError: one of them is not set or empty; the message has what to type.
    """
    unset = [name for name in variables if not os.environ.get(name)]
    if not unset:
        return
    if len(unset) == 1:
        what = f"variable {unset[0]} is not set; it names the folder of {_CONTENT[unset[0]]}"
    else:
        what = f"variables {' and '.join(unset)} are not set; they name the folders of "
        what += " and ".join(_CONTENT[name] for name in unset)
    example = " ".join(f"{name}=$HOME/{name}" for name in unset)
    raise UserError(f"the {what}. Type for example: export {example}")


def check_environment() -> None:
    """Refuse values of nnU-Net's variables that name other folders than they seem to.

    Variables that are not set, or empty, are left to :func:`require_set`.

    Raises:
        UserError: naming each variable with a quotation mark, a blank or ``~`` that nothing has
            replaced, and each two that name one folder, or a folder in the other's.
    """
    given = {name: os.environ[name] for name in _CONTENT if os.environ.get(name)}
    faults = _spelling_faults(given) or _nesting_faults(given)
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise UserError(
            f"nnU-Net's folders cannot be used as the environment names them:\n{listed}\n"
            "Correct them where they are set (a shell's start file, a job script, an .env file); "
            "for example: export nnUNet_raw=/data/nnUNet_raw"
        )


def _spelling_faults(given: Mapping[str, str]) -> list[str]:
    """Return the values that are not the paths that they were meant to be."""
    faults = []
    for name, value in given.items():
        bare = value.strip()
        if bare != value:
            what = "begins or ends with a blank or a line break"
        elif bare[0] in _QUOTES or bare[-1] in _QUOTES:
            what = "begins or ends with a quotation mark"
        elif bare.startswith("~"):
            what = "begins with ~, which no shell has replaced; write the home folder out"
        elif re.search(r"\$([A-Za-z_]|\{)", bare):
            what = "holds a $ that no shell has replaced; write the folder out"
        else:
            continue
        faults.append(f"{name}={value!r} {what}")
    return faults


def _nesting_faults(given: Mapping[str, str]) -> list[str]:
    """Return pairs of variables that name one folder, or a folder and one in it."""
    places = {name: Path(value).resolve() for name, value in given.items()}
    faults = []
    for first, second in combinations(places, 2):
        outer, inner = sorted((first, second), key=lambda name: len(places[name].parts))
        if places[outer] == places[inner]:
            faults.append(f"{first} and {second} name one folder, {places[first]}")
        elif places[outer] in places[inner].parents:
            faults.append(f"{inner} ({places[inner]}) lies in {outer} ({places[outer]})")
    return [f"{fault}; give each variable a folder of its own" for fault in faults]
