"""Category-wise semantic alignment: the visual prototype of a class meets its text.

[0] Text-SemiSeg, MICCAI 2025, arXiv 2507.12382, section 2.2, equation 4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.activation import hard_labels, probabilities
from nnunet_semisup.losses.precision import float32

EPSILON = 1e-6


@float32
def semantic_alignment(
    features: Tensor, logits: Tensor, text: Tensor, regions: bool, valid: Tensor | None = None
) -> Tensor:
    """Return ``mean over b, k of |v_bk - t_k|^2`` of unit vectors ([0], equation 4).

    ``v_bk`` is the features' mean over the voxels predicted as class ``k``, weighted by its
    probability. Deviates from [0], which averages the product of features and probability over the
    whole map: here the mean is the class's own, so that a small class has no short vector; other
    voxels do not count, since the little probability that softmax leaves in each of them outweighs
    a small class together; both sides have unit length; and a class that no voxel of an image is
    predicted as is left out. Gradients flow into all three tensors.

    Args:
        features: ``(B, D, *grid)``.
        logits: ``(B, K, *spatial)``, brought to the grid by averaging the probabilities.
        text: ``(K, D)``.
        regions: sigmoid channels instead of softmax.
        valid: ``(B, 1, *spatial)`` bool; voxels where it is false do not count.

    Returns:
        A scalar in [0, 4]; 0 where no class is predicted at all.
    """
    probs = probabilities(logits, regions)
    counted = predicted_classes(probs, regions)
    if valid is not None:
        counted = counted & valid
    pool: Any = F.adaptive_avg_pool3d if probs.ndim == 5 else F.adaptive_avg_pool2d
    masks = pool(probs * counted, features.shape[2:]).flatten(2)
    mass = masks.sum(-1)
    prototypes = masks @ features.flatten(2).transpose(1, 2) / (mass.unsqueeze(-1) + EPSILON)
    prototypes = F.normalize(prototypes, dim=-1, eps=EPSILON)
    distance = (prototypes - F.normalize(text, dim=-1, eps=EPSILON)).square().sum(-1)
    shown = counted.flatten(2).any(-1).to(distance.dtype)
    return (distance * shown).sum() / shown.sum().clamp_min(1.0)


def predicted_classes(probs: Tensor, regions: bool) -> Tensor:
    """Mark the class that each voxel is predicted as.

    Args:
        probs: ``(B, K, *spatial)``.
        regions: channels are decided one by one (above 0.5) instead of by the greatest.

    Returns:
        ``(B, K, *spatial)`` bool.
    """
    predicted = hard_labels(probs, regions)
    if regions:
        return predicted.bool()
    classes = torch.arange(probs.shape[1], device=probs.device)
    return predicted == classes.view(1, -1, *[1] * (probs.ndim - 2))
