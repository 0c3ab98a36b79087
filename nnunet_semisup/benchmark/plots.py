"""Draw a benchmark's numbers: every case, and how the trainings went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from nnunet_semisup.benchmark.collect import Benchmark, Result
from nnunet_semisup.benchmark.design import Row
from nnunet_semisup.benchmark.headline import points, short_title
from nnunet_semisup.benchmark.statistics import MAIN_METRIC, Line, case_values, groups
from nnunet_semisup.document import Picture
from nnunet_semisup.figures import in_ink, inline_svg

BETTER, WORSE, BASE = "#1f8fd0", "#e06c1f", "#8a8f98"
"""Blue and orange are told apart by all eyes and stand out from light and from dark."""
POINTS_PER_CASE = 4.5
STRIP = (24.0, 90.0)
"""Least and greatest height of a row's strip, in points."""
TITLE_HEIGHT = 15.0
MOST_ROWS = 10
"""Rows of a picture."""
WIDTH = 5.2
"""Inches: readable on a telephone, where it is shown at two thirds of its size."""


def plot_cases(benchmark: Benchmark, budget: int, lines: Sequence[Line]) -> list[Picture]:
    """Draw the Dice of all cases of a budget, row by row, each joined with the baseline's.

    Values are means over the seeds, and over the classes. Rows are spread over several pictures.
    """
    names = groups(benchmark)[lines[0].group]
    baseline = benchmark.baseline()
    shown = [line for line in lines if line.row != baseline] or list(lines)
    values = {
        line: case_values(benchmark.of(line.row, budget), names, MAIN_METRIC)
        for line in (*lines, *shown)
    }
    base = next((values[line] for line in lines if line.row == baseline), {})
    defined = [v for row in values.values() for v in row.values() if not math.isnan(v)]
    low, high = min(defined, default=0), max(defined, default=1)
    limits = (low - 0.03 * (high - low) - 0.01, high + 0.03 * (high - low) + 0.01)
    return [
        _strips(
            {line: values[line] for line in shown[start : start + MOST_ROWS]},
            base,
            limits,
            f"cases{budget}_{start}",
        )
        for start in range(0, len(shown), MOST_ROWS)
    ]


def _strips(
    values: Mapping[Line, dict[str, float]],
    base: dict[str, float],
    limits: tuple[float, float],
    name: str,
) -> Picture:
    """Draw rows one below the other."""
    count = len(next(iter(values.values())))
    strip = min(max(POINTS_PER_CASE * count, STRIP[0]), STRIP[1])
    height = len(values) * (strip + TITLE_HEIGHT)
    with rc_context(in_ink()):
        figure = Figure(figsize=(WIDTH, (height + 40) / 72))
        axis = figure.add_axes((0.03, 34 / (height + 40), 0.94, height / (height + 40)))
        for number, (line, cases) in enumerate(values.items()):
            top = number * (strip + TITLE_HEIGHT)
            _strip(axis, top, strip, base, cases)
            axis.text(0, top + 11, _told(line), transform=axis.get_yaxis_transform())
        axis.set_ylim(height, 0)
        axis.set_xlim(*limits)
        axis.set_yticks([])
        axis.set_xlabel("Dice of each case")
        axis.grid(axis="x", alpha=0.25)
        axis.spines[["left", "right", "top"]].set_visible(False)
    return Picture(inline_svg(figure, name))


def _told(line: Line) -> str:
    if not line.differences:
        return short_title(line)
    change = line.differences[MAIN_METRIC]
    if math.isnan(change.difference):
        return short_title(line)
    return (
        f"{short_title(line)}   {points(change.difference)} points, "
        f"{change.better} better, {change.worse} worse"
    )


def _strip(
    axis: Axes, top: float, height: float, base: dict[str, float], values: dict[str, float]
) -> None:
    """Draw a row's cases one below the other."""
    order = sorted(values, key=lambda case: (math.isnan(b := base.get(case, values[case])), b))
    ys = top + TITLE_HEIGHT + (np.arange(len(order)) + 0.5) / len(order) * (height - 4)
    old = np.array([base.get(case, math.nan) for case in order])
    new = np.array([values[case] for case in order])
    colors = np.select([new > old, new < old], [BETTER, WORSE], BASE)
    both = np.flatnonzero(~np.isnan(old) & ~np.isnan(new))
    segments = [[(old[i], ys[i]), (new[i], ys[i])] for i in both]
    axis.add_collection(LineCollection(segments, colors=colors[both], linewidths=1.2))
    axis.scatter(old, ys, s=5, color=BASE, zorder=3)
    axis.scatter(new, ys, s=11, color=colors, zorder=4)


def plot_trainings(benchmark: Benchmark, budget: int) -> list[Picture]:
    """Draw how each row's trainings went: nnU-Net's pseudo-Dice above its losses, a line a seed."""
    baseline = benchmark.baseline()
    base = benchmark.of(baseline, budget) if baseline else []
    return [
        _training(row, benchmark.of(row, budget), base, f"training{budget}{row.key}")
        for row in benchmark.rows(budget)
        if any(result.epochs for result in benchmark.of(row, budget))
    ]


def _training(row: Row, results: Sequence[Result], base: Sequence[Result], name: str) -> Picture:
    with rc_context({**in_ink(), "font.size": "8"}):
        figure = Figure(figsize=(2.3, 2.7))
        above, below = figure.subplots(2, 1, sharex=True)
        for result in base:
            _curve(above, result, "pseudo_dice", BASE, "-")
        for result in results:
            color = BASE if row.is_baseline else BETTER
            _curve(above, result, "pseudo_dice", color, "-")
            _curve(below, result, "train_loss", color, "-")
            _curve(below, result, "validation_loss", color, ":")
        above.set_ylim(0, 1)
        above.set_title(row.title.removeprefix("nnUNetTrainer"), fontsize=8, loc="left")
        below.set_xlabel("epoch")
        for axis in (above, below):
            axis.grid(alpha=0.25)
            axis.spines[["right", "top"]].set_visible(False)
        figure.subplots_adjust(left=0.17, right=0.97, top=0.92, bottom=0.15, hspace=0.15)
    return Picture(inline_svg(figure, name))


def _curve(axis: Axes, result: Result, value: str, color: str, style: str) -> None:
    numbers = [epoch.number for epoch in result.epochs]
    values = [getattr(epoch, value) for epoch in result.epochs]
    axis.plot(numbers, values, linestyle=style, color=color, linewidth=1.1)
