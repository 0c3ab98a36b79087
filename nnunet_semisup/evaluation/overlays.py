"""Draw a case: the image with the contours of labels, and how sure they are; one PNG a case."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.evaluate import CaseResult, Evaluation, class_mask
from nnunet_semisup.evaluation.inputs import (
    CasePair,
    LabelMap,
    Reader,
    SegmentationClass,
    is_2d,
    read_label_map,
)
from nnunet_semisup.evaluation.report import mean_dice
from nnunet_semisup.parallel import map_cases

Image = npt.NDArray[np.float32]
Box = tuple[tuple[int, int], ...]

SLICE_FRACTIONS = (0.25, 0.5, 0.75)
WINDOW_PERCENTILES = (1, 99)
SPACING_TOLERANCE = 1e-3
MAX_CLASSES_IN_TITLE = 4
PALETTE = ("#e6a700", "#1f9de0", "#e0457b", "#2fb24c", "#9b6be0", "#e06c1f", "#17b8b0", "#a8a800")
SINGLE_CLASS_COLORS = ("#2fd35c", "#ff4fa3")


@dataclass(frozen=True)
class _Job:
    pair: CasePair
    result: CaseResult
    image: Path
    reader: Reader
    classes: tuple[SegmentationClass, ...]
    target: Path


def find_images(names: Sequence[str], folder: Path, file_ending: str) -> dict[str, Path]:
    """Find the first-channel image ``CASE_0000`` of every case.

    Raises:
        UserError: the folder is missing or lacks images; all missing ones are listed.
    """
    if not folder.is_dir():
        raise UserError(f"the image folder '{folder}' is not a folder. Check --images.")
    images = {name: folder / f"{name}_0000{file_ending}" for name in names}
    missing = [path.name for path in images.values() if not path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} images are not in '{folder}': {', '.join(missing)}. Give the folder "
            "of the predicted images with --images, or leave --overlays out."
        )
    return images


def select_cases(evaluation: Evaluation, count: int | None) -> list[CaseResult]:
    """Return all cases, or the ``count`` of lowest mean Dice (undefined ones come last)."""
    if count is None:
        return list(evaluation.cases)

    def badness(case: CaseResult) -> float:
        value = mean_dice(case)
        return math.inf if math.isnan(value) else value

    return sorted(evaluation.cases, key=badness)[:count]


def write_overlays(
    evaluation: Evaluation,
    images: dict[str, Path],
    folder: Path,
    count: int | None = None,
    num_processes: int = 1,
) -> list[Path]:
    """Write ``CASE.png`` for the cases of :func:`select_cases` and return the paths.

    Raises:
        UserError: images are unreadable or of another size than their labels; all are listed and no
            picture is written.
    """
    pairs = {pair.name: pair for pair in evaluation.inputs.pairs}
    results = select_cases(evaluation, count)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    with tempfile.TemporaryDirectory(prefix=".overlays_", dir=existing) as temporary:
        jobs = [
            _Job(
                pairs[result.name],
                result,
                images[result.name],
                evaluation.inputs.reader,
                evaluation.classes,
                Path(temporary) / f"{result.name}.png",
            )
            for result in results
        ]
        names = [result.name for result in results]
        outcomes = map_cases(_write_overlay, jobs, names, num_processes, "Overlays")
        problems = [problem for problem in outcomes if problem]
        if problems:
            listed = "\n".join(f"  {problem}" for problem in problems)
            raise UserError(
                f"{len(problems)} images do not fit:\n{listed}\n"
                "No picture was drawn; check --images"
            )
        folder.mkdir(parents=True, exist_ok=True)
        for job in jobs:
            os.replace(job.target, folder / job.target.name)
    return [folder / job.target.name for job in jobs]


def draw_overlay(
    image: Image,
    reference: LabelMap | None,
    prediction: LabelMap,
    classes: Sequence[SegmentationClass],
    title: str,
    uncertainty: Image | None = None,
) -> Figure:
    """Draw the contours over three slices of a volume, or over a 2D image.

    The slices lie at a quarter, half and three quarters of the reference's extent, else of the
    prediction's, along the axis of the largest spacing (the first of equal ones). The view is cut
    to the labels' surroundings.

    Args:
        image: gray values ``(*spatial)``.
        reference: label map on the image's grid; ``None``: there is none.
        prediction: label map on the image's grid.
        classes: the classes to draw.
        title: title of the figure.
        uncertainty: values from 0 to 1 on the image's grid, laid over it.
    """
    drawn = {"reference": reference, "prediction": prediction}
    roles = {role: m for role, m in drawn.items() if m is not None}
    maps = [replace(m, labels=m.labels.reshape(image.shape)) for m in roles.values()]
    # Of all classes at once: a mask of the volume for each class would take much memory.
    any_class = SegmentationClass("", tuple({value for c in classes for value in c.values}))
    masks = [class_mask(m, any_class) for m in maps]
    axis, indices = _slices(image.shape, maps[0].spacing, masks)
    box = _view(image.shape, masks)
    in_plane = [a for a in range(image.ndim) if a != axis]
    pixel = [maps[0].spacing[a] for a in in_plane]
    sizes = [(box[a][1] - box[a][0]) * s for a, s in zip(in_plane, pixel, strict=True)]
    width = 4.5 * min(max(sizes[1] / sizes[0], 0.4), 2.5)
    figure = Figure(figsize=(max(width * len(indices), 5), 5.6), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(indices), squeeze=False)[0]
    window = np.percentile(image, WINDOW_PERCENTILES)
    for ax, index in zip(axes, indices, strict=True):
        at = (slice(None),) * (axis or 0) + (() if index is None else (index,))
        ax.imshow(
            image[at], cmap="gray", vmin=window[0], vmax=window[1], aspect=pixel[0] / pixel[1]
        )
        if uncertainty is not None:
            _heat(ax, uncertainty.reshape(image.shape)[at], pixel[0] / pixel[1])
        for number, c in enumerate(classes):
            styles = _styles(number, len(classes))
            for m, style in zip(maps, (styles[role] for role in roles), strict=True):
                _contour(ax, class_mask(replace(m, labels=m.labels[at]), c), *style)
        _frame(ax, [box[a] for a in in_plane], upright=axis in (1, 2))
        ax.set_title("" if index is None else f"slice {index} of axis {axis}", fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.legend(
        handles=_legend(classes, list(roles)), loc="outside lower center", ncols=4, fontsize=9
    )
    return figure


def _write_overlay(job: _Job) -> str | None:
    """Draw and save one case; return the reason if that is not possible."""
    try:
        image = read_image(job.image, job.reader)
    # Readers of many formats: each has its own exceptions for broken files.
    except Exception as error:
        return f"{job.pair.name}: '{job.image}' is not readable: {' '.join(str(error).split())}"
    reference = read_label_map(job.pair.reference, job.reader, trust_affine=True)
    prediction = read_label_map(job.pair.prediction, job.reader, trust_affine=True)
    if image.shape != reference.labels.shape:
        return f"{job.pair.name}: image has size {image.shape}, labels {reference.labels.shape}"
    # Of 3D tif the prediction may be what knows the spacing.
    reference = replace(reference, spacing=job.result.spacing)
    figure = draw_overlay(image, reference, prediction, job.classes, _title(job.result))
    figure.savefig(job.target, format="png")
    return None


def read_image(path: Path, reader: Reader) -> Image:
    """Read the gray values ``(*spatial)`` of an image file, the mean of its channels."""
    array, properties = reader().read_images([str(path)])
    gray: Image = array.astype(np.float32).mean(axis=0)
    return gray[0] if is_2d(properties) else gray


def _title(result: CaseResult) -> str:
    values = [(name, metrics.values["Dice"]) for name, metrics in result.classes.items()]
    shown = [f"{n} {_number(v)}" for n, v in values[:MAX_CLASSES_IN_TITLE]]
    if len(values) > 1:
        shown = [f"mean {_number(mean_dice(result))}", *shown]
    more = ", ..." if len(values) > MAX_CLASSES_IN_TITLE else ""
    return f"{result.name}   Dice: {', '.join(shown)}{more}"


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def _slices(
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    masks: Sequence[npt.NDArray[np.bool_]],
) -> tuple[int | None, list[int | None]]:
    """Return axis and indices of the slices, ``None`` for a 2D image.

    They span the reference's extent, else the prediction's, else the image's.
    """
    if len(shape) == 2:
        return None, [None]
    axis = next(a for a, s in enumerate(spacing) if s >= max(spacing) * (1 - SPACING_TOLERANCE))
    others = tuple(a for a in range(len(shape)) if a != axis)
    for mask in masks:
        hits = np.flatnonzero(mask.any(axis=others))
        if len(hits):
            break
    else:
        hits = np.arange(shape[axis])
    first, extent = int(hits[0]), int(hits[-1] - hits[0])
    indices: list[int | None] = [first + round(f * extent) for f in SLICE_FRACTIONS]
    return axis, list(dict.fromkeys(indices))


def _view(shape: tuple[int, ...], masks: Sequence[npt.NDArray[np.bool_]]) -> Box:
    """Return each axis's range to show: all labels with a margin, all of it without labels."""
    drawn = np.logical_or.reduce(masks)
    box = []
    for axis, size in enumerate(shape):
        hits = np.flatnonzero(drawn.any(axis=tuple(a for a in range(len(shape)) if a != axis)))
        low, high = (int(hits[0]), int(hits[-1]) + 1) if len(hits) else (0, size)
        margin = max(round(0.4 * (high - low)), size // 10)
        box.append((max(low - margin, 0), min(high + margin, size)))
    return tuple(box)


def _styles(number: int, count: int) -> dict[str, tuple[str, str]]:
    """Return color and line style of a class by the role of a label map."""
    several = PALETTE[number % len(PALETTE)]
    reference, prediction = SINGLE_CLASS_COLORS if count == 1 else (several, several)
    return {"reference": (reference, "solid"), "prediction": (prediction, "dashed")}


def _heat(ax: Axes, values: Image, aspect: float) -> None:
    """Lay values from 0, which is clear, to 1 over an image."""
    ax.imshow(
        values, cmap="inferno", vmin=0, vmax=1, alpha=0.6 * np.clip(values, 0, 1), aspect=aspect
    )


def _contour(ax: Axes, mask: npt.NDArray[np.bool_], color: str, style: str) -> None:
    """Draw the outline of a mask ``(rows, columns)``, closed where it meets the image's border."""
    if mask.any():
        rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
        padded = np.pad(mask.astype(float), 1)
        ax.contour(columns, rows, padded, [0.5], colors=color, linestyles=style, linewidths=1.4)


def _frame(ax: Axes, ranges: Sequence[tuple[int, int]], upright: bool) -> None:
    """Cut the view; ``upright`` shows the first row at the bottom, as fits a vertical body axis."""
    (top, bottom), (left, right) = ranges
    ax.set_xlim(left - 0.5, right - 0.5)
    ax.set_ylim((top - 0.5, bottom - 0.5) if upright else (bottom - 0.5, top - 0.5))
    ax.set_xticks([])
    ax.set_yticks([])


def _legend(classes: Sequence[SegmentationClass], roles: Sequence[str]) -> list[Line2D]:
    handles = []
    for number, c in enumerate(classes):
        styles = _styles(number, len(classes))
        for role in roles:
            color, line = styles[role]
            handles.append(Line2D([], [], color=color, linestyle=line, label=f"{c.name}, {role}"))
    return handles
