"""Name metrics and files, in a module that a command's help can import at no cost."""

from __future__ import annotations

REPORT_NAME = "semisup_evaluation.json"
"""File that an evaluation leaves beside the predictions."""

VALIDATION_FOLDER = "validation"
"""Folder of the predictions of a fold's validation cases, which nnU-Net puts into the fold's."""

HIGHER_IS_BETTER = {
    "Dice": True,
    "Jaccard": True,
    "HD95": False,
    "ASD": False,
    "ASD_directed": False,
    "clDice": True,
}
CLDICE = "clDice"
"""The one metric that is computed on request."""
METRICS = tuple(name for name in HIGHER_IS_BETTER if name != CLDICE)
TABLE_METRICS = ("Dice", "Jaccard", "HD95", "ASD")


def with_unit(metric: str, unit: str) -> str:
    """Return the metric's title in a table or figure; distances carry their unit."""
    return metric if HIGHER_IS_BETTER[metric] else f"{metric} ({unit})"
