"""Doubt of the mean of predictions: its entropy where the foreground is expected.

The entropy of the mean over predictions is that of deep ensembles (Lakshminarayanan et al., NeurIPS
2017, arXiv 1612.01474). Its mean over all voxels would tell the size of the background; here each
voxel counts by the probability of the class:
    score(c) = sum_v H(v) p_c(v) / sum_v p_c(v)
so that it is defined for scans in which nothing is predicted, too.
"""

from __future__ import annotations

import math

from torch import Tensor


def expected_entropy(entropy: Tensor, probability: Tensor) -> float:
    """Return the mean entropy of a class's voxels, each weighted by its probability; 0 to 1.

    Args:
        entropy: ``(*spatial)``, normalised.
        probability: ``(*spatial)`` of the class.
    """
    weight = probability.double()
    return float((entropy.double() * weight).sum() / weight.sum().clamp_min(1e-12))


def foreground_probability(probabilities: Tensor, regions: bool) -> Tensor:
    """Return the probability ``(*spatial)`` of any class, of regions that of the likeliest.

    Args:
        probabilities: ``(K, *spatial)``; without regions the first is the background's.
        regions: outputs are overlapping regions.
    """
    return probabilities.amax(0) if regions else 1 - probabilities[0]


def doubtful_entropy(confidence: float, heads: int, regions: bool) -> float:
    """Return the normalised entropy of a voxel that two classes share at ``confidence``.

    With two classes, the voxels above it are those whose class has a lower probability than
    ``confidence``. Of regions, it is that of a voxel with one of them in such doubt.

    Args:
        confidence: between 0.5 and 1.
        heads: outputs of the network.
        regions: outputs are overlapping regions.
    """
    other = 1 - confidence
    binary = -sum(p * math.log(p) for p in (confidence, other) if p > 0)
    return binary / (heads * math.log(2)) if regions else binary / math.log(heads)
