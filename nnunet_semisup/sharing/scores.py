"""Metrics of a shared model with their intervals, from evaluations that were recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.compare import SavedEvaluation, mean_interval, read_evaluation
from nnunet_semisup.evaluation.names import REPORT_NAME, TABLE_METRICS, VALIDATION_FOLDER
from nnunet_semisup.sharing.model import TrainedModel
from nnunet_semisup.sharing.page import FINAL

SUMMARY = "summary.json"
"""nnU-Net's scores of a fold's validation."""

Values = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Scores:
    """Hold the values of one evaluation, without the names of its cases where it is shared.

    Attributes:
        title: what was evaluated.
        unit: of distances.
        cases: names, which tell whether evaluations have cases in common.
        values: per class and metric, of each case; NaN is undefined.
    """

    title: str
    unit: str
    cases: tuple[str, ...]
    values: Values

    def record(self) -> dict[str, Any]:
        """Return what the card has: means, intervals and numbers of cases."""
        return {
            "evaluated": self.title,
            "cases": len(self.cases),
            "distance_unit": self.unit,
            "classes": {
                name: {metric: _statistic(values) for metric, values in metrics.items()}
                for name, metrics in self.values.items()
            },
        }


def _statistic(values: Sequence[float]) -> dict[str, Any]:
    defined = tuple(float(value) for value in values if not math.isnan(value))
    low, high = mean_interval(defined)
    return {
        "mean": float(np.mean(defined)) if defined else None,
        "interval": None if math.isnan(low) else [low, high],
        "cases": len(defined),
    }


def validation_scores(model: TrainedModel) -> tuple[list[Scores], list[str]]:
    """Return the scores of the folds' validation cases, and what is to be said about them.

    Evaluations of this package come before nnU-Net's ``summary.json``, which has no distances.
    Folds without a case in common are one cross-validation.

    Raises:
        UserError: an evaluation is damaged, or its predictions were replaced since.
    """
    if model.checkpoint != FINAL:
        return [], [
            f"nnU-Net validates the final weights, not {model.checkpoint}: evaluate its "
            "predictions, and give that by --evaluation"
        ]
    found: list[Scores] = []
    notes = []
    for fold in model.folds:
        if fold == "all":
            notes.append("fold all has no validation: it was trained on every case")
            continue
        scores = _fold_scores(model, fold)
        if scores is None:
            notes.append(f"the validation of fold {fold} was not found")
        else:
            found.append(scores)
    names = [case for scores in found for case in scores.cases]
    alike = len({(s.unit, *s.values, *map(tuple, s.values.values())) for s in found}) == 1
    if len(found) > 1 and alike and len(set(names)) == len(names):
        return [_joined(found)], notes
    return found, notes


def _joined(scores: Sequence[Scores]) -> Scores:
    first = scores[0]
    values = {
        name: {metric: [v for s in scores for v in s.values[name][metric]] for metric in metrics}
        for name, metrics in first.values.items()
    }
    cases = tuple(case for one in scores for case in one.cases)
    return Scores(f"cross-validation of {len(scores)} folds", first.unit, cases, values)


def _fold_scores(model: TrainedModel, fold: int | str) -> Scores | None:
    folder = model.fold_folder(fold) / VALIDATION_FOLDER
    title = f"validation of fold {fold}"
    if (folder / REPORT_NAME).is_file():
        return of_evaluation(read_evaluation(folder / REPORT_NAME, title))
    if (folder / SUMMARY).is_file():
        return _of_summary(folder / SUMMARY, title, model)
    return None


def of_evaluation(saved: SavedEvaluation) -> Scores:
    """Return the scores of an evaluation of this package."""
    values: Values = {
        name: {
            metric: [_number(classes[name].get(metric)) for classes in saved.cases.values()]
            for metric in TABLE_METRICS
        }
        for name in saved.classes
    }
    return Scores(saved.name, saved.unit, tuple(saved.cases), values)


def _of_summary(file: Path, title: str, model: TrainedModel) -> Scores:
    """Return the Dice that nnU-Net computed; its keys are labels, or tuples of them."""
    manager = model.plan.plans_manager.get_label_manager(model.dataset)
    regions = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    by_key = {str(region): region for region in regions}
    names = {_key(value): name for name, value in model.dataset["labels"].items()}
    try:
        cases = json.loads(file.read_text(encoding="utf-8"))["metric_per_case"]
        values: Values = {
            names.get(_key(region), key): {
                "Dice": [_number(case["metrics"][key]["Dice"]) for case in cases]
            }
            for key, region in by_key.items()
        }
        found = tuple(Path(case["reference_file"]).name for case in cases)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"'{file}' is no summary of nnU-Net for the labels of dataset.json ({error!r}). "
            "Validate again by nnUNetv2_train ... --val, or remove it"
        ) from error
    return Scores(title, "mm", found, values)


def _key(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (int(value),)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
