"""Compare evaluations of the same cases in pairs: differences, intervals, counts of cases."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap, wilcoxon

from nnunet_semisup.dataset_conversion.reading.scans import source_sha256
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.names import CLDICE, HIGHER_IS_BETTER, REPORT_NAME, with_unit
from nnunet_semisup.evaluation.report import FORMAT_VERSION
from nnunet_semisup.evaluation.tables import fixed, format_table

REMEMBERED = 4096
"""Results kept for a report that is written again: of 13 cases or fewer with ties SciPy (1.17)
calls Python for every one of their sign changes, which takes half a second a p value."""
MAX_VALUES = 10_000_000
"""Values that the bootstrap holds at a time."""
MEAN_OF_CLASSES = "mean over classes, by case"
NOTES = (
    "difference: mean over the cases of this line minus the first evaluation; interval: 95 %, "
    "bootstrap (BCa) over cases, - where it is undefined.",
    "better, worse: cases in which this line beats the first evaluation or is beaten, including "
    "those without the class in the reference, where only one of the two invents it.",
    "p: Wilcoxon's signed-rank test, two-sided, not corrected for the number of lines.",
    "All of it describes these trained networks on these cases. Another training of the same "
    "method (seed, fold) differs too: compare several before calling a method better.",
)
NOTE_ON_MEANS = (
    f"{MEAN_OF_CLASSES}: over the classes that have a value in both evaluations of a case."
)


@dataclass(frozen=True)
class SavedEvaluation:
    """Hold what a comparison needs of one JSON file of ``nnUNetv2_semisup_evaluate``.

    Attributes:
        cases: per case and class the file's values and counts, in the order of the cases' names;
            undefined metrics are ``None``.
        grids: per case, size in voxels, spacing and number of ignored voxels.
    """

    path: Path
    name: str
    unit: str
    classes: dict[str, list[int]]
    cases: dict[str, dict[str, dict[str, Any]]]
    grids: dict[str, tuple[list[int], list[float], int]]


@dataclass(frozen=True)
class PairedDifference:
    """Hold one metric of one class in two evaluations; NaN where there are too few cases.

    Attributes:
        count: cases that have a value in both.
        first, other: means over these cases.
        difference: ``other - first``; ``low`` and ``high`` bound its 95 % interval.
        better, worse: cases in which ``other`` is better or worse, whatever the metric's sign.
        p_value: of Wilcoxon's signed-rank test, two-sided.
    """

    count: int
    first: float
    other: float
    difference: float
    low: float
    high: float
    better: int
    worse: int
    p_value: float


def load_evaluations(paths: Sequence[Path]) -> list[SavedEvaluation]:
    """Read evaluations and check that they are of the same cases, classes and references.

    Args:
        paths: JSON files, or folders of predictions with ``semisup_evaluation.json`` in them.

    Raises:
        UserError: fewer than two, unreadable files, or evaluations that cannot be compared.
    """
    if len(paths) < 2:
        raise UserError(f"a comparison takes two or more evaluations, {len(paths)} given")
    files = [path / REPORT_NAME if path.is_dir() else path for path in paths]
    if len({file.resolve() for file in files}) < len(files):
        listed = ", ".join(f"'{file}'" for file in files)
        raise UserError(f"the same evaluation is given twice: {listed}. Leave one out.")
    evaluations = [
        read_evaluation(file, name) for file, name in zip(files, short_names(files), strict=True)
    ]
    for other in evaluations[1:]:
        check_comparable(evaluations[0], other)
    return evaluations


def read_evaluation(file: Path, name: str) -> SavedEvaluation:
    """Read an evaluation under a name of its own.

    Raises:
        UserError: unreadable, of another version, or its predictions have been replaced since.
    """
    content = _read(file)
    _refuse_replaced(file, content)
    cases = content["cases"]
    return SavedEvaluation(
        file,
        name,
        content["distance_unit"],
        content["classes"],
        {case: cases[case]["classes"] for case in sorted(cases)},
        {case: (c["shape"], c["spacing"], c.get("ignored_voxels", 0)) for case, c in cases.items()},
    )


def short_names(files: Sequence[Path]) -> list[str]:
    """Return the parts of paths by which they differ, joined with a slash."""
    parts = [file.resolve().parts for file in files]
    start = 0
    while all(start < len(p) - 1 and p[start] == parts[0][start] for p in parts):
        start += 1
    end = 0
    while all(end < len(p) - start - 1 and p[-1 - end] == parts[0][-1 - end] for p in parts):
        end += 1
    return ["/".join(p[start : len(p) - end]) for p in parts]


def paired_difference(
    first: Sequence[float], other: Sequence[float], higher_is_better: bool
) -> PairedDifference:
    """Compare two sequences of the same cases in the same order; NaN is an undefined value.

    A case with a value in only one of them is one without the class in the reference, which the
    other rightly leaves empty: it counts as better or worse, and in nothing else.

    Raises:
        ValueError: the sequences differ in length.
    """
    a, b = np.asarray(first, np.float64), np.asarray(other, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} and {len(b)} values cannot be paired")
    both = ~np.isnan(a) & ~np.isnan(b)
    differences = (b - a)[both]
    gains = differences if higher_is_better else -differences
    paired = tuple(differences.tolist())
    low, high = mean_interval(paired)
    return PairedDifference(
        count=int(both.sum()),
        first=float(a[both].mean()) if both.any() else math.nan,
        other=float(b[both].mean()) if both.any() else math.nan,
        difference=float(differences.mean()) if both.any() else math.nan,
        low=low,
        high=high,
        better=int((gains > 0).sum() + (np.isnan(b) & ~np.isnan(a)).sum()),
        worse=int((gains < 0).sum() + (np.isnan(a) & ~np.isnan(b)).sum()),
        p_value=_p_value(paired),
    )


def compare(
    evaluations: Sequence[SavedEvaluation], metrics: Sequence[str]
) -> list[tuple[str, str, str, PairedDifference]]:
    """Compare each evaluation with the first: metric, class, name and difference of each line.

    With several classes, a last group compares, case by case, the mean over the classes that have
    a value in both.

    Raises:
        UserError: an evaluation has no such metric, as it was not asked for clDice.
    """
    for metric in metrics:
        _refuse_without(metric, evaluations)
    first, *others = evaluations
    groups = [(name, [name]) for name in first.classes]
    if len(groups) > 1:
        groups.append((MEAN_OF_CLASSES, list(first.classes)))
    return [
        (
            metric,
            title,
            other.name,
            paired_difference(*_values(first, other, names, metric), HIGHER_IS_BETTER[metric]),
        )
        for metric in metrics
        for title, names in groups
        for other in others
    ]


def _refuse_without(metric: str, evaluations: Sequence[SavedEvaluation]) -> None:
    lacking = [
        str(evaluation.path)
        for evaluation in evaluations
        for classes in evaluation.cases.values()
        if any(metric not in values for values in classes.values())
    ]
    if lacking:
        option = " with --cldice" if metric == CLDICE else ""
        raise UserError(
            f"no {metric} in {', '.join(dict.fromkeys(lacking))}. Evaluate these predictions again "
            f"by nnUNetv2_semisup_evaluate{option}."
        )


def format_comparison(
    evaluations: Sequence[SavedEvaluation], metrics: Sequence[str], markdown: bool = False
) -> str:
    """Return the table and how to read it."""
    lines = compare(evaluations, metrics)
    unit = evaluations[0].unit
    header = ["metric", "class", "evaluation", "cases", "first", "this", "difference"]
    header += ["interval", "better", "worse", "p"]
    rows: list[list[object]] = []
    for metric, class_name, name, d in lines:
        interval = None if math.isnan(d.low) else f"{fixed(d.low, '+')} to {fixed(d.high, '+')}"
        change = None if math.isnan(d.difference) else fixed(d.difference, "+")
        rows.append(
            [with_unit(metric, unit), class_name, name, d.count, d.first, d.other, change, interval]
            + [d.better, d.worse, None if math.isnan(d.p_value) else _short(d.p_value)]
        )
    first = f"first: {evaluations[0].name} ({evaluations[0].path})"
    notes = [*NOTES, NOTE_ON_MEANS] if len(evaluations[0].classes) > 1 else NOTES
    return "\n".join([format_table(header, rows, markdown), "", first, *notes])


def _read(file: Path) -> dict[str, Any]:
    advice = "Write it with nnUNetv2_semisup_evaluate GT PRED."
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"'{file}' cannot be read ({error.strerror}). {advice}") from error
    except ValueError as error:
        raise UserError(f"'{file}' is not a JSON file ({error}). {advice}") from error
    needed = ("format_version", "distance_unit", "classes", "cases")
    if not isinstance(content, dict) or any(key not in content for key in needed):
        raise UserError(f"'{file}' is not the file of an evaluation. {advice}")
    if content["format_version"] != FORMAT_VERSION:
        raise UserError(
            f"'{file}' has format version {content['format_version']}, this release reads "
            f"{FORMAT_VERSION}. {advice}"
        )
    return content


def _refuse_replaced(file: Path, content: dict[str, Any]) -> None:
    """Refuse an evaluation whose predictions, where they are still there, have been replaced."""
    folders = [Path(content.get("prediction_folder", ""))]
    if file.name == REPORT_NAME:  # A folder that was moved or copied has its own predictions.
        folders.insert(0, file.parent)
    replaced = []
    for case, values in content["cases"].items():
        paths = [folder / values.get("prediction_file", "") for folder in folders]
        path = next((path for path in paths if path.is_file()), None)
        if path and source_sha256(path) != values["prediction_sha256"]:
            replaced.append(case)
    if replaced:
        raise UserError(
            f"'{file}' is not of the predictions that are there now; replaced since: "
            f"{', '.join(sorted(replaced))}. Evaluate them again with nnUNetv2_semisup_evaluate."
        )


def check_comparable(first: SavedEvaluation, other: SavedEvaluation) -> None:
    """Check that two evaluations are of the same cases, classes, unit and references.

    Raises:
        UserError: they are not.
    """
    pair = f"'{first.path}' and '{other.path}'"
    if (first.classes, first.unit) != (other.classes, other.unit):
        raise UserError(
            f"{pair} have other classes or another unit: {first.classes} in {first.unit}, "
            f"{other.classes} in {other.unit}. Evaluate both with the same --dataset-json."
        )
    missing = sorted(set(first.cases) ^ set(other.cases))
    if missing:
        raise UserError(
            f"{pair} are not of the same cases; only one of them has: {', '.join(missing)}. "
            "Evaluate both on the same cases."
        )
    changed = [case for case in first.cases if _reference(first, case) != _reference(other, case)]
    if changed:
        raise UserError(
            f"{pair} were evaluated against different references: {', '.join(changed)}. "
            "Evaluate both against the same folder."
        )


def _reference(evaluation: SavedEvaluation, case: str) -> list[Any]:
    """Return what the file tells of a case's reference: grid, and voxels of each class."""
    classes = evaluation.cases[case]
    return [evaluation.grids[case], *(classes[n]["reference_voxels"] for n in evaluation.classes)]


