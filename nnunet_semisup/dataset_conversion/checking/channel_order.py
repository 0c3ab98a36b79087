"""Channels of a scan that are in another order than in the labeled ones, by their intensities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from nnunet_semisup.dataset_conversion.checking.intensities import Display, Intensities

_LEAST_GAIN = 0.2
"""Mean distance of quantiles, in standard deviations, by which another order has to fit better."""
_MUCH_BETTER = 0.5
"""Part of the distance in the order of the files that may be left in the other one."""


def exchanged_channels(
    labeled: Sequence[Sequence[Intensities]],
    unlabeled: Sequence[Sequence[Intensities]],
    displays: Sequence[Display],
    one_scale: bool = False,
) -> list[tuple[int, ...] | None]:
    """Return, for each unlabeled scan, which labeled channel each of its channels looks like.

    Args:
        labeled: the channels of each labeled scan.
        unlabeled: likewise.
        displays: how each channel is shown.
        one_scale: whether the channels of a scan can be compared by their values, as colours can.

    Returns:
        ``None`` for a scan whose channels look like their own, and where nothing tells: one of
        them has one value only, channels look alike, or labeled scans differ as much.
    """
    channels = range(len(displays))
    known = [_seen(case, displays, one_scale) for case in labeled]
    known = [seen for seen in known if not np.isnan(seen).any()]
    if len(displays) < 2 or not known:
        return [None] * len(unlabeled)
    usual = np.median([seen[channels, channels] for seen in known], axis=0)
    natural = max(_best(seen, usual)[0] for seen in known)
    least = max(natural, _LEAST_GAIN * (1 + 1 / len(known)))
    found = [_best(_seen(case, displays, one_scale), usual) for case in unlabeled]
    return [order if gain > least else None for gain, order in found]


def _seen(case: Sequence[Intensities], displays: Sequence[Display], one_scale: bool) -> np.ndarray:
    """Return quantiles ``(channels, places, levels)`` of each channel in the place of each."""
    if not one_scale:
        return np.array([[display.of(channel) for display in displays] for channel in case])
    boxes = [channel.box for channel in case]
    mean = float(np.mean([box.mean for box in boxes]))
    squares = [box.deviation**2 + (box.mean - mean) ** 2 for box in boxes]
    scale = float(np.sqrt(np.mean(squares))) or np.nan
    seen = [(box.quantiles[1:-1] - mean) / scale for box in boxes]
    return np.repeat(np.array(seen)[:, None], len(displays), axis=1)


def _best(seen: np.ndarray, usual: np.ndarray) -> tuple[float, tuple[int, ...]]:
    """Return by how much a moved channel fits better in the best order, or 0, and that order."""
    distances = np.abs(seen - usual).mean(axis=-1)
    own = tuple(range(len(usual)))
    if np.isnan(distances).any():
        return 0.0, own
    order = linear_sum_assignment(distances)[1]
    moved = [channel for channel in own if order[channel] != channel]
    if not moved:
        return 0.0, own
    before, after = distances[moved, moved].mean(), distances[moved, order[moved]].mean()
    gain = float(before - after) if after <= _MUCH_BETTER * before else 0.0
    return gain, tuple(int(place) for place in order)
