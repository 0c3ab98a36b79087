"""Draw pictures that compare the trainers of a demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.demo.dataset import ENDING, image_path, label_path
from nnunet_semisup.demo.phantom import ORGAN
from nnunet_semisup.demo.results import Result
from nnunet_semisup.demo.settings import Layout, Settings
from nnunet_semisup.figures import small_png

Array = npt.NDArray[np.int16]

TRAINER_COLORS = ("#555555", "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b")
MARKERS = ("o", "s", "^", "D", "v", "P")
ORGAN_COLOR = "#e6a700"
SHOWN_SCANS = 8
PANEL = 2.2
"""Inches of a panel's side."""


def draw_comparison(
    results: Sequence[Result], cases: Sequence[str], settings: Settings, layout: Layout
) -> Figure:
    """Draw one row a case: the scan with its reference, then what each trainer predicts."""
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
            axis.set_title(f"Dice {result.dice[case]:.2f}", fontsize=9)
    for axis, result in zip(panels[0, 1:], results, strict=True):
        title = f"{result.short_name}\n{_used(result, settings)}\n{axis.get_title()}"
        axis.set_title(title, fontsize=9)
    figure.legend(
        handles=[
            Patch(color=ORGAN_COLOR, label=f"{ORGAN}, as labeled or predicted"),
            Patch(facecolor="none", edgecolor="white", label="outline of the reference"),
        ],
        loc="outside lower center",
        ncols=2,
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
    """Draw the labeled scans with their labels above, as many of the others as fit below."""
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
    """Draw the Dice of every test case, ordered by the first trainer; dashed lines are means."""
    cases = sorted(results[0].dice, key=lambda case: results[0].dice[case])
    figure = Figure(figsize=(9, 3.8), dpi=90, layout="constrained")
    axis = figure.subplots()
    for number, result in enumerate(results):
        color = TRAINER_COLORS[number % len(TRAINER_COLORS)]
        axis.plot(
            range(len(cases)),
            [result.dice[case] for case in cases],
            MARKERS[number % len(MARKERS)],
            color=color,
            label=result.method.trainer,
        )
        axis.axhline(result.means["Dice"], color=color, linewidth=1, linestyle="dashed")
    axis.set_ylim(-0.02, 1.02)
    axis.grid(axis="y", alpha=0.3)
    axis.set_xticks([])
    axis.set_xlabel(f"test cases, in the order of {results[0].short_name}")
    axis.set_ylabel("Dice")
    figure.legend(loc="outside lower center", ncols=len(results))
    return figure


def _read(path: Path) -> Array:
    array: Array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    return array


def _show(
    axis: Axes, image: Array, labels: Array | None = None, reference: Array | None = None
) -> None:
    """Show a scan, over it ``labels`` in color and ``reference`` in outline."""
    axis.imshow(image, cmap="gray", vmin=np.percentile(image, 1), vmax=np.percentile(image, 99.5))
    axis.axis("off")
    if labels is not None and labels.any():
        axis.imshow(np.ma.masked_equal(labels, 0), cmap=ListedColormap([ORGAN_COLOR]), alpha=0.5)
    if reference is not None:
        axis.contour(reference, [0.5], colors="white", linewidths=1.2)


def save_small(figure: Figure, path: Path) -> None:
    """Save as a small PNG."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(small_png(figure))
