"""Measure overlap and surface distances of two binary masks, with one rule for empty masks.

Definitions, for a prediction P and a reference R:

* Dice = 2 |P and R| / (|P| + |R|), Jaccard = |P and R| / |P or R|.
* Surface: the voxels of a mask with a face neighbor outside of it; what lies beyond the image
  counts as outside. Distances run between voxel centers, in the unit of ``spacing``.
* HD95: the 95th percentile (linear interpolation) of the distances of both directions *pooled*.
  It equals ``medpy.metric.binary.hd95``, which published tables mostly use; the larger of the two
  directed percentiles, which MONAI takes, is another number and mostly larger.
* ASD: the mean of the distances of both directions pooled, equal to ``medpy.metric.binary.assd``.
* ASD_directed: the mean distance from the surface of P to that of R only, which is what
  ``medpy.metric.binary.asd`` and hence many tables report under the name ASD.
* clDice, on request: the harmonic mean of the share of P's skeleton in R and of R's in P.

Axes of one voxel (a 2D image stored as a volume of one slice) carry no surface and are dropped.

Rule for empty masks: with both empty every metric is undefined (NaN). With exactly one of them
empty Dice, Jaccard and clDice are 0 and each distance is the image's diagonal, which no distance
between two surfaces in that image can reach. So no metric ever prefers an empty prediction to a
wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_semisup.evaluation.cldice import cldice
from nnunet_semisup.evaluation.names import CLDICE, METRICS
from nnunet_semisup.evaluation.surfaces import (
    Distances,
    Mask,
    bounding_box,
    distances,
    enclosing,
)


@dataclass(frozen=True)
class MaskMetrics:
    """Hold the metrics of one class in one case; distances in the unit of the spacing.

    ``values`` has the keys of ``METRICS``, and clDice where it was asked for; all are NaN where
    both masks are empty.
    """

    values: dict[str, float]
    reference_voxels: int
    prediction_voxels: int

    @property
    def status(self) -> str:
        """Return ``both_present``, ``both_empty``, ``prediction_empty`` or ``reference_empty``."""
        if self.reference_voxels and self.prediction_voxels:
            return "both_present"
        if self.reference_voxels:
            return "prediction_empty"
        return "reference_empty" if self.prediction_voxels else "both_empty"


def compute_metrics(
    prediction: Mask, reference: Mask, spacing: Sequence[float], with_cldice: bool = False
) -> MaskMetrics:
    """Compute all metrics of two masks, by the definitions and the rule at the module's top.

    Args:
        prediction: boolean mask ``(*spatial)``, any number of axes.
        reference: boolean mask of the same shape.
        spacing: size of a voxel along each axis of the masks, usually in mm.
        with_cldice: compute clDice as well, which takes a skeleton of each mask.

    Raises:
        ValueError: the masks differ in shape or are not boolean, or the spacing has another length
            or a value that is not positive and finite.
    """
    _check(prediction, reference, spacing)
    pair = _Pair.cropped(prediction, reference)
    counts, overlap = pair.counts, pair.overlap
    total, union = sum(counts), sum(counts) - overlap
    if not union:
        values = dict.fromkeys(METRICS, math.nan)
    elif not all(counts):
        values = dict.fromkeys(METRICS, image_diagonal(reference.shape, spacing))
        values |= {"Dice": 0.0, "Jaccard": 0.0}
    else:
        to_reference, to_prediction = pair.surface_distances(spacing)
        pooled = np.concatenate((to_reference, to_prediction))
        values = {
            "Dice": 2 * overlap / total,
            "Jaccard": overlap / union,
            "HD95": float(np.percentile(pooled, 95)),
            "ASD": float(pooled.mean()),
            "ASD_directed": float(to_reference.mean()),
        }
    if with_cldice:
        values[CLDICE] = cldice(prediction, reference)
    return MaskMetrics(values, reference_voxels=counts[0], prediction_voxels=counts[1])


def dice(prediction: Mask, reference: Mask) -> float:
    """Return the Dice of two boolean masks of one shape; 0 if one is empty, NaN if both are."""
    _check(prediction, reference, (1.0,) * prediction.ndim)
    pair = _Pair.cropped(prediction, reference)
    total = sum(pair.counts)
    return 2 * pair.overlap / total if total else math.nan


def jaccard(prediction: Mask, reference: Mask) -> float:
    """Return the Jaccard index of boolean masks of one shape; 0 if one is empty, NaN if both."""
    _check(prediction, reference, (1.0,) * prediction.ndim)
    pair = _Pair.cropped(prediction, reference)
    union = sum(pair.counts) - pair.overlap
    return pair.overlap / union if union else math.nan


def hd95(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> float:
    """Return the pooled 95th percentile of surface distances; see :func:`compute_metrics`."""
    return compute_metrics(prediction, reference, spacing).values["HD95"]


def asd(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> float:
    """Return the symmetric average surface distance; see :func:`compute_metrics` for the rest."""
    return compute_metrics(prediction, reference, spacing).values["ASD"]


def image_diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Return the distance of opposite outer corners of the image, axes of one voxel left out."""
    axes = _axes(shape)
    return math.hypot(*(shape[axis] * spacing[axis] for axis in axes))


