"""Intensities of a channel in a few numbers, as read and as nnU-Net shows them to a network.

nnU-Net 2.8.1 crops a scan to where it is not 0 and takes off each scan's own mean and deviation,
but from CT, whose window is one for all scans, and from colours. Where cropping leaves less than
three quarters of most scans, mean and deviation are those of the voxels that are not 0
(``default_normalization_schemes.py``, ``default_experiment_planner.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

import numpy as np

from nnunet_semisup.dataset_conversion.checking.values import counts_fast, value_counts

LEVELS = np.linspace(0, 1, 21)
"""Of the quantiles that are kept; the first and the last are the lowest and the highest value."""
SHOWN_LEVELS = LEVELS[1:-1]
FOREGROUND_PERCENT = (0.5, 99.5)
"""Between them lies what nnU-Net shows of CT."""
_MASKED_BELOW = 0.75
_WINDOW_DEVIATIONS = 2 * NormalDist().inv_cdf(FOREGROUND_PERCENT[1] / 100)
"""Standard deviations in such a window, of normally distributed values."""
_SAMPLED = 200_000
"""Voxels, drawn with one seed; the share of voxels below a quantile is then right to 0.2 %."""


@dataclass(frozen=True)
class Summary:
    """Hold quantiles at :data:`LEVELS`, mean and standard deviation of voxels."""

    quantiles: np.ndarray
    mean: float
    deviation: float

    @classmethod
    def of(cls, values: np.ndarray, counts: np.ndarray, extremes: Sequence[float]) -> Summary:
        """Summarise voxels; ``extremes`` are the lowest and the highest of all.

        Args:
            values: sorted, each once, as floating point.
            counts: how many voxels have each of them; at least one voxel has any.
            extremes: values that ``values`` may lack if they are those of a sample.
        """
        last = np.cumsum(counts)
        number = int(last[-1])
        place = LEVELS * (number - 1)
        below = place.astype(np.int64)
        low, high = (
            values[np.searchsorted(last, np.minimum(below + step, number - 1), side="right")]
            for step in (0, 1)
        )
        quantiles = low + (high - low) * (place - below)
        quantiles[[0, -1]] = extremes
        mean = float(values @ counts) / number
        return cls(quantiles, mean, float(np.sqrt((values - mean) ** 2 @ counts / number)))


@dataclass(frozen=True)
class Intensities:
    """Hold what is kept of one channel.

    Attributes:
        kept: share of its voxels within the box outside of which all are 0.
        box: all voxels of that box.
        masked: those of them that are not 0.
    """

    kept: float
    box: Summary
    masked: Summary


@dataclass(frozen=True)
class Display:
    """Say how nnU-Net shows one channel to a network.

    Attributes:
        scheme: name of its class of normalisation.
        masked: whether zeros count for nothing.
        window: of CT; ``None`` where it is not known.
        unit: one step of the values that :meth:`of` returns, in those of the files, or in parts of
            a scan's range.
    """

    scheme: str
    masked: bool
    window: tuple[float, float] | None
    unit: float = 1.0

    @property
    def per_scan(self) -> bool:
        """Return whether each scan has its own scale, so that those of files do not matter."""
        return self.scheme in ("ZScoreNormalization", "RescaleTo01Normalization")

    @property
    def unit_name(self) -> str:
        """Return what :meth:`read` returns, in words."""
        return {
            "ZScoreNormalization": "standard deviations from its mean",
            "RescaleTo01Normalization": "of its range",
        }.get(self.scheme, "")

    def of(self, channel: Intensities) -> np.ndarray:
        """Return the quantiles at :data:`SHOWN_LEVELS` in units; NaN of a channel of one value."""
        summary = channel.masked if self.masked else channel.box
        low, *inner, high = summary.quantiles
        quantiles = np.array(inner)
        if low == high:
            return np.full_like(quantiles, np.nan)
        if self.scheme == "ZScoreNormalization":
            return (quantiles - summary.mean) / max(summary.deviation, np.finfo(float).tiny)
        if self.scheme == "RescaleTo01Normalization":
            quantiles = (quantiles - low) / (high - low)
        if self.window is not None:
            quantiles = quantiles.clip(*self.window)
        return quantiles / self.unit

    def read(self, values: np.ndarray) -> np.ndarray:
        """Return what :meth:`of` gave in the unit of files, where all scans share that."""
        return values if self.scheme == "ZScoreNormalization" else values * self.unit


def intensities_of(channel: np.ndarray) -> Intensities:
    """Look at the voxels ``(*spatial)`` of one channel, of which none is NaN or infinite."""
    shown = channel[_box(channel)]
    found, counts = value_counts(shown if counts_fast(shown.dtype) else _sample(shown))
    values = found.astype(np.float64)
    extremes = float(shown.min()), float(shown.max())
    whole = Summary.of(values, counts, extremes)
    inner, counts = values[values != 0], counts[values != 0]
    masked = Summary.of(inner, counts, (inner[0], inner[-1])) if inner.size else whole
    return Intensities(shown.size / channel.size, whole, masked)


def foreground_window(image: np.ndarray, foreground: np.ndarray) -> tuple[float, float] | None:
    """Return between what values an image lies where a mask is; ``None`` without foreground."""
    if image.shape != foreground.shape or not foreground.any():
        return None
    low, high = np.percentile(image[foreground], FOREGROUND_PERCENT)
    return float(low), float(high)


def display_of(
    scheme: str,
    labeled: Sequence[Intensities],
    kept: Sequence[float],
    windows: Sequence[tuple[float, float]],
) -> Display:
    """Return how a channel is shown, by what the labeled cases have.

    Args:
        scheme: name of nnU-Net's class of normalisation.
        labeled: the channel of each labeled case.
        kept: share of each labeled case that cropping leaves.
        windows: of the foreground of labeled cases, where the channel is CT and it is known. The
            one that holds them all is taken, nnU-Net's own lies within.
    """
    masked = scheme == "ZScoreNormalization" and median(kept) < _MASKED_BELOW
    if scheme == "ZScoreNormalization":
        return Display(scheme, masked, None)
    if scheme == "CTNormalization" and windows:
        low, high = min(w[0] for w in windows), max(w[1] for w in windows)
        if low < high:
            return Display(scheme, masked, (low, high), (high - low) / _WINDOW_DEVIATIONS)
    spread = [one.box.deviation for one in labeled]
    if scheme == "RescaleTo01Normalization":
        ranges = [one.box.quantiles[-1] - one.box.quantiles[0] for one in labeled]
        spread = [s / r if r else 0.0 for s, r in zip(spread, ranges, strict=True)]
    return Display(scheme, masked, None, median(spread) or 1.0)


def _box(channel: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box that holds every voxel that is not 0; all where none is."""
    shown = channel != 0
    slices = []
    for axis in range(channel.ndim):
        along = np.flatnonzero(shown.any(axis=tuple(a for a in range(channel.ndim) if a != axis)))
        slices.append(slice(along[0], along[-1] + 1) if along.size else slice(None))
    return tuple(slices)


def _sample(array: np.ndarray) -> np.ndarray:
    """Return some of the voxels, all where they are few."""
    if array.size <= _SAMPLED:
        return array.ravel()
    drawn = np.random.default_rng(0).integers(0, array.size, _SAMPLED)
    voxels: np.ndarray = array[np.unravel_index(drawn, array.shape)]
    return voxels
