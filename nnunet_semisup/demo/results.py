"""Read the numbers of a finished demo from the files that the commands left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_semisup.demo.phantom import ORGAN
from nnunet_semisup.demo.settings import Layout, Settings
from nnunet_semisup.evaluation.names import REPORT_NAME
from nnunet_semisup.evaluation.training_log import seconds_per_step
from nnunet_semisup.registry import Method, find_method

METRICS = ("Dice", "Jaccard", "HD95", "ASD")


@dataclass(frozen=True)
class Result:
    """Hold one trainer's results on the test cases.

    Attributes:
        method: the trainer's row of the registry.
        means: mean over the cases of each metric.
        dice: Dice of each case.
        missed: number of cases of which nothing was predicted.
        seconds_per_step: median epoch, its validation batches included, over its steps.
    """

    method: Method
    means: dict[str, float]
    dice: dict[str, float]
    missed: int
    seconds_per_step: float

    @property
    def short_name(self) -> str:
        """Return the trainer's name without what all trainers' names begin with."""
        return self.method.trainer.removeprefix("nnUNetTrainer")


def read_results(settings: Settings, layout: Layout) -> list[Result]:
    """Return the results of every trainer, in the order of the settings."""
    return [_read(trainer, settings, layout) for trainer in settings.trainers]


def _read(trainer: str, settings: Settings, layout: Layout) -> Result:
    path = layout.predictions(trainer) / REPORT_NAME
    content = json.loads(path.read_text(encoding="utf-8"))
    summary = content["summary"]["classes"][ORGAN]
    cases = content["cases"].items()
    return Result(
        method=find_method(trainer),
        means={metric: summary[metric]["mean"] for metric in METRICS},
        dice={case: values["classes"][ORGAN]["Dice"] for case, values in cases},
        missed=summary["case_counts"]["prediction_empty"],
        seconds_per_step=seconds_per_step(layout.fold(trainer), settings.steps_per_epoch),
    )


def reference_result(results: Sequence[Result]) -> Result:
    """Return what the rest is compared with: the labeled cases alone, or the first without them."""
    alone = [result for result in results if not result.method.uses_unlabeled]
    return (alone or list(results))[0]


def gains(results: Sequence[Result]) -> dict[str, float]:
    """Return by how much the best of the others exceeds the reference in each case.

    The Dice itself where there are no others.
    """
    reference = reference_result(results)
    others = [result for result in results if result is not reference]
    if not others:
        return {case: reference.dice[case] for case in reference.dice}
    best = max(others, key=lambda result: result.means["Dice"])
    return {case: best.dice[case] - reference.dice[case] for case in reference.dice}


def chosen_cases(results: Sequence[Result]) -> list[str]:
    """Return the cases with the largest, the median and the smallest gain."""
    gain = gains(results)
    ranked = sorted(gain, key=lambda case: (-gain[case], case))
    return list(dict.fromkeys([ranked[0], ranked[len(ranked) // 2], ranked[-1]]))


def verdict(results: Sequence[Result], settings: Settings) -> str:
    """Say in a sentence each how the trainers compare with the reference, whichever is better."""
    reference = reference_result(results)
    cases = len(reference.dice)
    labels = "" if reference.method.uses_unlabeled else ", from the labeled scans alone"
    sentences = [
        f"Mean Dice on {cases} test cases: {reference.means['Dice']:.3f} by "
        f"{reference.method.trainer}{labels}."
    ]
    for result in results:
        if result is reference:
            continue
        difference = 100 * (result.means["Dice"] - reference.means["Dice"])
        better = sum(result.dice[case] > reference.dice[case] for case in result.dice)
        scans = f", with {settings.counts.unlabeled} unlabeled scans"
        sentences.append(
            f"{result.means['Dice']:.3f} by {result.method.trainer}"
            f"{scans if result.method.uses_unlabeled else ''}: {abs(difference):.1f} points "
            f"{'more' if difference > 0 else 'less'}, the higher Dice in {better} of {cases} cases."
        )
    return " ".join(sentences)
