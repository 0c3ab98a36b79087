"""Subsets of a user's own cases: by what has a label, by number, by list; patients together."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_semisup.dataset_conversion.generic.options import BY_LABELS
from nnunet_semisup.dataset_conversion.subsets import (
    Split,
    SplitLists,
    apply_budget,
    read_case_names,
    read_split_file,
)
from nnunet_semisup.errors import UserError


@dataclass(frozen=True)
class Request:
    """Hold what the command line says about subsets; see ``generic.add_arguments``."""

    split: str = BY_LABELS
    labeled: str | None = None
    labeled_list: Path | None = None
    validation: str | None = None


def group_cases(cases: Collection[str], pattern: str | None) -> dict[str, str]:
    """Return the patient by case: the first bracket of ``pattern`` (or all it matches) in its name.

    Raises:
        UserError: no such pattern, or cases that it does not match.
    """
    if pattern is None:
        return {}
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--group-regex {pattern!r} is no regular expression ({error}).") from error
    groups, unmatched = {}, []
    for case in cases:
        match = regex.search(case)
        patient = match[1 if regex.groups else 0] if match else None
        if patient:
            groups[case] = patient
        else:
            unmatched.append(case)
    if unmatched:
        raise UserError(
            f"--group-regex {pattern!r} gives no patient for {len(unmatched)} cases: "
            f"{', '.join(unmatched[:10])}"
        )
    return groups


def choose(
    training: Mapping[str, bool],
    test: Sequence[str],
    groups: Mapping[str, str],
    request: Request,
    has_extra: bool = False,
) -> Split:
    """Choose the subsets of all cases.

    Args:
        training: the training cases in the order of their names; whether each has a label.
        test: the test cases.
        groups: patient by case; empty if every case is a patient.
        request: what the command line says.
        has_extra: whether there are unlabeled images besides, so that all labels may be kept.

    Raises:
        UserError: the request cannot be met, or a patient would be in two subsets.
    """
    if request.split.endswith(".json"):
        if request.validation is not None:
            raise UserError("--validation and --split FILE.json exclude each other.")
        lists = read_split_file(Path(request.split), {}, groups)
        return _budgeted(lists, request, has_extra, f"{request.split} names no unlabeled case")
    lists = _by_labels(training, test, groups, _seed(request.split))
    if request.validation is not None:
        lists = _with_validation(lists, request.validation)
    return finish(lists, request, has_extra)


def finish(lists: SplitLists, request: Request, has_extra: bool = False) -> Split:
    """Apply the label budget to a split that is complete otherwise; see :func:`choose`."""
    _check_patients(lists)
    if not lists.pool and not lists.validation:
        raise UserError(
            f"none of the {len(lists.unlabeled)} training images has a label; nnU-Net plans and "
            "learns from labeled cases. Say where the labels are by --labels DIR (--label-glob for "
            "cases with a folder each) and what follows the case in their names by --label-suffix."
        )
    if not lists.pool:
        raise UserError(
            f"all {len(lists.validation)} cases with a label are kept for validation; nnU-Net "
            "plans and learns from labeled cases, so name fewer by --validation."
        )
    lists = replace(lists, sha256=_hash(lists))
    reason = "every image has a label, so nothing is left as unlabeled"
    return _budgeted(lists, request, has_extra, reason)


def _budgeted(lists: SplitLists, request: Request, has_extra: bool, reason: str) -> Split:
    """Apply the label budget.

    Raises:
        UserError: the budget cannot be met, or there is none and nothing would be unlabeled, for
            the ``reason`` given.
    """
    labeled = _as_number(request.labeled, lists)
    if labeled is None and request.labeled_list is None and not lists.unlabeled:
        number = len({lists.group_of(case) for case in lists.pool})
        if not has_extra:
            raise UserError(f"{reason}. {_how_to_have_unlabeled(number, lists)}")
        labeled = str(number)
    return apply_budget(lists, labeled, request.labeled_list)


def _how_to_have_unlabeled(number: int, lists: SplitLists) -> str:
    """Say what to do where all ``number`` cases (or patients) would keep their labels."""
    advice = "Add the unlabeled scans with --extra-unlabeled DIR"
    if number < 2:
        return f"{advice}."
    patients = " patients" if lists.groups else ""
    return f"{advice}, or hide labels with --labeled N (1 to {number - 1}{patients})."


def _seed(split: str) -> int | None:
    if split == BY_LABELS:
        return None
    if not re.fullmatch(r"seed:\d{1,9}", split):
        raise UserError(
            f"--split {split} is unknown; give labels (the cases with a label in the order of "
            "their names), seed:N (the same in random order, such as seed:42) or a FILE.json."
        )
    return int(split.removeprefix("seed:"))


def draw(lists: SplitLists, seed: int, shares: Mapping[str, float]) -> SplitLists:
    """Move random patients with labels to ``validation`` and ``test``.

    Args:
        lists: a split whose pool holds every case with a label.
        seed: of ``random.Random``.
        shares: share of the patients by subset; at least one of each goes there.
    """
    patients = list(dict.fromkeys(lists.group_of(case) for case in lists.pool))
    random.Random(seed).shuffle(patients)
    number = len(patients)
    place: dict[str, str] = {}
    for subset, share in shares.items():
        for patient in patients[: max(1, math.floor(share * number + 0.5))]:
            place[patient] = subset
        patients = patients[max(1, math.floor(share * number + 0.5)) :]
    rank = {patient: position for position, patient in enumerate(patients)}

    def taken(subset: str) -> tuple[str, ...]:
        return tuple(case for case in lists.pool if place.get(lists.group_of(case)) == subset)

    rest = [case for case in lists.pool if lists.group_of(case) in rank]
    return replace(
        lists,
        name=f"seed:{seed}",
        pool=tuple(sorted(rest, key=lambda case: rank[lists.group_of(case)])),
        validation=lists.validation + taken("validation"),
        test=lists.test + taken("test"),
    )


def _by_labels(
    training: Mapping[str, bool], test: Sequence[str], groups: Mapping[str, str], seed: int | None
) -> SplitLists:
    """Let cases with a label keep it, in the order of names or shuffled patient by patient."""
    pool = [case for case, has_label in training.items() if has_label]
    if seed is not None:
        patients = list(dict.fromkeys(groups.get(case, case) for case in pool))
        random.Random(seed).shuffle(patients)
        rank = {patient: number for number, patient in enumerate(patients)}
        pool.sort(key=lambda case: rank[groups.get(case, case)])
    return SplitLists(
        name=BY_LABELS if seed is None else f"seed:{seed}",
        sha256="",
        pool=tuple(pool),
        unlabeled=tuple(case for case, has_label in training.items() if not has_label),
        validation=(),
        test=tuple(test),
        groups=groups,
    )


def _with_validation(lists: SplitLists, wanted: str) -> SplitLists:
    """Move cases to validation: those listed in a file, or the last of the order."""
    pool = lists.pool
    if re.fullmatch(r"\d+", wanted):
        outside = {lists.group_of(case) for case in lists.unlabeled}
        whole = [case for case in pool if lists.group_of(case) not in outside]
        patients = list(dict.fromkeys(lists.group_of(case) for case in whole))
        number = int(wanted)
        if not 1 <= number < len({lists.group_of(case) for case in pool}) or number > len(patients):
            raise UserError(
                f"--validation {wanted} is not possible: there are {len(patients)} {lists.unit} "
                "with labels only, and at least one with labels must be left for training."
            )
        chosen = set(patients[-number:])
        validation = tuple(case for case in whole if lists.group_of(case) in chosen)
    else:
        names = read_case_names(Path(wanted), "--validation")
        validation = tuple(case for case in pool if {case, lists.group_of(case)} & set(names))
        known = {name for case in validation for name in (case, lists.group_of(case))}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UserError(
                f"--validation {wanted} names what is no training case with a label: "
                f"{', '.join(unknown)}"
            )
    rest = tuple(case for case in pool if case not in validation)
    return replace(lists, pool=rest, validation=validation)


def _check_patients(lists: SplitLists) -> None:
    """Refuse a patient in two of training, validation and test.

    Raises:
        UserError: naming every such patient.
    """
    places: dict[str, list[str]] = {}
    for subset, cases in (
        ("training", lists.pool + lists.unlabeled),
        ("validation", lists.validation),
        ("test", lists.test),
    ):
        for patient in dict.fromkeys(lists.group_of(case) for case in cases):
            places.setdefault(patient, []).append(subset)
    faults = [
        f"  - {patient} is in {' and '.join(subsets)}"
        for patient, subsets in places.items()
        if len(subsets) > 1
    ]
    if faults:
        raise UserError(
            "all cases of a patient belong to one of training, validation and test:\n"
            + "\n".join(faults)
        )


def _as_number(labeled: str | None, lists: SplitLists) -> str | None:
    """Return ``--labeled`` as a number; a fraction is one of all training cases (or patients)."""
    if labeled is None or not re.fullmatch(r"0?\.\d+", labeled):
        return labeled
    training = {lists.group_of(case) for case in lists.pool + lists.unlabeled}
    available = len({lists.group_of(case) for case in lists.pool})
    number = max(1, math.floor(float(labeled) * len(training) + 0.5))
    if number > available:
        raise UserError(
            f"--labeled {labeled} of {len(training)} {lists.unit} is {number}, but only "
            f"{available} have labels and are not kept for validation."
        )
    return str(number)


def _hash(lists: SplitLists) -> str:
    content = json.dumps([lists.pool, lists.unlabeled, lists.validation, lists.test])
    return hashlib.sha256(content.encode()).hexdigest()
