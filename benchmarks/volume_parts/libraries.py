"""Measure two masks with this package and with other libraries, each by its fastest functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from rows import Row, allowed

from nnunet_semisup.evaluation.metrics import compute_metrics

Values = dict[str, float]
Pair = tuple[np.ndarray, np.ndarray]
Spacing = Sequence[float]
MOST_DIFFERENCE = {"MedPy": 1e-9, "MONAI": 1e-5, "surface-distance": 1e-9, "panoptica": 1e-9}
"""Of values whose definition is the same; MONAI counts in 32 bits."""


def ours(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> Values:
    """Return the five metrics of two boolean masks ``(z, y, x)``."""
    return compute_metrics(prediction, reference, spacing).values


def by_medpy(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> Values:
    """Return MedPy's; all five have the same definition."""
    from medpy.metric import binary

    return {
        "Dice": binary.dc(prediction, reference),
        "Jaccard": binary.jc(prediction, reference),
        "HD95": binary.hd95(prediction, reference, spacing),
        "ASD": binary.assd(prediction, reference, spacing),
        "ASD_directed": binary.asd(prediction, reference, spacing),
    }


def by_monai(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> Values:
    """Return MONAI's; its HD95 is the larger of two directed ones and left out afterwards."""
    import torch
    from monai import metrics

    one, other = (torch.from_numpy(mask)[None, None] for mask in (prediction, reference))
    surface = {"include_background": True, "spacing": list(spacing)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "Dice": float(metrics.compute_dice(one.float(), other.float())),
            "Jaccard": float(metrics.compute_iou(one.float(), other.float())),
            "other HD95": float(
                metrics.compute_hausdorff_distance(one, other, percentile=95, **surface)
            ),
            "ASD": float(
                metrics.compute_average_surface_distance(one, other, symmetric=True, **surface)
            ),
        }


def by_surface_distance(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> Values:
    """Return surface-distance's; its distances are weighted by area and left out afterwards."""
    import surface_distance

    found = surface_distance.compute_surface_distances(reference, prediction, spacing)
    return {
        "Dice": float(surface_distance.compute_dice_coefficient(reference, prediction)),
        "other HD95": float(surface_distance.compute_robust_hausdorff(found, 95)),
        "other ASD": float(surface_distance.compute_average_surface_distance(found)[0]),
    }


def by_panoptica(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> Values:
    """Return panoptica's of matched masks; its ASSD, a mean of two means, is left out later."""
    from panoptica.metrics import Metric

    arrays = {"reference_arr": reference, "prediction_arr": prediction}
    return {
        "Dice": float(Metric.DSC(**arrays)),
        "Jaccard": float(Metric.IOU(**arrays)),
        "HD95": float(Metric.HD95(**arrays, voxelspacing=spacing)),
        "other ASD": float(Metric.ASSD(**arrays, voxelspacing=spacing)),
    }


@dataclass(frozen=True)
class Library:
    """Hold how to call a library, and how much of its time may be spent here.

    Attributes:
        module: that it is imported as.
        package: that brings it.
        measure: a pair of masks.
        limit: greatest ratio of processor times.
        times: calls, of which the fastest counts.
        slow: too slow for a scan of full size.
    """

    module: str
    package: str
    measure: Callable[[np.ndarray, np.ndarray, Spacing], Values]
    limit: float
    times: int = 3
    slow: bool = False


LIBRARIES = {
    "surface-distance": Library(
        "surface_distance", "surface-distance-based-measures", by_surface_distance, 1 / 5
    ),
    "MONAI": Library("monai", "monai", by_monai, 1 / 5, 2),
    "panoptica": Library("panoptica", "panoptica", by_panoptica, 1 / 5, 1, slow=True),
    "MedPy": Library("medpy", "medpy", by_medpy, 1 / 30, 1, slow=True),
}


def differences(pairs: Sequence[Pair], spacing: Spacing) -> list[Row]:
    """Return a row for each library: the greatest difference of what is defined alike."""
    found = []
    for name, library in LIBRARIES.items():
        if find_spec(library.module) is None:
            continue
        greatest = 0.0
        for pair in pairs:
            own, theirs = ours(*pair, spacing), library.measure(*pair, spacing)
            same = [abs(own[key] - value) for key, value in theirs.items() if key in own]
            greatest = max(greatest, *same)
        what = f"greatest difference from {name}"
        found.append(allowed(what, greatest, MOST_DIFFERENCE[name], ""))
    return found
