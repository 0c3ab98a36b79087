"""Say in sentences what a benchmark showed, whichever way it went."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence

from nnunet_semisup.benchmark.collect import Benchmark
from nnunet_semisup.benchmark.design import SUPERVISED, Row
from nnunet_semisup.benchmark.statistics import MAIN_METRIC, SIGNIFICANT, Line, too_few
from nnunet_semisup.dataset_conversion.findings import counted
from nnunet_semisup.evaluation.compare import PairedDifference
from nnunet_semisup.registry import find_method

_NO_WEIGHT = re.compile(r"(?:^|,)unlabeled_weight=0(?:\.0*)?(?:,|$)")
POINTS = 100
"""Points of Dice, as papers count them."""


def short_title(line: Line) -> str:
    """Return a row's title without what all trainers' names begin with."""
    return line.row.title.removeprefix("nnUNetTrainer")


def points(value: float) -> str:
    """Return a difference of Dice in points, with its sign."""
    return f"{POINTS * value:+.1f}"


def headline(benchmark: Benchmark, budget: int, lines: Sequence[Line]) -> str:
    """Return the sentence that a reader shall take along: what unlabeled cases brought.

    Args:
        benchmark: what is there.
        budget: number of labeled cases.
        lines: of the budget.
    """
    labeled = f"{budget} labeled cases"
    alone = next((line for line in lines if line.row.is_baseline), None)
    if alone is None:
        return (
            f"What unlabeled cases bring to {labeled} is not known yet: the training on the "
            "labeled cases alone has not finished."
        )
    cases = len(benchmark.results[0].evaluation.cases)
    others = with_unlabeled(lines)
    if not others:
        return (
            f"{labeled} alone reach a mean Dice of {_number(alone.dice)} on {cases} cases; no "
            "training with unlabeled cases has finished."
        )
    best = max(others, key=lambda line: _rank(_difference(line)))
    change = _difference(best)
    if math.isnan(change.difference):
        return f"On {cases} cases no difference to {labeled} alone is defined."
    of_rows = f" (the best of {len(others)} rows)" if len(others) > 1 else ""
    return (
        f"{_verdict(others)}: with {benchmark.unlabeled(budget)} unlabeled cases beside {labeled}, "
        f"{short_title(best)}{of_rows} reaches a mean Dice of {_number(change.other)} on "
        f"{counted(change.count, 'case')}; the labeled ones alone reach {_number(change.first)}: "
        f"{points(change.difference)} points ({sureness(best, change)})."
    )


def _verdict(lines: Sequence[Line]) -> str:
    """Say whether a gain stands out from chance in any of the rows."""
    if too_few(_most_cases(lines)):
        return "Too few evaluation cases to tell chance from gain"
    better = sum(_difference(line).difference > 0 for line in sure(lines))
    if not better:
        return "No sure gain from unlabeled cases"
    return f"Unlabeled cases helped in {better} of {len(lines)} rows beyond chance"


def sure(lines: Sequence[Line]) -> list[Line]:
    """Return the lines whose difference stands out from chance after the correction."""
    return [line for line in lines if line.corrected[MAIN_METRIC] < SIGNIFICANT]


def sureness(line: Line, change: PairedDifference) -> str:
    """Say how sure a difference is: interval, corrected p, and the cases that are better."""
    p_value = line.corrected[MAIN_METRIC]
    parts = [] if math.isnan(change.low) else [interval(change)]
    if not math.isnan(p_value):
        parts.append(f"p {short_p(p_value)} after correction for the number of rows")
    parts.append(f"better in {change.better} cases and worse in {change.worse}")
    return ", ".join(parts)


def interval(change: PairedDifference) -> str:
    """Return the 95 % interval in points."""
    return f"95 % interval {points(change.low)} to {points(change.high)}"


def short_p(p_value: float) -> str:
    """Return a p value with three digits, or what it is below."""
    return f"{p_value:.3f}" if p_value >= 0.001 else "<0.001"


def explanation(lines: Sequence[Line]) -> list[str]:
    """Return the sentences after the first: the other rows, chance, and what is not known."""
    others = with_unlabeled(lines)
    changes = [d for line in others if not math.isnan(d := _difference(line).difference)]
    if not changes:
        return []
    sentences = []
    if len(changes) > 1:
        sentences.append(
            f"The median of the {len(changes)} rows with unlabeled cases is "
            f"{points(statistics.median(changes))} points, the lowest {points(min(changes))}. "
            f"{_counted(others)}"
        )
        sentences.append(
            "The best row was found on the very cases that it is reported on: expect less of it "
            "on others."
        )
    sentences += [
        f"The labeled cases alone, trained {line.row.steps_factor:g} times as long: "
        f"{points(_difference(line).difference)} points."
        for line in lines
        if line.differences and line.row == Row(SUPERVISED, steps_factor=line.row.steps_factor)
    ]
    if doubt := too_few(_most_cases(others)):
        sentences.append(doubt)
    if {len(line.seeds) for line in lines} == {1}:
        sentences.append(
            "One seed a row: by how much another training of the same row differs is not known, "
            "and the intervals are of these networks."
        )
    return sentences


def with_unlabeled(lines: Sequence[Line]) -> list[Line]:
    """Return the lines of rows that learn from unlabeled cases and can be compared."""
    return [line for line in lines if line.differences and learns_from_unlabeled(line.row)]


def learns_from_unlabeled(row: Row) -> bool:
    """Tell whether a row's trainer draws unlabeled cases, and its settings do not weigh them 0."""
    return find_method(row.trainer).uses_unlabeled and not _NO_WEIGHT.search(row.settings)


def _counted(lines: Sequence[Line]) -> str:
    found = sure(lines)
    better = sum(_difference(line).difference > 0 for line in found)
    told = f"with a p below {SIGNIFICANT} after correction"
    if not found:
        return f"None is better or worse than the labels alone {told}."
    return f"Better than the labels alone {told}: {better}; worse: {len(found) - better}."


def _difference(line: Line) -> PairedDifference:
    return line.differences[MAIN_METRIC]


def _most_cases(lines: Sequence[Line]) -> int:
    return max(_difference(line).count for line in lines)


def _rank(change: PairedDifference) -> float:
    return -math.inf if math.isnan(change.difference) else change.difference


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
