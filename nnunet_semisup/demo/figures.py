"""Pictures that compare the trainers of a demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunet_semisup.demo.dataset import ENDING, image_path, label_path
from nnunet_semisup.demo.phantom import LABELS
from nnunet_semisup.demo.results import Result
from nnunet_semisup.demo.settings import Layout, Settings

Array = npt.NDArray[np.generic]

TRAINER_COLORS = ("#555555", "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b")
MARKERS = ("o", "s", "^", "D", "v", "P")
ORGAN_COLORS = ("#e6a700", "#1f9de0")
ORGANS = tuple(zip(list(LABELS)[1:], ORGAN_COLORS, strict=True))
SHOWN_SCANS = 8
PANEL = 2.7
"""Inches of a panel's side."""


def draw_comparison(
    results: Sequence[Result], cases: Sequence[str], settings: Settings, layout: Layout
) -> Figure:
    """One row a case: the scan with its reference, then what each trainer predicts."""
    columns = 1 + len(results)
    size = (PANEL * columns, (PANEL + 0.25) * len(cases) + 0.6)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    panels = figure.subplots(len(cases), columns, squeeze=False)
    for row, case in zip(panels, cases, strict=True):
        image = _read(image_path(layout.raw_dataset, "test", case))
        reference = _read(label_path(layout.raw_dataset, "test", case))
        _show(row[0], image, reference)
        row[0].set_title(f"{case}: reference", fontsize=9)
        for axis, result in zip(row[1:], results, strict=True):
            prediction = _read(layout.predictions(result.method.trainer) / f"{case}{ENDING}")
            _show(axis, image, prediction, reference)
            axis.set_title(f"Dice {result.case_dice(case):.2f}", fontsize=9)
    for axis, result in zip(panels[0, 1:], results, strict=True):
        title = f"{result.short_name}\n{_used(result, settings)}\n{axis.get_title()}"
        axis.set_title(title, fontsize=9)
    figure.legend(
        handles=[Patch(color=color, label=name) for name, color in ORGANS]
        + [Patch(facecolor="none", edgecolor="white", label="outline: reference")],
        loc="outside lower center",
        ncols=3,
        fontsize=9,
        facecolor="#999999",
    )
    return figure


def _used(result: Result, settings: Settings) -> str:
    text = f"{settings.counts.labeled} labeled"
    if result.method.uses_unlabeled:
        text += f" + {settings.counts.unlabeled} unlabeled"
    return text


def draw_scans(settings: Settings, layout: Layout) -> Figure:
    """The labeled scans with their labels above, as many of the others as fit below."""
    figure = Figure(figsize=(1.5 * SHOWN_SCANS, 3.6), dpi=100, layout="constrained")
    panels = figure.subplots(2, SHOWN_SCANS, squeeze=False)
    for axis in panels.flat:
        axis.axis("off")
    for axis, number in zip(panels[0], range(settings.counts.labeled), strict=False):
        case = f"labeled_{number:02d}"
        paths = (at(layout.raw_dataset, "labeled", case) for at in (image_path, label_path))
        _show(axis, *map(_read, paths))
    for axis, number in zip(panels[1], range(settings.counts.unlabeled), strict=False):
        _show(axis, _read(image_path(layout.raw_dataset, "unlabeled", f"unlabeled_{number:02d}")))
    panels[0, 0].set_title("labeled", fontsize=9, loc="left")
    panels[1, 0].set_title("unlabeled", fontsize=9, loc="left")
    return figure


def draw_dice(results: Sequence[Result]) -> Figure:
    """Dice of every test case, one panel a class, one color a trainer; lines are the means.

    The cases are ordered by the Dice of the first trainer.
    """
    classes = list(results[0].means)
    figure = Figure(figsize=(5 * len(classes), 3.8), dpi=90, layout="constrained")
    panels = figure.subplots(1, len(classes), squeeze=False, sharey=True)[0]
    for axis, name in zip(panels, classes, strict=True):
        cases = sorted(results[0].dice, key=lambda case: results[0].dice[case][name])
        for number, result in enumerate(results):
            color = TRAINER_COLORS[number % len(TRAINER_COLORS)]
            axis.plot(
                range(len(cases)),
                [result.dice[case][name] for case in cases],
                MARKERS[number % len(MARKERS)],
                color=color,
                label=result.method.trainer,
            )
            axis.axhline(result.means[name]["Dice"], color=color, linewidth=1, linestyle="dashed")
        axis.set_title(name)
        axis.set_ylim(-0.02, 1.02)
        axis.grid(axis="y", alpha=0.3)
        axis.set_xticks([])
        axis.set_xlabel(f"test case, in the order of {results[0].short_name}")
    panels[0].set_ylabel("Dice")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(results))
    return figure


def _read(path: Path) -> Array:
    array: Array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    return array


def _show(
    axis: Axes, image: Array, labels: Array | None = None, reference: Array | None = None
) -> None:
    """A scan, over it the organs of ``labels`` in color and those of ``reference`` in outline."""
    axis.imshow(image, cmap="gray", vmin=np.percentile(image, 1), vmax=np.percentile(image, 99.5))
    axis.axis("off")
    for value, (_, color) in enumerate(ORGANS, start=1):
        if labels is not None and (labels == value).any():
            axis.contourf(labels == value, [0.5, 1], colors=[color], alpha=0.55)
        if reference is not None:
            axis.contour(reference == value, [0.5], colors="white", linewidths=1.2)


def save_small(figure: Figure, path: Path) -> None:
    """Save as PNG with a palette of 256 colors, about a third of the size."""
    from io import BytesIO

    from PIL import Image

    from nnunet_semisup.atomic import atomic_path

    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    with atomic_path(path) as temporary:
        small = Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
        small.save(temporary, format="png", optimize=True)