def surface_distances(
    prediction: Mask, reference: Mask, spacing: Sequence[float]
) -> tuple[Distances, Distances]:
    """Return the distance of each mask's surface voxels to the other mask's surface.

    Args:
        prediction: non-empty boolean mask ``(*spatial)``.
        reference: non-empty boolean mask of the same shape.
        spacing: size of a voxel along each axis.

    Returns:
        The distances from the prediction's surface to the reference's, ``(surface voxels of the
        prediction,)``, and the reverse, in the unit of ``spacing``.

    Raises:
        ValueError: one mask is empty, or as in :func:`compute_metrics`.
    """
    _check(prediction, reference, spacing)
    pair = _Pair.cropped(prediction, reference)
    if not all(pair.counts):
        raise ValueError("surface distances need two non-empty masks")
    return pair.surface_distances(spacing)


@dataclass(frozen=True)
class _Pair:
    """Hold two masks, cut to the box around both, in which every metric is the same.

    ``counts`` are the voxels of the reference and of the prediction; ``axes`` are those of more
    than one voxel before the cut.
    """

    prediction: Mask
    reference: Mask
    counts: tuple[int, int]
    axes: list[int]

    @classmethod
    def cropped(cls, prediction: Mask, reference: Mask) -> _Pair:
        """Cut two masks of one shape ``(*spatial)``; nothing is copied."""
        boxes = [box for mask in (prediction, reference) if (box := bounding_box(mask))]
        box = (slice(0),) * prediction.ndim if not boxes else enclosing(boxes[0], boxes[-1])
        one, other = prediction[box], reference[box]
        counts = int(np.count_nonzero(other)), int(np.count_nonzero(one))
        return cls(one, other, counts, _axes(prediction.shape))

    @property
    def overlap(self) -> int:
        """Return the number of voxels that the two have in common."""
        return int(np.count_nonzero(self.prediction & self.reference))

    def surface_distances(self, spacing: Sequence[float]) -> tuple[Distances, Distances]:
        """Return what :func:`surface_distances` does, of masks that are not empty."""
        dropped = tuple(axis for axis in range(self.reference.ndim) if axis not in self.axes)
        one, other = (np.squeeze(m, axis=dropped) for m in (self.prediction, self.reference))
        return distances(one, other, [float(spacing[axis]) for axis in self.axes])


def _axes(shape: Sequence[int]) -> list[int]:
    """Return the axes of more than one voxel, or the last one where there is none."""
    return [axis for axis, size in enumerate(shape) if size > 1] or [len(shape) - 1]


def _check(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> None:
    if prediction.shape != reference.shape or prediction.ndim == 0:
        raise ValueError(f"masks of one shape expected, got {prediction.shape}, {reference.shape}")
    if prediction.dtype != np.bool_ or reference.dtype != np.bool_:
        raise ValueError(f"boolean masks expected, got {prediction.dtype}, {reference.dtype}")
    if len(spacing) != prediction.ndim or not all(0 < s < math.inf for s in spacing):
        raise ValueError(f"{prediction.ndim} positive spacings expected, got {tuple(spacing)}")
