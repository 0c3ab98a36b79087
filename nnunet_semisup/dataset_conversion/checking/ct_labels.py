"""Checks that a label lies where it should on a CT scan.

A label that is turned over against its image has the right size and header and still is wrong.
Hounsfield units tell: of the label as it is and its seven mirror images, the right one covers the
organ's tissue best. The thresholds are this package's own, and generous: the test refuses
what is clearly wrong and lets pass what it cannot decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.ndimage import generate_binary_structure
from scipy.ndimage import label as connected_components

_AXES = ("z", "y", "x")
_CLEARLY_BETTER = 0.5


@dataclass(frozen=True)
class Tissue:
    """Hold the Hounsfield units that a structure consists of.

    Args:
        name: of the structure.
        low: lowest value.
        high: highest value.
        tolerated: share of the label that may lie outside without suspicion.
    """

    name: str
    low: float
    high: float
    tolerated: float


def orientation_faults(image: np.ndarray, label: np.ndarray, tissue: Tissue) -> list[str]:
    """Return why a label seems to be mirrored against its image, if it does.

    Args:
        image: Hounsfield units of shape ``(z, y, x)``.
        label: of the same shape; everything but 0 belongs to the structure.
        tissue: what the structure consists of.
    """
    inside = np.nonzero(label)
    if not inside[0].size:
        return []
    given = _misfit(image, inside, tissue)
    if given <= tissue.tolerated:
        return []
    mirrored = {
        flips: _misfit(image, _flip(inside, flips, image.shape), tissue)
        for flips in product((False, True), repeat=3)
        if any(flips)
    }
    best = min(mirrored, key=mirrored.__getitem__)
    if mirrored[best] > _CLEARLY_BETTER * given:
        return []
    axes = " and ".join(axis for axis, flip in zip(_AXES, best, strict=True) if flip)
    return [
        f"{given:.0%} of the label lies outside {tissue.name} ({tissue.low:g} to {tissue.high:g} "
        f"HU), but only {mirrored[best]:.0%} if it is mirrored along {axes}: image and label are "
        "oriented differently. Convert both with the same tool, or take the original files"
    ]


def _misfit(image: np.ndarray, inside: tuple[np.ndarray, ...], tissue: Tissue) -> float:
    """Return the share of the voxels with indices ``inside`` that are not of the tissue."""
    values = image[inside]
    return float(np.mean((values < tissue.low) | (values > tissue.high)))


def _flip(
    inside: tuple[np.ndarray, ...], flips: Iterable[bool], shape: tuple[int, ...]
) -> tuple[np.ndarray, ...]:
    """Return the indices after the array is mirrored along some axes."""
    return tuple(
        size - 1 - index if flip else index
        for index, flip, size in zip(inside, flips, shape, strict=True)
    )


def share_below(image: np.ndarray, label: np.ndarray, value: float) -> float:
    """Return the share of a label's voxels darker than ``value``; 0 for an empty label."""
    values = image[label != 0]
    return float(np.mean(values < value)) if values.size else 0.0


def largest_component_share(label: np.ndarray) -> float:
    """Return the share of the foreground in its largest connected part, diagonals included."""
    inside = np.nonzero(label)
    if not inside[0].size:
        return 0.0
    box = tuple(slice(int(index.min()), int(index.max()) + 1) for index in inside)
    parts, _ = connected_components(label[box] != 0, generate_binary_structure(label.ndim, 3))
    sizes = np.bincount(parts.ravel())[1:]
    return float(sizes.max() / sizes.sum())