def _short(p_value: float) -> str:
    return f"{p_value:.4f}" if p_value >= 1e-4 else "<0.0001"


def _values(
    first: SavedEvaluation, other: SavedEvaluation, names: Sequence[str], metric: str
) -> tuple[list[float], list[float]]:
    """Return per case a class's metric, or the mean over classes that both give a value."""
    means: tuple[list[float], list[float]] = ([], [])
    for case, classes in first.cases.items():
        pairs = np.array(
            [(classes[n][metric], other.cases[case][n][metric]) for n in names], np.float64
        )
        if len(names) > 1:
            pairs = pairs[~np.isnan(pairs).any(axis=1)]
        for target, column in zip(means, pairs.T, strict=True):
            target.append(float(column.mean()) if len(column) else math.nan)
    return means


@lru_cache(REMEMBERED)
def _p_value(differences: tuple[float, ...]) -> float:
    """Return Wilcoxon's p value; NaN where no difference differs from 0."""
    return float(wilcoxon(differences).pvalue) if any(differences) else math.nan


@lru_cache(REMEMBERED)
def mean_interval(values: tuple[float, ...]) -> tuple[float, float]:
    """Return the mean's 95 % interval, by bootstrap (BCa) over the values.

    It is NaN below two values, and of equal ones the value itself.
    """
    if len(values) < 2:
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of degenerate distributions, whose bounds are NaN
        interval = bootstrap(
            (values,),
            np.mean,
            batch=max(1, MAX_VALUES // len(values)),
            random_state=np.random.default_rng(0),
        ).confidence_interval
    return float(interval.low), float(interval.high)
