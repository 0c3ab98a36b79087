"""Read what the runs of a benchmark left, for its report."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_semisup.benchmark import leaks
from nnunet_semisup.benchmark.design import Design, Layout, Row, Run, read_design
from nnunet_semisup.benchmark.progress import effort
from nnunet_semisup.benchmark.record import Record, read_record
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.compare import (
    SavedEvaluation,
    check_comparable,
    read_evaluation,
)
from nnunet_semisup.evaluation.training_log import Epoch, read_epochs, seconds_per_step
from nnunet_semisup.method import Method
from nnunet_semisup.preparation.raw import unlabeled_in
from nnunet_semisup.registry import find_method


@dataclass(frozen=True)
class Result:
    """Hold what a finished run left.

    Attributes:
        run: the training.
        record: commands, versions, time and memory.
        evaluation: metrics of every evaluation case and class.
        epochs: what nnU-Net logged.
        steps: optimizer steps.
        seconds_per_step: median epoch, its validation patches included; NaN without logs.
        operations: of the training, in steps of nnUNetTrainer; a plan's inserts are not counted.
    """

    run: Run
    record: Record
    evaluation: SavedEvaluation
    epochs: tuple[Epoch, ...]
    steps: int
    seconds_per_step: float
    operations: float

    @property
    def method(self) -> Method:
        """The trainer's row of the registry."""
        return find_method(self.run.row.trainer)


@dataclass(frozen=True)
class Benchmark:
    """Hold everything that a report is made from.

    Attributes:
        layout: files of the benchmark.
        design: what is compared.
        results: finished runs, in the design's order.
        records: what is known of every run.
        leaks: outcome of the checks; ``None``: none is recorded.
    """

    layout: Layout
    design: Design
    results: tuple[Result, ...]
    records: dict[Run, Record]
    leaks: tuple[str, ...] | None

    def of(self, row: Row, budget: int) -> list[Result]:
        """Return a row's finished runs of a budget, by seed."""
        return [r for r in self.results if r.run.row == row and r.run.budget == budget]

    def rows(self, budget: int) -> list[Row]:
        """Return the rows with a finished run of a budget, in the design's order."""
        return [row for row in self.design.rows if self.of(row, budget)]

    def baseline(self) -> Row | None:
        """Return the row that others are held against, if the design has it."""
        return next((row for row in self.design.rows if row.is_baseline), None)

    def unlabeled(self, budget: int) -> int:
        """Return the number of unlabeled cases of a budget: of its data set's ``imagesUn``.

        That has the raw data set's own, beside what the design hides the labels of.
        """
        raw = self.layout.budget(budget) / "raw" / self.design.dataset
        return len(unlabeled_in(raw)) or len(self.design.unlabeled) + len(self.design.pool[budget:])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the evaluated classes; empty before the first run has finished."""
        return tuple(self.results[0].evaluation.classes) if self.results else ()

    @property
    def unit(self) -> str:
        """Unit of distances."""
        return self.results[0].evaluation.unit if self.results else "mm"

    @property
    def missing(self) -> dict[Run, Record]:
        """Runs without a result."""
        return {run: record for run, record in self.records.items() if not is_done(record)}

    @property
    def in_progress(self) -> bool:
        """Tell whether a run is going on or waiting."""
        return any(r.status in ("waiting", "running") for r in self.records.values())


def is_done(record: Record) -> bool:
    """Tell whether a run has finished."""
    return record.status == "finished"


def collect(folder: Path) -> Benchmark:
    """Read a benchmark, whatever is there of it.

    A finished run whose evaluation is missing, of other cases than those of the first one or of
    predictions that have been replaced since, is held to have failed.

    Raises:
        UserError: the folder holds no benchmark.
    """
    layout = Layout(folder)
    design = read_design(layout)
    records = {run: read_record(layout, run) for run in design.runs()}
    results: list[Result] = []
    for run, record in records.items():
        if not is_done(record):
            continue
        try:
            results.append(_read(layout, design, run, record, results))
        except UserError as error:
            records[run] = dataclasses.replace(record, status="failed", fault=str(error))
    return Benchmark(layout, design, tuple(results), records, _leaks(layout))


def _read(
    layout: Layout, design: Design, run: Run, record: Record, others: Sequence[Result]
) -> Result:
    evaluation = read_evaluation(layout.evaluation(run), run.row.title)
    if others:
        check_comparable(others[0].evaluation, evaluation)
    fold = layout.fold(design, run)
    return Result(
        run,
        record,
        evaluation,
        read_epochs(fold),
        design.steps_of(run.row),
        seconds_per_step(fold, design.steps_per_epoch),
        effort(design, run.row),
    )


def _leaks(layout: Layout) -> tuple[str, ...] | None:
    path = layout.folder / leaks.FILE
    if not path.is_file():
        return None
    return tuple(map(str, json.loads(path.read_text(encoding="utf-8"))))


def value_of(evaluation: SavedEvaluation, case: str, class_name: str, metric: str) -> float:
    """Return a metric of a case and class; NaN where it is undefined."""
    value = evaluation.cases[case][class_name][metric]
    return math.nan if value is None else float(value)
