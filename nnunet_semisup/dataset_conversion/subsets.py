"""Subsets and their cases: the literature's lists, a user's file, the label budget."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from nnunet_semisup.dataset_conversion.cases import Subset
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.raw import composed

_KEYS = ("labeled", "unlabeled", "validation", "test")


@dataclass(frozen=True)
class SplitLists:
    """Hold a split before the label budget is applied.

    Args:
        name: file name.
        sha256: hash of the file's bytes.
        pool: the cases that may be labeled, in the order in which a budget takes them.
        unlabeled: cases that are unlabeled under every budget.
        counts: size of the budget by the literature's percentage, such as ``{"10%": 8}``.
        groups: patient of a case, where a patient has several; budgets then count patients, and
            a patient's cases stay in one subset.
        left_out: cases that are known and deliberately in no subset.
    """

    name: str
    sha256: str
    pool: tuple[str, ...]
    unlabeled: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """Return what a budget counts."""
        return "patients" if self.groups else "cases"

    def group_of(self, case: str) -> str:
        """Return the patient of ``case``; the case itself where every patient has one."""
        return self.groups.get(case, case)

    @property
    def cases(self) -> tuple[str, ...]:
        """Return every case that the split names."""
        return self.pool + self.unlabeled + self.validation + self.test


@dataclass(frozen=True)
class Split:
    """Hold a split with its label budget applied; ``labeled`` keeps the split's order."""

    lists: SplitLists
    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    label_fraction: float

    def subset_of(self) -> dict[str, Subset]:
        """Return the subset of every case."""
        subsets = dict.fromkeys(self.labeled, Subset.LABELED)
        subsets.update(dict.fromkeys(self.unlabeled, Subset.UNLABELED))
        subsets.update(dict.fromkeys(self.lists.validation, Subset.VALIDATION))
        subsets.update(dict.fromkeys(self.lists.test, Subset.TEST))
        return subsets

    def with_unlabeled(self, cases: Sequence[str]) -> Split:
        """Return the same split with further unlabeled cases."""
        unlabeled = self.unlabeled + tuple(cases)
        fraction = len(self.labeled) / (len(self.labeled) + len(unlabeled))
        return replace(self, unlabeled=unlabeled, label_fraction=fraction)


def literature_split(dataset: str, variant: str = "") -> SplitLists:
    """Read the published split of ``dataset``, carried with its source in this package.

    Args:
        dataset: name of the json file in ``splits``.
        variant: key below ``variants`` in that file, for a data set with several published splits.
    """
    file = (
        resources.files("nnunet_semisup.dataset_conversion.datasets") / "splits" / f"{dataset}.json"
    )
    content = file.read_bytes()
    data = json.loads(content)
    if variant:
        data = data["variants"][variant]
    return SplitLists(
        name=f"{dataset}.json" + (f":{variant}" if variant else ""),
        sha256=hashlib.sha256(content).hexdigest(),
        pool=tuple(data["train"]),
        unlabeled=(),
        validation=tuple(data["val"]),
        test=tuple(data["test"]),
        counts=data["labelled_counts"],
    )


def seeded_split(lists: SplitLists, seed: int) -> SplitLists:
    """Draw a random split of the same cases into subsets of the same size, patients together.

    Args:
        lists: the split to redraw, before any budget.
        seed: of ``random.Random``; equal seeds give equal splits.
    """
    members: dict[str, list[str]] = {}
    for case in sorted(lists.cases):
        members.setdefault(lists.group_of(case), []).append(case)
    groups = list(members)
    random.Random(seed).shuffle(groups)

    def draw(like: tuple[str, ...]) -> tuple[str, ...]:
        number = len({lists.group_of(case) for case in like})
        taken = [groups.pop(0) for _ in range(number)]
        return tuple(case for group in taken for case in members[group])

    drawn = replace(
        lists,
        name=f"seed:{seed} over {lists.name}",
        pool=draw(lists.pool),
        unlabeled=draw(lists.unlabeled),
        validation=draw(lists.validation),
        test=draw(lists.test),
    )
    content = json.dumps([drawn.pool, drawn.unlabeled, drawn.validation, drawn.test])
    return replace(drawn, sha256=hashlib.sha256(content.encode()).hexdigest())


