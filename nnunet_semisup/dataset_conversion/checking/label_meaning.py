"""Values of a label file and what they become, by its names and the options for labels.

A name decides over a number, and every contradiction is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_semisup.dataset_conversion.reading.label_names import (
    LAYERED,
    listed,
    named_values,
    plain,
)

LabelNames = Mapping[str, "int | Sequence[int]"]
Choices = Mapping["int | str", int]
"""What a user says of values and of names (as :func:`plain` has them): the value they become."""

_PLACEHOLDER = re.compile(r"(segment|label|class|region|roi)? ?\d*|\?+")


def common_labels(files: Iterable[Path]) -> dict[str, int] | None:
    """Return nnU-Net's labels from the names in label files.

    Args:
        files: the label files.

    Returns:
        Value by name, the background first, the others in the order of the values that the files
        give them, ``ignore`` last; ``None`` if no file has names.
    """
    lowest: dict[str, tuple[int, str]] = {}
    for path in files:
        for value, name in (named_values(path) or {}).items():
            key = plain(name)
            if value and key != "background" and not _PLACEHOLDER.fullmatch(key):
                known = lowest.get(key, (value, name))
                lowest[key] = (min(value, known[0]), known[1])
    if not lowest:
        return None
    ordered = sorted(lowest, key=lambda key: (key == "ignore", lowest[key][0]))
    return {"background": 0} | {lowest[key][1]: i for i, key in enumerate(ordered, 1)}


@dataclass(frozen=True)
class Meaning:
    """Hold what the values of one label file become.

    Args:
        label_map: value in the file to nnU-Net's value.
        taken_by_number: names in the file that decided nothing, by value; other files must not
            contradict them.
        faults: what contradicts.
    """

    label_map: Mapping[int, int]
    taken_by_number: Mapping[int, str] = field(default_factory=dict)
    faults: Sequence[str] = ()


def meaning_of(
    names: Mapping[int, str],
    present: Iterable[int],
    labels: LabelNames,
    label_map: Mapping[int, int],
    choices: Choices,
) -> Meaning:
    """Decide by the names in a label file what its values become.

    Args:
        names: of :func:`named_values`; empty for a file without names.
        present: the values that occur in the file's voxels. What is not there cannot be wrong.
        labels: nnU-Net's, with regions.
        label_map: value to nnU-Net's value, for files without names.
        choices: what ``--label-map`` says of single values and of names.
    """
    known = _values_by_name(labels)
    speaks = any(value and not _is_placeholder(name) for value, name in names.items())
    regions = any(len(_as_values(value)) > 1 for value in labels.values())
    decided, by_number = dict(label_map), dict[int, str]()
    faults, unknown, unnamed = [], [], []
    for value in sorted(map(int, present)):
        name = names.get(value, "")
        target = choices.get(plain(name), known.get(plain(name)))
        if target is not None:
            decided[value] = target
            stated = choices.get(value, target if value else 0)
            if stated != target:
                faults.append(_against_number(value, name, target, stated, value in choices))
        elif value in choices or value == 0 or (regions and name and value in label_map):
            by_number |= {value: name} if name and value else {}
        elif name and (value >= LAYERED or not _is_placeholder(name)):
            unknown.append(value)
        elif speaks:
            unnamed.append(value)
    if unknown:
        faults.append(_unknown({value: names[value] for value in unknown}, labels))
    if unnamed:
        faults.append(_unnamed(unnamed, names))
    return Meaning(decided, by_number, faults)


def moved_names(
    names: Mapping[int, str],
    present: Iterable[int],
    labels: LabelNames,
    label_map: Mapping[int, int],
) -> list[str]:
    """Say which values of a label file have the name of another label, where none may be moved.

    Args:
        names: of :func:`named_values`.
        present: the values that occur in the file's voxels.
        labels: nnU-Net's.
        label_map: value to nnU-Net's value.
    """
    known = _values_by_name(labels)
    named = {value: names.get(value, "") for value in sorted(map(int, present))}
    return [
        f"its header names the value {value} '{name}', which is {known[plain(name)]} in the data "
        f"set's labels ({listed(labels)}); correct the file, or the labels"
        for value, name in named.items()
        if plain(name) in known and label_map.get(value) != known[plain(name)]
    ]


def unknown_names(names: Mapping[int, str], present: Iterable[int], labels: LabelNames) -> set[str]:
    """Return the names in a label file, of values that occur in it, that no label has."""
    known = _values_by_name(labels)
    there = (names.get(int(value), "") for value in present if value)
    return {name for name in there if not _is_placeholder(name) and plain(name) not in known}


def contradictions(taken: Mapping[str, Mapping[int, str]]) -> list[str]:
    """Say where two files give a value that was taken by its number two names, or the reverse.

    Args:
        taken: by case, :attr:`Meaning.taken_by_number`.
    """
    cases: dict[tuple[int, str], list[str]] = {}
    shown: dict[str, str] = {}
    for case, names in taken.items():
        for value, name in names.items():
            if not _is_placeholder(name):
                cases.setdefault((value, plain(name)), []).append(case)
                shown.setdefault(plain(name), name)
    values = [value for value, _ in cases]
    names_ = [name for _, name in cases]
    doubtful = [key for key in cases if values.count(key[0]) > 1 or names_.count(key[1]) > 1]
    if not doubtful:
        return []
    described = "; ".join(
        f"{value} is '{shown[name]}' in {listed(cases[value, name])}" for value, name in doubtful
    )
    choices = ",".join(f"{name}:NEW" for name in dict.fromkeys(shown[n] for _, n in doubtful))
    return [
        f"the headers of the labels give a value two names, or a name two values: {described}. Say "
        f"what the names are instead of the numbers: --label-map '{choices}'"
    ]


def renumbered(
    names: Mapping[str, Mapping[int, str]],
    maps: Mapping[str, Mapping[int, int]],
    label_map: Mapping[int, int],
) -> str | None:
    """Say in which label files a name decided against what the number means elsewhere.

    That is right unless the names are older than the values: programs that change values often copy
    the header.

    Args:
        names: by case, the names of the values that occur in its label.
        maps: by case, :attr:`Meaning.label_map`.
        label_map: value to nnU-Net's value, for files without names.
    """
    moved = {
        case: [
            f"{value} '{name}' becomes {maps[case][value]}"
            for value, name in own.items()
            if label_map.get(value, maps[case].get(value)) != maps[case].get(value)
        ]
        for case, own in names.items()
    }
    told = [f"{case} ({', '.join(values)})" for case, values in moved.items() if values]
    if not told:
        return None
    return (
        f"in {len(told)} label files the names decide against the order of the labels: "
        f"{listed(told)}. If a name is older than the values, correct the header"
    )


def silent_files(
    names: Mapping[str, Mapping[int, str]],
    maps: Mapping[str, Mapping[int, int]],
    label_map: Mapping[int, int],
) -> str | None:
    """Say which label files are read by number while others have other values for the same names.

    Args:
        names: by case, the names of the values that occur in its label.
        maps: by case, :attr:`Meaning.label_map`.
        label_map: value to nnU-Net's value, for files without names.
    """
    silent = [c for c, own in names.items() if all(map(_is_placeholder, own.values()))]
    moved = {
        value: name
        for case, own in names.items()
        for value, name in own.items()
        if value < LAYERED and maps[case].get(value) != label_map.get(value)
    }
    if not silent or not moved:
        return None
    return (
        f"the labels of {len(silent)} cases do not say what their values mean and are read by "
        f"number ({listed(silent)}), although others have {_shown(moved)}, which is not the order "
        "of the data set's labels. Look at them; --label-map says what their numbers mean"
    )


def _values_by_name(labels: LabelNames) -> dict[str, int]:
    """Return the labels that are one value, by their plain name."""
    single = {plain(name): _as_values(value) for name, value in labels.items()}
    return {name: values[0] for name, values in single.items() if len(values) == 1}


def _as_values(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _is_placeholder(name: str) -> bool:
    """Return whether a program numbered instead of naming, or the name is empty."""
    return bool(_PLACEHOLDER.fullmatch(plain(name)))


def _against_number(value: int, name: str, target: int, stated: int, by_user: bool) -> str:
    said = f"--label-map says {value}:{stated}" if by_user else f"{value} is the background"
    return (
        f"its header names the value {value} '{name}', which is {target} in the data set's labels, "
        f"and {said}. Correct the name in the file, or say what it is: "
        f"--label-map '{name}:{stated}'"
    )


def _unknown(unknown: Mapping[int, str], labels: LabelNames) -> str:
    choices = [f"{name}:NEW" for name in dict.fromkeys(unknown.values())]
    example = ",".join(choices[:3]) + ",..." * (len(choices) > 3)
    return (
        f"its header names {_shown(unknown)}, and the labels of the data set are "
        f"{listed(labels)}. Use the same names (upper case, blanks and _ do not matter), or say "
        f"what they are: --label-map '{example}', where NEW is a value, 0 for the background"
    )


def _unnamed(unnamed: Sequence[int], names: Mapping[int, str]) -> str:
    return (
        f"its header names {_shown(names)}, but not the value {listed(map(str, unnamed))}, which "
        f"occurs. Name it in the file, or say what it is: --label-map {unnamed[0]}:NEW"
    )


def _shown(names: Mapping[int, str]) -> str:
    """Show values and names as text; the values of layers are ours and nobody knows them."""
    return listed(
        f"{value} '{name}'" if value < LAYERED else f"'{name}'"
        for value, name in sorted(names.items())
    )
