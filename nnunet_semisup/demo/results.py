"""The numbers of a finished demo, read from the files that the commands left."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_semisup.demo.settings import Layout, Settings
from nnunet_semisup.evaluation.names import REPORT_NAME
from nnunet_semisup.registry import Method, find_method

METRICS = ("Dice", "Jaccard", "HD95", "ASD")


@dataclass(frozen=True)
class Result:
    """One trainer on the test cases.

    Attributes:
        method: the trainer's row of the registry.
        means: mean over the cases of each class and metric, NaN where undefined.
        dice: Dice of each case and class, NaN where undefined.
        missed: number of organs in the reference that the prediction lacks altogether.
        seconds_per_step: median epoch, its validation batches included, over its steps.
    """

    method: Method
    means: dict[str, dict[str, float]]
    dice: dict[str, dict[str, float]]
    missed: int
    seconds_per_step: float

    @property
    def short_name(self) -> str:
        """The trainer's name without what all trainers' names begin with."""
        return self.method.trainer.removeprefix("nnUNetTrainer")

    def mean(self, metric: str) -> float:
        """Mean over the classes in which it is defined."""
        return _mean([values[metric] for values in self.means.values()])

    def case_dice(self, case: str) -> float:
        """Mean Dice of a case over the classes in which it is defined."""
        return _mean(list(self.dice[case].values()))


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return statistics.fmean(defined) if defined else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def read_results(settings: Settings, layout: Layout) -> list[Result]:
    """The results of every trainer, in the order of the settings."""
    return [_read(trainer, settings, layout) for trainer in settings.trainers]


def _read(trainer: str, settings: Settings, layout: Layout) -> Result:
    path = layout.predictions(trainer) / REPORT_NAME
    content = json.loads(path.read_text(encoding="utf-8"))
    classes = content["summary"]["classes"]
    return Result(
        method=find_method(trainer),
        means={
            name: {metric: _number(values[metric]["mean"]) for metric in METRICS}
            for name, values in classes.items()
        },
        dice={
            case: {name: _number(value["Dice"]) for name, value in values["classes"].items()}
            for case, values in content["cases"].items()
        },
        missed=sum(values["case_counts"]["prediction_empty"] for values in classes.values()),
        seconds_per_step=seconds_per_step(layout.fold(trainer), settings.steps_per_epoch),
    )


def seconds_per_step(fold: Path, steps_per_epoch: int) -> float:
    """Median of the epoch times in nnU-Net's logs over the steps of an epoch; NaN without logs."""
    times: list[float] = []
    for log in sorted(fold.glob("training_log_*.txt")):
        found = re.findall(r"Epoch time: ([\d.]+) s", log.read_text(encoding="utf-8"))
        times += [float(seconds) for seconds in found]
    return statistics.median(times) / steps_per_epoch if times else math.nan


def reference_result(results: Sequence[Result]) -> Result:
    """What the others are compared with: the labeled cases alone, or the first without them."""
    alone = [result for result in results if not result.method.uses_unlabeled]
    return (alone or list(results))[0]


def gains(results: Sequence[Result]) -> dict[str, float]:
    """By how much the best of the others exceeds the reference in each case.

    The Dice itself where there are no others.
    """
    reference = reference_result(results)
    others = [result for result in results if result is not reference]
    if not others:
        return {case: reference.case_dice(case) for case in reference.dice}
    best = max(others, key=lambda result: result.mean("Dice"))
    return {case: best.case_dice(case) - reference.case_dice(case) for case in reference.dice}


def chosen_cases(results: Sequence[Result]) -> list[str]:
    """The cases with the largest, the median and the smallest gain."""
    gain = gains(results)
    ranked = sorted(gain, key=lambda case: (-gain[case], case))
    return list(dict.fromkeys([ranked[0], ranked[len(ranked) // 2], ranked[-1]]))


def verdict(results: Sequence[Result], settings: Settings) -> str:
    """How each trainer compares with the reference, whichever is better, one sentence each."""
    reference = reference_result(results)
    cases = len(reference.dice)
    labels = "" if reference.method.uses_unlabeled else ", from the labeled scans alone"
    sentences = [
        f"Mean Dice on {cases} test cases: {reference.mean('Dice'):.3f} by "
        f"{reference.method.trainer}{labels}."
    ]
    for result in results:
        if result is reference:
            continue
        difference = 100 * (result.mean("Dice") - reference.mean("Dice"))
        better = sum(result.case_dice(case) > reference.case_dice(case) for case in result.dice)
        scans = f", with {settings.counts.unlabeled} unlabeled scans"
        sentences.append(
            f"{result.mean('Dice'):.3f} by {result.method.trainer}"
            f"{scans if result.method.uses_unlabeled else ''}: {abs(difference):.1f} points "
            f"{'more' if difference > 0 else 'less'}, the higher Dice in {better} of {cases} cases."
        )
    return " ".join(sentences)