def read_split_file(
    path: Path, counts: Mapping[str, int], groups: Mapping[str, str] | None = None
) -> SplitLists:
    """Read a user's split.

    It is a json object with lists ``labeled``, ``unlabeled`` and optionally ``validation`` and
    ``test``.

    Args:
        path: the json file.
        counts: the data set's table of labeled cases by percentage.
        groups: patient by case, see :class:`SplitLists`.

    Raises:
        UserError: not such a file, a case named twice, or a patient in two subsets.
    """
    try:
        content = path.read_bytes()
        data = json.loads(composed(content.decode("utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(
            f"--split {path} cannot be read as json ({error}). Give a json file "
            'like {"labeled": [...], "unlabeled": [...], "validation": [...], "test": [...]}.'
        ) from error
    faults = _structure_faults(data)
    if not faults and groups:
        faults = _straddling({k: data.get(k, ()) for k in _KEYS}, groups)
    if faults:
        raise UserError(f"--split {path} is not a valid split:\n" + "\n".join(faults))
    return SplitLists(
        name=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        pool=tuple(data["labeled"]),
        unlabeled=tuple(data["unlabeled"]),
        validation=tuple(data.get("validation", ())),
        test=tuple(data.get("test", ())),
        counts=counts,
        groups=groups or {},
    )


def _structure_faults(data: Any) -> list[str]:
    """Return what is wrong with the content of a split file."""
    if not isinstance(data, dict):
        return [f"  - it holds a {type(data).__name__}; it must hold an object with lists"]
    faults = [
        f"  - the key '{key}' is missing" for key in ("labeled", "unlabeled") if key not in data
    ]
    faults += [
        f"  - the key '{key}' is unknown; allowed are {', '.join(_KEYS)}"
        for key in data
        if key not in _KEYS
    ]
    lists = {key: value for key, value in data.items() if key in _KEYS}
    for key, value in lists.items():
        if not isinstance(value, list) or not all(isinstance(case, str) for case in value):
            faults.append(f"  - '{key}' must be a list of case names")
    if not faults:
        faults += _repeated(lists)
    return faults


def _repeated(lists: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the cases that stand in a list, or in several lists, more than once."""
    count = Counter(case for cases in lists.values() for case in cases)
    return [
        f"  - case {case} is named {number} times, in "
        f"{' and '.join(key for key, cases in lists.items() if case in cases)}; "
        "a case belongs to one list, once"
        for case, number in count.items()
        if number > 1
    ]


def _straddling(lists: Mapping[str, Sequence[str]], groups: Mapping[str, str]) -> list[str]:
    """Return the patients with cases in several lists."""
    places: dict[str, list[str]] = {}
    for key, cases in lists.items():
        for patient in {groups.get(case, case): None for case in cases}:
            places.setdefault(patient, []).append(key)
    return [
        f"  - {patient} is in {' and '.join(keys)}; all cases of a patient belong to one list"
        for patient, keys in places.items()
        if len(keys) > 1
    ]


def apply_budget(
    lists: SplitLists, labeled: str | None = None, labeled_list: Path | None = None
) -> Split:
    """Decide which cases keep their labels.

    Args:
        lists: the split.
        labeled: a number of cases (``"8"``; of patients, where the split has them) or a fraction
            of the literature's table (``"0.1"``).
        labeled_list: a text file with one case name a line, instead of ``labeled``; the name of
            a patient stands for its cases.

    Raises:
        UserError: the budget is not available in this split.
    """
    if labeled_list is not None:
        chosen = _read_case_list(labeled_list, lists)
    else:
        patients = set(_patients(lists.pool, lists)[: _budget(lists, labeled)])
        chosen = tuple(case for case in lists.pool if lists.group_of(case) in patients)
    kept = set(chosen)
    rest = tuple(case for case in lists.pool + lists.unlabeled if case not in kept)
    return Split(lists, chosen, rest, len(chosen) / (len(chosen) + len(rest)))


def _patients(cases: Sequence[str], lists: SplitLists) -> list[str]:
    """Return the patients of ``cases``, each once, in order."""
    return list(dict.fromkeys(lists.group_of(case) for case in cases))


def _budget(lists: SplitLists, labeled: str | None) -> int:
    """Return the number of labeled cases (or patients) that ``--labeled`` means."""
    available = len(_patients(lists.pool, lists))
    if labeled is None:
        if lists.unlabeled:
            return available
        raise UserError(
            f"the split {lists.name} does not say how many {lists.unit} keep their labels. "
            f"Add --labeled N, {_allowed(lists)}."
        )
    number = 0
    if re.fullmatch(r"\d+", labeled):
        number = int(labeled)
    elif re.fullmatch(r"0?\.\d+", labeled):
        for key, count in lists.counts.items():
            if abs(_fraction(key) - float(labeled)) < 1e-9:
                number = count
    if not 1 <= number <= available:
        raise UserError(f"--labeled {labeled} is not available; give {_allowed(lists)}.")
    return number


def _fraction(percentage: str) -> float:
    return float(percentage.rstrip("%")) / 100


def _allowed(lists: SplitLists) -> str:
    table = ", ".join(f"{_fraction(key):g} ({count})" for key, count in lists.counts.items())
    whole = f"a whole number from 1 to {len(_patients(lists.pool, lists))}"
    if lists.groups:
        whole += " (patients)"
    return f"{whole}, or a fraction of the literature's table: {table}" if table else whole


def read_case_names(path: Path, option: str) -> list[str]:
    """Read the names in a text file, one a line.

    Raises:
        UserError: the file given to ``option`` cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{option} {path} cannot be read ({error}).") from error
    return [composed(line.strip()) for line in lines if line.strip()]


def _read_case_list(path: Path, lists: SplitLists) -> tuple[str, ...]:
    """Read the cases named in ``path``, all of which must be in the split's training part."""
    named = read_case_names(path, "--labeled-list")
    training = lists.pool + lists.unlabeled
    allowed = set(training)
    cases_of: dict[str, list[str]] = {}
    for case in training:
        cases_of.setdefault(lists.group_of(case), []).append(case)
    chosen = tuple(case for name in named for case in cases_of.get(name, [name]))
    faults = [
        f"  - {case} is not a training case of {lists.name}"
        for case in chosen
        if case not in allowed
    ]
    faults += [f"  - {case} is named {n} times" for case, n in Counter(chosen).items() if n > 1]
    if not chosen:
        faults.append("  - it names no case")
    if not faults:
        rest = [case for case in training if case not in chosen]
        faults = _straddling({"the list": chosen, "the unlabeled cases": rest}, lists.groups)
    if faults:
        raise UserError(
            f"--labeled-list {path} must name training cases, one a line, each once:\n"
            + "\n".join(faults)
        )
    return chosen
