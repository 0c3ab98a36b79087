"""Weights as functions of the fraction of training done, so that they fit any budget."""

from __future__ import annotations

import math


def sigmoid_rampup(progress: float, length: float) -> float:
    """Return ``exp(-5 (1 - p)^2)``, ``p = min(progress / length, 1)``; 1 where ``length`` is 0.

    Laine and Aila, Temporal ensembling, ICLR 2017, section 3 ("Gaussian ramp-up curve"). It is
    ``exp(-5)``, not 0, at the start.

    Args:
        progress: fraction of training done, in [0, 1].
        length: fraction of training that the ramp takes.
    """
    if length <= 0:
        return 1.0
    phase = min(max(progress / length, 0.0), 1.0)
    return math.exp(-5.0 * (1.0 - phase) ** 2)


def linear_rampup(progress: float, length: float) -> float:
    """Return ``min(progress / length, 1)``; 1 where ``length`` is 0."""
    return 1.0 if length <= 0 else min(max(progress / length, 0.0), 1.0)
