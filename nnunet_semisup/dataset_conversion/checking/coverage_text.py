"""What a person is told about unlabeled scans that are unlike the labeled ones."""

from __future__ import annotations

from nnunet_semisup.dataset_conversion.checking.coverage import (
    EXTENT,
    INTENSITIES,
    SPACING,
    Coverage,
    Trait,
)
from nnunet_semisup.dataset_conversion.checking.intensities import SHOWN_LEVELS
from nnunet_semisup.preparation.raw import named

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
    traits = [trait for trait in coverage.traits if trait.kind == kind]
    for trait in traits:
        for number in coverage.outside(trait):
            found.setdefault(number, []).append(_value(trait, number))
    if not found:
        return ""
    details = [f"{coverage.unlabeled[n]} ({'; '.join(texts)})" for n, texts in found.items()]
    return (
        f"{_of_all(coverage, len(found))} outside of the labeled ones in {kind}: "
        f"{named(details)}. {reason}. {_advice(coverage, len(found))}"
    )


def _value(trait: Trait, number: int) -> str:
    """Return what a scan has and what the labeled ones have."""
    at = trait.farthest(number)
    value, low, high = (
        _digits(float(trait.shown(row)[at]))
        for row in (trait.unlabeled[number], trait.low, trait.high)
    )
    labeled = low if low == high else f"{low} to {high}"
    if trait.kind != INTENSITIES:
        return f"{trait.name} {value} {trait.unit}, labeled {labeled}"
    share = f"{SHOWN_LEVELS[at]:.0%} of the voxels below {value}"
    unit = f" {trait.unit}" if trait.unit else ""
    return f"channel {trait.name}: {share}{unit}, labeled {labeled}"


def _digits(value: float) -> str:
    """Return three digits of a number, and all of those before its point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _exchanged(coverage: Coverage) -> str:
    """Return a line about scans whose channels look exchanged; empty without any."""
    if not coverage.exchanged:
        return ""
    details = []
    for case, order in coverage.exchanged.items():
        moved = [f"{own} like {other}" for own, other in enumerate(order) if own != other]
        details.append(f"{case} (channel {', '.join(moved)})")
    return (
        f"the channels of {len(details)} of {len(coverage.unlabeled)} unlabeled scans look like "
        f"other channels of the labeled ones: {named(details)}. Look at them; if they are "
        "exchanged, rename the files, or write the channels of a file in the order of dataset.json"
    )


def _of_all(coverage: Coverage, number: int) -> str:
    verb = "lies" if number == 1 else "lie"
    return f"{number} of {len(coverage.unlabeled)} unlabeled scans {verb}"


def _advice(coverage: Coverage, number: int) -> str:
    return _MANY if number > _COMMON * len(coverage.unlabeled) else _FEW
