"""Report an evaluation: means over cases and classes, the JSON file and the printed table."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_semisup import __version__
from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.evaluation.evaluate import CaseResult, Evaluation
from nnunet_semisup.evaluation.names import CLDICE, TABLE_METRICS, with_unit
from nnunet_semisup.evaluation.tables import fixed, format_table

FORMAT_VERSION = 1
STATUSES = ("both_present", "prediction_empty", "reference_empty", "both_empty")
DEFINITIONS = {
    "Dice": "2 |P and R| / (|P| + |R|)",
    "Jaccard": "|P and R| / |P or R|",
    "HD95": "95th percentile of the surface distances of both directions pooled",
    "ASD": "mean of the surface distances of both directions pooled",
    "ASD_directed": "mean distance from the prediction's surface to the reference's",
    "clDice": "harmonic mean of the share of P's skeleton in R and of R's in P; on request",
    "std": "sample standard deviation (n - 1), null for fewer than two values",
    "empty_masks": "both empty: null, left out of the means; one empty: Dice, Jaccard, clDice 0, "
    "distances the diagonal of the image",
}


@dataclass(frozen=True)
class Statistic:
    """Hold mean and sample standard deviation of ``count`` values; NaN where there are too few."""

    mean: float
    std: float
    count: int


def statistic(values: Sequence[float]) -> Statistic:
    """Return mean and sample standard deviation of the values that are not NaN."""
    defined = [value for value in values if not math.isnan(value)]
    return Statistic(
        float(np.mean(defined)) if defined else math.nan,
        float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan,
        len(defined),
    )


def worst_case(cases: Sequence[CaseResult], class_name: str) -> CaseResult | None:
    """Return the case of a class's lowest Dice, of equal ones that with the highest HD95."""
    defined = [c for c in cases if c.classes[class_name].status != "both_empty"]
    return min(
        defined,
        key=lambda c: (c.classes[class_name].values["Dice"], -c.classes[class_name].values["HD95"]),
        default=None,
    )


def mean_dice(case: CaseResult) -> float:
    """Return the mean Dice over the classes that are defined in the case, NaN if there is none."""
    return statistic([m.values["Dice"] for m in case.classes.values()]).mean


def distance_unit(evaluation: Evaluation) -> str:
    """Return the unit of distances: ``mm``; ``pixel`` for natural images, which have no spacing."""
    return "pixel" if evaluation.inputs.reader.__name__ == "NaturalImage2DIO" else "mm"


