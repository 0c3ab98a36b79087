"""Tell a person about unlabeled scans that are unlike the labeled ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_semisup.dataset_conversion.checking.coverage import (
    EXTENT,
    INTENSITIES,
    SPACING,
    Coverage,
    Trait,
)
from nnunet_semisup.dataset_conversion.checking.intensities import SHOWN_LEVELS

_REASONS = {
    SPACING: "Check their headers",
    EXTENT: "They may show another part of the body, or be cropped in another way",
    INTENSITIES: "They may be of another scanner, sequence or phase, or have another scale: "
    "look at them",
}
_FEW = "Leave those out that are of another kind, or label some of them"
_MANY = "They are most of the unlabeled scans: label some of them"
_COMMON = 0.5
"""Share of the unlabeled scans above which it is the labeled ones that are few."""
_DETAILED, _NAMED = 10, 100
"""Scans that a line tells the values of, and scans that it names."""


def coverage_warnings(coverage: Coverage) -> list[str]:
    """Return at most one line for each kind of difference, whatever the number of scans.

    Axes that point elsewhere are told of all scans by
    :func:`~nnunet_semisup.preparation.orientation.turned_warning`.
    """
    lines = [_outside(coverage, kind, reason) for kind, reason in _REASONS.items()]
    return [line for line in (*lines, _exchanged(coverage)) if line]


def _outside(coverage: Coverage, kind: str, reason: str) -> str:
    """Return a line about the scans that are outside in one kind of property; empty without any."""
    found: dict[int, list[str]] = {}
    ranges = []
    for trait in (trait for trait in coverage.traits if trait.kind == kind):
        outside = coverage.outside(trait)
        if outside and kind != INTENSITIES:
            ranges.append(f"{trait.name} {_range(trait)} {trait.unit}")
        for number in outside:
            found.setdefault(number, []).append(_value(trait, number))
    if not found:
        return ""
    names = [coverage.unlabeled[number] for number in found]
    details = [f"{n} ({', '.join(t)})" for n, t in zip(names, found.values(), strict=True)]
    total = len(coverage.unlabeled)
    labeled = f" (labeled: {', '.join(ranges)})" if ranges else ""
    return (
        f"{len(found)} of {total} unlabeled scans {'lies' if len(found) == 1 else 'lie'} outside "
        f"of the labeled ones in {kind}{labeled}: {_listed(details, names)}. {reason}. "
        f"{_MANY if len(found) > _COMMON * total else _FEW}"
    )


def _value(trait: Trait, number: int) -> str:
    """Return what a scan has; of intensities, what the labeled ones have, too."""
    at = trait.farthest(number)
    value = _digits(trait, trait.unlabeled[number], at)
    if trait.kind != INTENSITIES:
        return f"{trait.name} {value} {trait.unit}"
    unit = f" {trait.unit}" if trait.unit else ""
    return (
        f"channel {trait.name}: {SHOWN_LEVELS[at]:.0%} of the voxels below {value}{unit}, "
        f"labeled {_range(trait, at)}"
    )


def _range(trait: Trait, at: int = 0) -> str:
    """Return the range of the labeled scans in one of a trait's numbers."""
    low, high = (_digits(trait, end, at) for end in (trait.low, trait.high))
    return low if low == high else f"{low} to {high}"


def _digits(trait: Trait, row: np.ndarray, at: int) -> str:
    """Return three digits of a number as a person reads it, and all of those before its point."""
    value = float(trait.shown(row)[at])
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _listed(details: Sequence[str], names: Sequence[str]) -> str:
    """Return the first scans with their details, more by name, and the number of all others."""
    shown = [*details[:_DETAILED], *names[_DETAILED:_NAMED]]
    more = len(names) - _NAMED
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _exchanged(coverage: Coverage) -> str:
    """Return a line about scans whose channels look exchanged; empty without any."""
    if not coverage.exchanged:
        return ""
    groups: dict[tuple[int, ...], list[str]] = {}
    for case, order in coverage.exchanged.items():
        groups.setdefault(order, []).append(case)
    texts = []
    for order, cases in groups.items():
        moved = [f"{own} like {other}" for own, other in enumerate(order) if own != other]
        texts.append(f"channel {', '.join(moved)}: {_listed(cases, cases)}")
    return (
        f"the channels of {len(coverage.exchanged)} of {len(coverage.unlabeled)} unlabeled scans "
        f"look like other channels of the labeled ones ({'; '.join(texts)}). Look at them; if they "
        "are exchanged, rename the files, or write the channels of a file in the order of "
        "dataset.json"
    )
