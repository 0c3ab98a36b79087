"""Compare the rows of a budget: means and spread over seeds, and pairs of cases."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_semisup.benchmark.collect import Benchmark, Result, value_of
from nnunet_semisup.benchmark.design import Row
from nnunet_semisup.evaluation.compare import (
    MEAN_OF_CLASSES,
    PairedDifference,
    SavedEvaluation,
    compare,
)
from nnunet_semisup.evaluation.names import TABLE_METRICS
from nnunet_semisup.evaluation.report import Statistic, statistic

MAIN_METRIC = "Dice"
SIGNIFICANT = 0.05


@dataclass(frozen=True, eq=False)
class Line:
    """Hold one row's results of a budget in one class, or in their mean.

    Attributes:
        row: the row.
        group: name of the class, or :data:`MEAN_OF_CLASSES`.
        seeds: of the finished runs.
        metrics: mean over the seeds of the mean over the cases, with the spread over the seeds.
        worst: the case of the lowest Dice, and this Dice; means over the seeds.
        differences: to the baseline, per metric, of the cases' means over the seeds that both
            have; empty for the baseline and without it.
        corrected: p values of ``differences``, corrected over the rows of the budget.
    """

    row: Row
    group: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Statistic]
    worst: tuple[str, float]
    differences: Mapping[str, PairedDifference] = dataclasses.field(default_factory=dict)
    corrected: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def dice(self) -> float:
        """Mean Dice."""
        return self.metrics[MAIN_METRIC].mean


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's step-down rule; NaN stays out.

    Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    corrected, largest = [math.nan] * len(p_values), 0.0
    tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        corrected[i] = largest
    return corrected


def groups(benchmark: Benchmark) -> dict[str, tuple[str, ...]]:
    """Return what lines are of: the mean of all classes first where there are several."""
    classes = benchmark.classes
    single: dict[str, tuple[str, ...]] = {name: (name,) for name in classes}
    return {MEAN_OF_CLASSES: classes, **single} if len(classes) > 1 else single


def compare_rows(benchmark: Benchmark, budget: int) -> dict[str, list[Line]]:
    """Return a budget's lines by group: the baseline first, then by falling Dice."""
    rows = benchmark.rows(budget)
    differences = {row: _differences(benchmark, row, budget) for row in rows}
    compared = {}
    for group, names in groups(benchmark).items():
        found = [
            _line(benchmark.of(row, budget), group, names, differences[row].get(group, {}))
            for row in rows
        ]
        compared[group] = sorted(_corrected(found), key=_rank)
    return compared


def _rank(line: Line) -> tuple[bool, float]:
    return not line.row.is_baseline, math.inf if math.isnan(line.dice) else -line.dice


def _corrected(found: Sequence[Line]) -> list[Line]:
    """Fill in the p values corrected for the number of rows, metric by metric."""
    corrected: list[dict[str, float]] = [{} for _ in found]
    for metric in TABLE_METRICS:
        p_values = [
            line.differences[metric].p_value if line.differences else math.nan for line in found
        ]
        for values, p in zip(corrected, holm(p_values), strict=True):
            values[metric] = p
    return [
        dataclasses.replace(line, corrected=values)
        for line, values in zip(found, corrected, strict=True)
    ]


def _line(
    results: Sequence[Result],
    group: str,
    names: Sequence[str],
    differences: Mapping[str, PairedDifference],
) -> Line:
    metrics = {
        metric: statistic(
            [statistic(list(case_values([r], names, metric).values())).mean for r in results]
        )
        for metric in TABLE_METRICS
    }
    dice = case_values(results, names, MAIN_METRIC)
    worst = min(dice, key=lambda case: (math.isnan(dice[case]), dice[case]))
    return Line(
        results[0].run.row,
        group,
        tuple(result.run.seed for result in results),
        metrics,
        (worst, dice[worst]),
        differences,
    )


def _differences(
    benchmark: Benchmark, row: Row, budget: int
) -> dict[str, dict[str, PairedDifference]]:
    """Return the differences to the baseline by group and metric, over the seeds of both."""
    baseline = benchmark.baseline()
    if baseline is None or row == baseline:
        return {}
    first = {result.run.seed: result for result in benchmark.of(baseline, budget)}
    other = {result.run.seed: result for result in benchmark.of(row, budget)}
    seeds = [seed for seed in other if seed in first]
    if not seeds:
        return {}
    pair = [averaged([results[seed] for seed in seeds]) for results in (first, other)]
    found: dict[str, dict[str, PairedDifference]] = {}
    for metric, group, _, difference in compare(pair, TABLE_METRICS):
        found.setdefault(group, {})[metric] = difference
    return found


def averaged(results: Sequence[Result]) -> SavedEvaluation:
    """Return one evaluation whose metrics are, case by case and class by class, means over seeds.

    Undefined values are left out of a mean.
    """
    first = results[0].evaluation
    cases = {
        case: {
            name: {
                metric: _mean([value_of(r.evaluation, case, name, metric) for r in results])
                for metric in TABLE_METRICS
            }
            for name in first.classes
        }
        for case in first.cases
    }
    return dataclasses.replace(first, cases=cases)


def case_values(results: Sequence[Result], names: Sequence[str], metric: str) -> dict[str, float]:
    """Return a metric of each case: mean over the seeds of the mean over the classes.

    NaN where it is undefined in all of them.
    """
    return {
        case: _mean(
            [
                _mean([value_of(result.evaluation, case, name, metric) for name in names])
                for result in results
            ]
        )
        for case in results[0].evaluation.cases
    }


def _mean(values: Sequence[float]) -> float:
    array = np.asarray(values, np.float64)
    defined = array[~np.isnan(array)]
    return float(defined.mean()) if len(defined) else math.nan


def least_p(cases: int) -> float:
    """Return the least p that Wilcoxon's signed-rank test, two-sided, can give for some cases."""
    return min(1.0, 2.0 ** (1 - cases))


def too_few(cases: int) -> str | None:
    """Return a sentence where so few evaluation cases can show nothing, else ``None``."""
    least = least_p(cases)
    if least < SIGNIFICANT:
        return None
    return (
        f"With {cases} evaluation cases no difference can be told from chance, however large: p is "
        f"at least {least:.3g}. It takes six or more."
    )
