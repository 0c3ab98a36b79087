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
import numpy.typing as npt
from scipy.ndimage import binary_erosion, generate_binary_structure
from scipy.spatial import cKDTree

from nnunet_semisup.evaluation.cldice import cldice
from nnunet_semisup.evaluation.names import CLDICE, METRICS

Mask = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.float64]


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
    counts = int(reference.sum()), int(prediction.sum())
    overlap = int(np.count_nonzero(prediction & reference))
    total, union = sum(counts), sum(counts) - overlap
    if not union:
        values = dict.fromkeys(METRICS, math.nan)
    elif not all(counts):
        values = dict.fromkeys(METRICS, image_diagonal(reference.shape, spacing))
        values |= {"Dice": 0.0, "Jaccard": 0.0}
    else:
        to_reference, to_prediction = surface_distances(prediction, reference, spacing)
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
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int(np.count_nonzero(prediction & reference)) / total if total else math.nan


def jaccard(prediction: Mask, reference: Mask) -> float:
    """Return the Jaccard index of boolean masks of one shape; 0 if one is empty, NaN if both."""
    _check(prediction, reference, (1.0,) * prediction.ndim)
    union = int(np.count_nonzero(prediction | reference))
    return int(np.count_nonzero(prediction & reference)) / union if union else math.nan


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
    if not (prediction.any() and reference.any()):
        raise ValueError("surface distances need two non-empty masks")
    axes = _axes(reference.shape)
    box = _bounding_box(prediction | reference)
    scale = np.array([spacing[axis] for axis in axes], dtype=np.float64)
    dropped = tuple(axis for axis in range(reference.ndim) if axis not in axes)
    points = [
        np.argwhere(_surface(np.squeeze(mask[box], axis=dropped))) * scale
        for mask in (prediction, reference)
    ]
    trees = [cKDTree(p, balanced_tree=False, compact_nodes=False) for p in points]
    return trees[1].query(points[0])[0], trees[0].query(points[1])[0]


def _surface(mask: Mask) -> Mask:
    eroded = binary_erosion(mask, generate_binary_structure(mask.ndim, 1), border_value=0)
    return mask & ~eroded


def _axes(shape: Sequence[int]) -> list[int]:
    """Return the axes of more than one voxel, or the last one where there is none."""
    return [axis for axis, size in enumerate(shape) if size > 1] or [len(shape) - 1]


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Return a non-empty mask's smallest box, in which surfaces and distances are the same."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        hits = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return tuple(box)


def _check(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> None:
    if prediction.shape != reference.shape or prediction.ndim == 0:
        raise ValueError(f"masks of one shape expected, got {prediction.shape}, {reference.shape}")
    if prediction.dtype != np.bool_ or reference.dtype != np.bool_:
        raise ValueError(f"boolean masks expected, got {prediction.dtype}, {reference.dtype}")
    if len(spacing) != prediction.ndim or not all(0 < s < math.inf for s in spacing):
        raise ValueError(f"{prediction.ndim} positive spacings expected, got {tuple(spacing)}")
