"""Pictures that compare the trainers of a demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.image
from matplotlib.figure import Figure

from nnunet_semisup.demo.results import Result
from nnunet_semisup.demo.settings import Layout

COLORS = ("#555555", "#1f77b4", "#d62728", "#2ca02c", "#9467bd")
MARKERS = ("o", "s", "^", "D", "v")


def draw_dice(results: Sequence[Result]) -> Figure:
    """Dice of every test case, one panel a class, one color a trainer; lines are the means."""
    classes = list(results[0].means)
    cases = sorted(results[0].dice)
    figure = Figure(figsize=(5 * len(classes), 3.8), dpi=90, layout="constrained")
    panels = figure.subplots(1, len(classes), squeeze=False, sharey=True)[0]
    for axis, name in zip(panels, classes, strict=True):
        for number, result in enumerate(results):
            color = COLORS[number % len(COLORS)]
            axis.plot(
                cases,
                [result.dice[case][name] for case in cases],
                MARKERS[number % len(MARKERS)],
                color=color,
                label=result.method.trainer,
            )
            axis.axhline(result.means[name]["Dice"], color=color, linewidth=1, linestyle="dashed")
        axis.set_title(name)
        axis.set_ylim(-0.02, 1.02)
        axis.grid(axis="y", alpha=0.3)
        axis.tick_params(axis="x", rotation=30)
    panels[0].set_ylabel("Dice")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(results))
    return figure


def draw_overlays(results: Sequence[Result], cases: Sequence[str], layout: Layout) -> Figure:
    """The overlays that the evaluation wrote: trainers side by side, one row a case."""
    pictures = [
        [
            matplotlib.image.imread(
                layout.predictions(result.method.trainer) / "overlays" / f"{case}.png"
            )
            for result in results
        ]
        for case in cases
    ]
    height, width = pictures[0][0].shape[:2]
    columns = len(results)
    size = (6.2 * columns, (6.2 * height / width + 0.35) * len(cases))
    figure = Figure(figsize=size, dpi=90, layout="constrained")
    panels = figure.subplots(len(cases), columns, squeeze=False)
    for row, line in zip(panels, pictures, strict=True):
        for axis, picture, result in zip(row, line, results, strict=True):
            axis.imshow(picture, interpolation="antialiased")
            axis.set_title(result.method.trainer, fontsize=11)
            axis.axis("off")
    return figure


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
