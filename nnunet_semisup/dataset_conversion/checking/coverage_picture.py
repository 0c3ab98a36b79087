"""A picture of labeled and unlabeled scans side by side, those outside by name."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.dataset_conversion.checking.coverage import INTENSITIES, Coverage, Trait
from nnunet_semisup.dataset_conversion.checking.coverage_text import coverage_warnings
from nnunet_semisup.dataset_conversion.checking.intensities import SHOWN_LEVELS
from nnunet_semisup.preparation.raw import named

LABELED, UNLABELED, OUTSIDE, WITHIN = "#1f78b4", "#8a8f98", "#d0450f", "#dcebf5"
"""Blue and orange are told apart by all eyes."""
_COLUMNS = 3
_WIDTH = 11.0
_HEAD, _STRIP, _CURVES, _LINE = 0.7, 1.55, 2.8, 0.185
"""Inches of the head, of panels for one number and for intensities, and of a line of text."""
_LETTERS = 160
"""Of a line of text."""
_NAMED = 4
"""Scans outside that a panel names, the farthest ones; the text below names more."""
_NAME = 14
"""Letters of a name in a panel."""
_LOGARITHMIC = 3
"""Ratio of the greatest to the smallest length from which an axis is logarithmic."""


def write_coverage(coverage: Coverage, title: str, path: Path) -> None:
    """Draw the scans into a PNG; a file that is there is replaced."""
    with atomic_path(path) as temporary:
        draw_coverage(coverage, title).savefig(temporary, format="png", dpi=110)


def draw_coverage(coverage: Coverage, title: str) -> Figure:
    """Draw each property of all scans, and below in words what is outside."""
    rows: list[tuple[Sequence[Trait], float]] = []
    for strips in (True, False):
        traits = [t for t in coverage.traits if (t.kind != INTENSITIES) == strips]
        height = _STRIP if strips else _CURVES
        rows += [(traits[i : i + _COLUMNS], height) for i in range(0, len(traits), _COLUMNS)]
    words = _words(coverage)
    heights = [_HEAD, *(height for _, height in rows), _LINE * (len(words) + 1)]
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights)
    _head(
        parts[0],
        f"{title}: {len(coverage.labeled)} labeled, {len(coverage.unlabeled)} unlabeled scans",
    )
    for part, (shown, _) in zip(parts[1:-1], rows, strict=True):
        axes = part.subplots(1, _COLUMNS)
        for axis, trait in zip(axes, shown, strict=False):
            (_curves if trait.kind == INTENSITIES else _strip)(axis, trait, coverage)
        for axis in axes[len(shown) :]:
            axis.set_visible(False)
    parts[-1].text(0.01, 0.95, "\n".join(words), va="top", fontsize=8.5, linespacing=1.3)
    return figure


def _head(part: SubFigure, title: str) -> None:
    part.text(0.01, 0.72, title, fontsize=12, weight="bold", va="center")
    marks = [
        Line2D([], [], color=LABELED, marker="o", markersize=5, label="labeled"),
        Line2D([], [], color=UNLABELED, marker="o", markersize=5, label="unlabeled"),
        Line2D([], [], color=OUTSIDE, marker="o", markersize=5, label="unlabeled, outside"),
        Line2D([], [], color=OUTSIDE, ls=":", label="channels exchanged"),
        Patch(color=WITHIN, label="counts as within (curves: in the mean)"),
    ]
    part.legend(handles=marks, loc="lower left", ncols=len(marks), frameon=False, fontsize=9)


def _strip(axis: Axes, trait: Trait, coverage: Coverage) -> None:
    """Draw one number of each scan as a dot: labeled ones above unlabeled ones."""
    outside = coverage.outside(trait)
    within = trait.shown(np.array([trait.low[0] - trait.limit, trait.high[0] + trait.limit]))
    axis.axvspan(*within, color=WITHIN, lw=0)
    labeled, unlabeled = trait.shown(trait.labeled[:, 0]), trait.shown(trait.unlabeled[:, 0])
    axis.scatter(labeled, 1 + _spread(len(labeled)), s=12, color=LABELED, alpha=0.7)
    others = np.setdiff1d(np.arange(len(unlabeled)), outside)
    spread = _spread(len(unlabeled))
    axis.scatter(unlabeled[others], spread[others], s=12, color=UNLABELED, alpha=0.7)
    axis.scatter(unlabeled[outside], spread[outside], s=16, color=OUTSIDE)
    for low_side in (True, False):
        side = [n for n in outside if (trait.unlabeled[n, 0] < trait.low[0]) == low_side]
        place, align = (0.01, "left") if low_side else (0.99, "right")
        style = {"ha": align, "va": "bottom", "fontsize": 8, "color": OUTSIDE}
        axis.text(place, 0.01, _names(coverage, side, 2), transform=axis.transAxes, **style)
    values = np.concatenate([labeled, unlabeled, within])
    if values.max() > _LOGARITHMIC * values.min():
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_ylim(-1.1, 1.6)
    axis.set_yticks([0, 1], ["unlabeled", "labeled"], fontsize=8)
    axis.set_title(f"{trait.kind}, {trait.name} ({trait.unit})", fontsize=9.5, loc="left")
    _plain(axis)


def _curves(axis: Axes, trait: Trait, coverage: Coverage) -> None:
    """Draw the quantiles of each scan as a curve."""
    outside = coverage.outside(trait)
    others = np.setdiff1d(np.arange(len(coverage.unlabeled)), outside)
    low, high = trait.shown(trait.low - trait.limit), trait.shown(trait.high + trait.limit)
    axis.fill_between(SHOWN_LEVELS, low, high, color=WITHIN, lw=0)
    exchanged = [n for n in others if coverage.unlabeled[n] in coverage.exchanged]
    for rows, color, width, style in (
        (trait.unlabeled[np.setdiff1d(others, exchanged)], UNLABELED, 0.6, "-"),
        (trait.labeled, LABELED, 0.9, "-"),
        (trait.unlabeled[exchanged], OUTSIDE, 1.2, ":"),
        (trait.unlabeled[outside], OUTSIDE, 1.2, "-"),
    ):
        if len(rows):
            axis.plot(SHOWN_LEVELS, trait.shown(rows).T, color=color, lw=width, ls=style)
    axis.set_xlim(SHOWN_LEVELS[0], SHOWN_LEVELS[-1])
    axis.set_xticks([0.05, 0.25, 0.5, 0.75, 0.95])
    axis.xaxis.set_major_formatter("{x:.0%}")
    axis.set_xlabel("share of the voxels below", fontsize=8.5)
    axis.set_ylabel(trait.unit or "value", fontsize=8.5)
    axis.set_title(f"{trait.kind}, channel {trait.name}", fontsize=9.5, loc="left")
    text = _names(coverage, outside, _NAMED, "\n")
    axis.text(0.02, 0.97, text, transform=axis.transAxes, va="top", fontsize=8, color=OUTSIDE)
    _plain(axis)


def _plain(axis: Axes) -> None:
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _spread(number: int) -> np.ndarray:
    """Return small heights that keep dots of equal values apart, the same ones each time."""
    heights: np.ndarray = np.random.default_rng(0).uniform(-0.28, 0.28, number)
    return heights


def _names(coverage: Coverage, numbers: Sequence[int], most: int, between: str = ", ") -> str:
    """Return the first few names, long ones shortened in their middle, and how many more."""
    names = [_short(coverage.unlabeled[number]) for number in numbers[:most]]
    more = len(numbers) - most
    return between.join([*names, *([f"and {more} more"] if more > 0 else [])])


def _short(name: str) -> str:
    half = (_NAME - 1) // 2
    return name if len(name) <= _NAME else f"{name[:half]}…{name[-half:]}"


def _words(coverage: Coverage) -> list[str]:
    """Return lines of text below the panels."""
    texts = coverage_warnings(coverage) or ["No unlabeled scan is outside in any of these."]
    usual = Counter(coverage.axes[case] for case in coverage.labeled).most_common(1)[0][0]
    for code, number in Counter(coverage.axes.values()).items():
        cases = [case for case, axes in coverage.axes.items() if axes == code]
        labeled = sum(case in coverage.labeled for case in cases)
        listed = f": {named(cases)}" if code != usual else ""
        if code:
            texts.append(f"axes {code}: {labeled} labeled, {number - labeled} unlabeled{listed}")
    capital = [text[0].upper() + text[1:] for text in texts]
    return [line for text in capital for line in [*textwrap.wrap(text, _LETTERS), ""]]
