"""Show the worst and the median case of a budget: overlays, and surfaces of volumes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.text import Text as DrawnText

from nnunet_semisup.benchmark.collect import Benchmark, Result
from nnunet_semisup.benchmark.headline import short_title, with_unlabeled
from nnunet_semisup.benchmark.statistics import MAIN_METRIC, Line, case_values, groups
from nnunet_semisup.benchmark.surfaces import draw_surfaces
from nnunet_semisup.document import Part, Picture, Text
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.inputs import (
    CasePair,
    EvaluationInputs,
    LabelMap,
    SegmentationClass,
    find_inputs,
    read_label_map,
)
from nnunet_semisup.evaluation.names import VALIDATION_FOLDER
from nnunet_semisup.evaluation.overlays import draw_overlay, read_image
from nnunet_semisup.evaluation.validation_fold import GROUND_TRUTH
from nnunet_semisup.figures import DARK, LIGHT, small_png


@dataclass(frozen=True)
class _Shown:
    """Name a run's network and the files that it is drawn from."""

    title: str
    result: Result
    inputs: EvaluationInputs


def case_pictures(benchmark: Benchmark, budget: int, lines: Sequence[Line]) -> list[Part]:
    """Draw the worst and the median case of the best row with unlabeled cases.

    Beside it stands the baseline; each by its first seed. Files that have gone since are said to
    have gone.
    """
    best = max(with_unlabeled(lines), key=lambda line: line.dice, default=lines[0])
    wanted = [line for line in lines if line.row.is_baseline or line is best]
    try:
        shown = [
            _Shown(short_title(w), r := benchmark.of(w.row, budget)[0], inputs_of(benchmark, r))
            for w in wanted
        ]
        parts: list[Part] = []
        for word, case in _chosen(benchmark, budget, best).items():
            intro = f"{word} case of {short_title(best)}, {budget} labeled cases: {case}"
            parts += _case(benchmark, budget, case, shown, intro)
    # Readers of many formats: each has its own exceptions for broken files.
    except Exception as error:
        reason = " ".join(str(error).split())
        return [Text(f"{budget} labeled cases: no pictures, {reason or type(error).__name__}")]
    return parts


def _chosen(benchmark: Benchmark, budget: int, line: Line) -> dict[str, str]:
    """Return the worst and the median case by Dice; cases where it is undefined come last."""
    results = benchmark.of(line.row, budget)
    dice = case_values(results, groups(benchmark)[line.group], MAIN_METRIC)
    ranked = sorted(dice, key=lambda case: (math.isnan(dice[case]), dice[case], case))
    defined = sum(not math.isnan(value) for value in dice.values())
    chosen = {"Worst": ranked[0], "Median": ranked[max(defined - 1, 0) // 2]}
    return chosen if chosen["Worst"] != chosen["Median"] else {"Worst": ranked[0]}


def inputs_of(benchmark: Benchmark, result: Result) -> EvaluationInputs:
    """Return the references of a run's fold and those predictions that are still there.

    Raises:
        UserError: see :func:`find_inputs`.
    """
    preprocessed = benchmark.layout.preprocessed(benchmark.design, result.run.budget)
    return find_inputs(
        preprocessed / GROUND_TRUTH,
        benchmark.layout.fold(benchmark.design, result.run) / VALIDATION_FOLDER,
        preprocessed / "dataset.json",
        allow_missing=True,
    )


def _case(
    benchmark: Benchmark, budget: int, case: str, shown: Sequence[_Shown], intro: str
) -> list[Part]:
    inputs = shown[0].inputs
    raw = benchmark.layout.budget(budget) / "raw" / benchmark.design.dataset / "imagesTr"
    image = read_image(raw / f"{case}_0000{inputs.file_ending}", inputs.reader)
    spacing = tuple(shown[0].result.evaluation.grids[case][1])
    classes = inputs.scheme.classes or ()
    maps = [_map(_file(s, case).prediction, s, spacing) for s in shown]
    reference = _map(_file(shown[0], case).reference, shown[0], spacing)
    parts: list[Part] = [Text(intro)]
    for s, prediction in zip(shown, maps, strict=True):
        figure = draw_overlay(image, reference, prediction, classes, "")
        caption = f"{s.title}, seed {s.result.run.seed}: {_dice(s.result, case, classes)}"
        parts.append(Picture(small_png(darkened(figure)), caption, wide=True))
    if image.ndim == 3 and min(image.shape) > 1:
        titled = {s.title: prediction for s, prediction in zip(shown, maps, strict=True)}
        figure = draw_surfaces(reference, titled, classes, benchmark.unit)
        caption = (
            "Surfaces of the reference and of the predictions, these colored by their distance "
            "to the reference."
        )
        parts.append(Picture(small_png(darkened(figure)), caption, wide=True))
    return parts


def _file(shown: _Shown, case: str) -> CasePair:
    found = next((pair for pair in shown.inputs.pairs if pair.name == case), None)
    if found is None:
        raise UserError(f"the prediction of {case} by {shown.title} has gone.")
    return found


def _map(path: Path, shown: _Shown, spacing: tuple[float, ...]) -> LabelMap:
    # Of 3D tif the prediction may be what knows the spacing: the evaluation has found it.
    found = read_label_map(path, shown.inputs.reader, trust_affine=True)
    return dataclasses.replace(found, spacing=spacing)


def _dice(result: Result, case: str, classes: Sequence[SegmentationClass]) -> str:
    values = result.evaluation.cases[case]
    told = [f"{c.name} {_number(values[c.name][MAIN_METRIC])}" for c in classes]
    return f"Dice {', '.join(told)}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def darkened(figure: Figure) -> Figure:
    """Return the figure with light text on a dark ground, as scans are looked at."""
    figure.set_facecolor(DARK)
    for axis in figure.axes:
        axis.set_facecolor(DARK)
    for legend in figure.legends:
        legend.get_frame().set_facecolor(DARK)
    for text in figure.findobj(DrawnText):
        text.set_color(LIGHT)
    return figure
