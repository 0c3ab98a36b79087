"""Checks over all cases together."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_semisup.dataset_conversion.verify import CaseFacts


def check_cases(
    facts: Sequence[CaseFacts],
    drop_duplicates: bool,
    faults: list[str],
    warnings: list[str],
) -> list[str]:
    """Add all cases' faults and warnings; returns the cases to leave out."""
    for found in facts:
        faults += [f"case {found.case.id}: {text}" for text in found.faults]
        warnings += [f"case {found.case.id}: {text}" for text in found.warnings]
    return []
