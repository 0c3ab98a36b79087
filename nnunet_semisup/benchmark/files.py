"""Write a benchmark's numbers for machines: a line a run, case and class, and everything."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_semisup.benchmark.collect import Benchmark
from nnunet_semisup.benchmark.published import PublishedDataset
from nnunet_semisup.benchmark.statistics import Line
from nnunet_semisup.evaluation.names import METRICS

FORMAT_VERSION = 1
COLUMNS = ("labels", "row", "trainer", "settings", "inserts", "seed", "steps", "case", "class")
COUNTS = ("status", "reference_voxels", "prediction_voxels")


def to_csv(benchmark: Benchmark) -> str:
    """Return one line a finished run, evaluation case and class; undefined values are empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *METRICS, "unit", *COUNTS])
    for result in benchmark.results:
        run, row = result.run, result.run.row
        for case, classes in result.evaluation.cases.items():
            for name, values in classes.items():
                told = [run.budget, row.title, row.trainer, row.settings, "+".join(row.inserts)]
                told += [run.seed, result.steps, case, name]
                told += [values.get(metric) for metric in METRICS]
                told += [result.evaluation.unit, *(values.get(count) for count in COUNTS)]
                writer.writerow(told)
    return text.getvalue()


def to_json(
    benchmark: Benchmark,
    compared: Mapping[int, Mapping[str, Sequence[Line]]],
    published: PublishedDataset | None,
) -> str:
    """Return the design, every run's state and cost, and the comparison; NaN becomes null.

    Args:
        benchmark: what is there.
        compared: lines by budget and class.
        published: what papers print, if it was asked for.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "design": benchmark.design.to_json(),
        "unit": benchmark.unit,
        "leaks": benchmark.leaks,
        "runs": _runs(benchmark),
        "comparison": [
            {"labels": budget, "class": group, **_line(line)}
            for budget, found in compared.items()
            for group, lines in found.items()
            for line in lines
        ],
        "published": dataclasses.asdict(published) if published else None,
    }
    return json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n"


def _runs(benchmark: Benchmark) -> list[dict[str, Any]]:
    results = {result.run: result for result in benchmark.results}
    runs = []
    for run, record in benchmark.records.items():
        told = {"row": run.row.title, "labels": run.budget, "seed": run.seed}
        told |= dataclasses.asdict(record)
        if result := results.get(run):
            told |= {
                "steps": result.steps,
                "seconds_per_step": result.seconds_per_step,
                "operations": result.operations,
                "epochs": [dataclasses.asdict(epoch) for epoch in result.epochs],
            }
        runs.append(told)
    return runs


def _line(line: Line) -> dict[str, Any]:
    return {
        "row": line.row.title,
        "seeds": line.seeds,
        "metrics": {name: vars(value) for name, value in line.metrics.items()},
        "worst_case": {"case": line.worst[0], "Dice": line.worst[1]},
        "differences": {
            name: {**vars(change), "corrected_p_value": line.corrected[name]}
            for name, change in line.differences.items()
        },
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