def report_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return the content of the JSON file (``docs/evaluation.md``); NaN becomes null."""
    scheme = evaluation.inputs.scheme
    content = {
        "format_version": FORMAT_VERSION,
        "nnunet_semisup_version": __version__,
        "reference_folder": str(evaluation.inputs.reference_folder.resolve()),
        "prediction_folder": str(evaluation.inputs.prediction_folder.resolve()),
        "dataset_json": str(scheme.source.resolve()) if scheme.source else None,
        "distance_unit": distance_unit(evaluation),
        "definitions": DEFINITIONS,
        "classes": {c.name: list(c.values) for c in evaluation.classes},
        "ignore_label": scheme.ignore_label,
        "missing_predictions": list(evaluation.inputs.missing_predictions),
        "warnings": list(evaluation.warnings),
        "summary": _summary(evaluation),
        "cases": {
            case.name: {
                "prediction_file": f"{case.name}{evaluation.inputs.file_ending}",
                **_case_dict(case),
            }
            for case in evaluation.cases
        },
    }
    return _without_nan(content)


def write_report(evaluation: Evaluation, target: Path) -> None:
    """Write the JSON file, which appears complete or not at all."""
    text = json.dumps(report_dict(evaluation), indent=2, allow_nan=False)
    with atomic_path(target) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def format_report(evaluation: Evaluation) -> str:
    """Return a table of the classes with their worst cases, the mean over classes, and notes."""
    unit = distance_unit(evaluation)
    metrics = [*TABLE_METRICS, *(m for m in evaluation.metrics if m == CLDICE)]
    titles = [with_unit(metric, unit) for metric in metrics]
    header = ["class", "cases", *titles, "missed", "invented", "in neither", "worst case (Dice)"]
    rows: list[list[object]] = []
    for c in evaluation.classes:
        counts = _status_counts(evaluation.cases, c.name)
        statistics = _class_statistics(evaluation, c.name)
        worst = worst_case(evaluation.cases, c.name)
        rows.append(
            [
                c.name,
                len(evaluation.cases) - counts["both_empty"],
                *(_mean_and_std(statistics[metric]) for metric in metrics),
                *(counts[s] for s in ("prediction_empty", "reference_empty", "both_empty")),
                f"{worst.name} ({worst.classes[c.name].values['Dice']:.4f})" if worst else None,
            ]
        )
    over = _over_classes(evaluation)
    if len(evaluation.classes) > 1:
        means = [_mean_and_std(over[metric]) for metric in metrics]
        rows.append(["mean of classes", "", *means, "", "", "", ""])
    return "\n".join([format_table(header, rows), "", *_notes(evaluation)])


def _notes(evaluation: Evaluation) -> list[str]:
    notes = [
        "Mean and standard deviation over cases; in the line 'mean of classes' over their means.",
        "missed: only the prediction is empty; invented: only the reference is. Both count as Dice "
        "0 and as a distance of the image's diagonal.",
        "in neither: cases without the class in reference and prediction, left out of its means.",
    ]
    num_classes = len(evaluation.classes)
    absent = num_classes - _over_classes(evaluation)["Dice"].count
    if absent:
        notes.append(
            f"{absent} of {num_classes} classes occur in no case and are left out of the mean of "
            "classes."
        )
    missing = evaluation.inputs.missing_predictions
    if missing:
        notes.append(f"Not evaluated, {len(missing)} without prediction: {', '.join(missing)}")
    return notes


def _summary(evaluation: Evaluation) -> dict[str, Any]:
    classes = {}
    for c in evaluation.classes:
        worst = worst_case(evaluation.cases, c.name)
        classes[c.name] = {
            **{k: vars(s) for k, s in _class_statistics(evaluation, c.name).items()},
            "case_counts": _status_counts(evaluation.cases, c.name),
            "worst_case": {"case": worst.name, **worst.classes[c.name].values} if worst else None,
        }
    over = {metric: vars(value) for metric, value in _over_classes(evaluation).items()}
    return {"num_cases": len(evaluation.cases), "classes": classes, "over_classes": over}


def _class_statistics(evaluation: Evaluation, name: str) -> dict[str, Statistic]:
    values = [case.classes[name].values for case in evaluation.cases]
    return {m: statistic([one[m] for one in values]) for m in evaluation.metrics}


def _over_classes(evaluation: Evaluation) -> dict[str, Statistic]:
    """Return statistics of the classes' means."""
    per_class = [_class_statistics(evaluation, c.name) for c in evaluation.classes]
    return {m: statistic([s[m].mean for s in per_class]) for m in evaluation.metrics}


def _status_counts(cases: Sequence[CaseResult], name: str) -> dict[str, int]:
    counts = Counter(case.classes[name].status for case in cases)
    return {status: counts[status] for status in STATUSES}


def _case_dict(case: CaseResult) -> dict[str, Any]:
    return {
        "shape": list(case.shape),
        "spacing": list(case.spacing),
        "prediction_sha256": case.prediction_sha256,
        "ignored_voxels": case.ignored_voxels,
        "mean_dice": mean_dice(case),
        "classes": {
            name: {
                **m.values,
                "status": m.status,
                "reference_voxels": m.reference_voxels,
                "prediction_voxels": m.prediction_voxels,
            }
            for name, m in case.classes.items()
        },
    }


def _mean_and_std(value: Statistic) -> str | None:
    if math.isnan(value.mean):
        return None
    return fixed(value.mean) + ("" if math.isnan(value.std) else f" ± {fixed(value.std)}")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
