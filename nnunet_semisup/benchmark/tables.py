"""Lay out the tables of a benchmark's report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnunet_semisup.benchmark.collect import Benchmark, is_done
from nnunet_semisup.benchmark.headline import points, short_p, short_title
from nnunet_semisup.benchmark.statistics import MAIN_METRIC, Line
from nnunet_semisup.document import Table
from nnunet_semisup.evaluation.compare import PairedDifference
from nnunet_semisup.evaluation.names import TABLE_METRICS, with_unit
from nnunet_semisup.evaluation.report import Statistic, statistic

DIGITS = {"Dice": 3, "Jaccard": 3, "HD95": 2, "ASD": 2}


def results_table(lines: Sequence[Line], unit: str) -> Table:
    """Return a line a row: its metrics, and its difference to the labeled cases alone.

    Args:
        lines: of a budget.
        unit: of distances.
    """
    header = ["trainer", "Dice", "difference (points)", "95 % interval", "p", "better", "worse"]
    header += [with_unit(metric, unit) for metric in TABLE_METRICS if metric != MAIN_METRIC]
    header += ["lowest Dice", "seeds"]
    rows: list[list[object]] = []
    for line in lines:
        rows.append(
            [
                short_title(line),
                spread(line.metrics[MAIN_METRIC], DIGITS[MAIN_METRIC]),
                *_change(line, MAIN_METRIC),
                *(
                    spread(line.metrics[metric], DIGITS[metric])
                    for metric in TABLE_METRICS
                    if metric != MAIN_METRIC
                ),
                None if math.isnan(line.worst[1]) else f"{line.worst[1]:.3f}",
                len(line.seeds),
            ]
        )
    return Table(header, rows, marked=_baseline(lines))


def differences_table(lines: Sequence[Line], unit: str) -> Table:
    """Return the differences in the other metrics."""
    header = ["trainer", "metric", "difference", "95 % interval", "p", "better", "worse"]
    rows: list[list[object]] = [
        [short_title(line), with_unit(metric, unit), *_change(line, metric)]
        for metric in TABLE_METRICS
        if metric != MAIN_METRIC
        for line in lines
        if line.differences
    ]
    return Table(header, rows)


def spread(value: Statistic, digits: int) -> str | None:
    """Return a mean over seeds, with their standard deviation where there are several."""
    if math.isnan(value.mean):
        return None
    shown = f"{value.mean:.{digits}f}"
    return shown if math.isnan(value.std) else f"{shown} ± {value.std:.{digits}f}"


def _baseline(lines: Sequence[Line]) -> frozenset[int]:
    return frozenset(number for number, line in enumerate(lines) if line.row.is_baseline)


def _change(line: Line, metric: str) -> list[object]:
    if not line.differences:
        return [None] * 5
    change = line.differences[metric]
    p_value = line.corrected[metric]
    return [
        _signed(change.difference, metric),
        _interval(change, metric),
        None if math.isnan(p_value) else short_p(p_value),
        change.better,
        change.worse,
    ]


def _interval(change: PairedDifference, metric: str) -> str | None:
    if math.isnan(change.low) or math.isnan(change.high):
        return None
    return f"{_signed(change.low, metric)} to {_signed(change.high, metric)}"


def _signed(value: float, metric: str) -> str | None:
    if math.isnan(value):
        return None
    return points(value) if metric == MAIN_METRIC else f"{value:+.{DIGITS[metric]}f}"


def cost_table(benchmark: Benchmark, budget: int) -> Table:
    """Return what a row's training cost: means over its seeds."""
    header = ["trainer", "steps", "s/step", "hours", "peak memory (MiB)"]
    header += ["parameters trained", "kept beside", "operations"]
    baseline = benchmark.baseline()
    plain = benchmark.design.steps_of(baseline) if baseline else benchmark.design.steps
    rows: list[list[object]] = []
    for row in benchmark.rows(budget):
        results = benchmark.of(row, budget)
        peak = max(result.record.peak_mib for result in results)
        seconds = statistic([result.seconds_per_step for result in results]).mean
        hours = statistic([result.record.seconds for result in results]).mean / 3600
        trained, kept = results[0].method.parameters
        rows.append(
            [
                row.title.removeprefix("nnUNetTrainer"),
                results[0].steps,
                None if math.isnan(seconds) else f"{seconds:.3g}",
                f"{hours:.2f}" if hours else None,
                f"{peak:.0f}" if peak else None,
                trained,
                kept,
                f"{results[0].operations / plain:.1f}",
            ]
        )
    marked = frozenset(i for i, row in enumerate(benchmark.rows(budget)) if row.is_baseline)
    return Table(header, rows, marked=marked)


def unfinished_table(benchmark: Benchmark) -> Table:
    """Return the runs that have failed or are going on."""
    rows: list[list[object]] = [
        [run.title.removeprefix("nnUNetTrainer"), record.status, record.attempts, record.fault]
        for run, record in benchmark.missing.items()
        if record.status != "waiting"
    ]
    return Table(["run", "state", "started", "fault"], rows)


def progress_line(benchmark: Benchmark) -> str:
    """Return how many runs have finished, failed, are going on and wait."""
    states = [record.status for record in benchmark.records.values()]
    done = sum(is_done(record) for record in benchmark.records.values())
    rest = [
        f"{states.count(status)} {word}"
        for status, word in (("failed", "failed"), ("running", "running"), ("waiting", "waiting"))
        if status in states
    ]
    return f"{done} of {len(states)} runs have finished" + (
        f"; {', '.join(rest)}." if rest else "."
    )
