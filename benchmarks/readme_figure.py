"""Draw the README's picture of real scans from a benchmark's folder.

    python benchmarks/readme_figure.py FOLDER --trainer PseudoLabel -o docs/images/left_atrium.png

Three evaluation cases of the first budget and seed: where the trainer with unlabeled scans helps
most, in the middle, and least. Each as the slice with most of the reference, and as surfaces that
are colored by their distance to the reference's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.axes3d import Axes3D

from nnunet_semisup.benchmark.case_pictures import inputs_of
from nnunet_semisup.benchmark.collect import Benchmark, Result, collect
from nnunet_semisup.benchmark.design import Row
from nnunet_semisup.benchmark.statistics import MAIN_METRIC, case_values, groups
from nnunet_semisup.benchmark.surfaces import (
    Surface,
    face_distances,
    show_surfaces,
    surface_of,
)
from nnunet_semisup.evaluation.inputs import read_label_map
from nnunet_semisup.evaluation.overlays import read_image
from nnunet_semisup.figures import DARK, LIGHT, small_png

TITLES = ("reference", "labels alone", "with unlabeled scans")
REFERENCE, PREDICTION = "#4fc3f7", "#ffb74d"
MARGIN = 12
"""Voxels around the reference that are shown."""
FARTHEST = 10.0
"""Distance in mm with the last color."""

Mask = npt.NDArray[np.bool_]


class Case:
    """Hold what is drawn of one case: gray values and masks ``(z, y, x)``, Dice by column."""

    def __init__(self, benchmark: Benchmark, results: Sequence[Result], name: str) -> None:
        inputs = [inputs_of(benchmark, result) for result in results]
        pairs = [{p.name: p for p in i.pairs}[name] for i in inputs]
        design, first = benchmark.design, inputs[0]
        raw = benchmark.layout.budget(design.budgets[0]) / "raw" / design.dataset / "imagesTr"
        image = read_image(raw / f"{name}_0000{first.file_ending}", first.reader)
        paths = [pairs[0].reference, *(pair.prediction for pair in pairs)]
        masks = [read_label_map(path, first.reader).labels > 0 for path in paths]
        box = _around(masks[0])
        self.name = name
        self.spacing = tuple(results[0].evaluation.grids[name][1])
        self.image = image[box]
        self.masks = [mask[box] for mask in masks]
        self.dice = [_dice(benchmark, result)[name] for result in results]


def _around(mask: Mask) -> tuple[slice, ...]:
    hits = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(max(0, h[0] - MARGIN), h[-1] + MARGIN) for h in hits)


def _dice(benchmark: Benchmark, result: Result) -> dict[str, float]:
    names = next(iter(groups(benchmark).values()))
    return dict(case_values([result], names, MAIN_METRIC))


def draw(cases: Sequence[Case]) -> Figure:
    """Draw a line a case: three slices, then three surfaces."""
    width = 2 * len(TITLES)
    figure = Figure(figsize=(1.75 * width, 1.5 * len(cases)), dpi=100, facecolor=DARK)
    for line, case in enumerate(cases):
        true = surface_of(case.masks[0], case.spacing)
        for column, (title, mask) in enumerate(zip(TITLES, case.masks, strict=True)):
            dice = f"Dice {case.dice[column - 1]:.2f}" if column else ""
            flat = figure.add_subplot(len(cases), width, line * width + column + 1)
            _slice(flat, case, mask, filled=column == 0)
            place = line * width + column + len(TITLES) + 1
            solid = figure.add_subplot(len(cases), width, place, projection="3d")
            _surface(solid, surface_of(mask, case.spacing), true)
            if line == 0:
                for axis in (flat, solid):
                    axis.set_title(title, color=LIGHT, fontsize=9)
            solid.text2D(0.5, 0.02, dice, color=LIGHT, fontsize=9, transform=solid.transAxes)
    figure.subplots_adjust(0.003, 0.003, 0.997, 0.95, 0.02, 0.02)
    return figure


def _slice(axis: Axes, case: Case, mask: Mask, filled: bool) -> None:
    """Draw the slice with most of the reference: filled with it, or outlined by both masks."""
    thickest = max(case.spacing)
    across = next(a for a, s in enumerate(case.spacing) if s == thickest)
    others = tuple({0, 1, 2} - {across})
    where = int(case.masks[0].sum(axis=others).argmax())
    image, reference, shown = (a.take(where, across) for a in (case.image, case.masks[0], mask))
    low, high = np.percentile(image, (1, 99))
    axis.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
    if filled:
        axis.contourf(reference, levels=[0.5, 1.5], colors=[REFERENCE], alpha=0.45)
    elif shown.any():
        axis.contourf(shown, levels=[0.5, 1.5], colors=[PREDICTION], alpha=0.45)
    axis.contour(reference, levels=[0.5], colors=[REFERENCE], linewidths=1.2)
    axis.set_axis_off()


def _surface(axis: Axes3D, surface: Surface | None, true: Surface | None) -> None:
    """Draw a surface, the redder the farther from the true one."""
    axis.set_facecolor(DARK)
    axis.set_axis_off()
    if surface is None or true is None:
        return
    part = np.clip(face_distances(surface, true) / FARTHEST, 0, 1)[:, None]
    near, far = np.array([0.31, 0.76, 0.97, 1]), np.array([0.95, 0.25, 0.2, 1])
    box = true.corners.min(axis=0), true.corners.max(axis=0)
    show_surfaces(axis, [surface], [near * (1 - part) + far * part], box, zoom=1.25)


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trainer", required=True, help="without nnUNetTrainer")
    parser.add_argument("-o", dest="output", type=Path, required=True)
    args = parser.parse_args()
    benchmark = collect(args.folder)
    chosen = f"nnUNetTrainer{args.trainer}"
    found = [r for r in benchmark.results if r.run.row.is_baseline or r.run.row == Row(chosen)]
    first = [r for r in found if r.run.seed == benchmark.design.seeds[0]][:2]
    alone, other = (_dice(benchmark, result) for result in first)
    ranked = sorted(alone, key=lambda name: alone[name] - other[name])
    names = (ranked[0], ranked[len(ranked) // 2], ranked[-1])
    args.output.write_bytes(small_png(draw([Case(benchmark, first, name) for name in names])))


if __name__ == "__main__":
    main()
