"""Category-wise semantic alignment: the visual prototype of a class meets its text.

[0] Text-SemiSeg, MICCAI 2025, arXiv 2507.12382, section 2.2, equation 4.
[1] Li et al., VCLIPSeg, MICCAI 2024: the vision-text consistency module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.activation import hard_labels, probabilities
from nnunet_semisup.losses.consistency import quotient
from nnunet_semisup.losses.precision import float32
from nnunet_semisup.losses.targets import PseudoLabel, one_hot

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
    masks = _pooled(probs * counted, features.shape[2:]).flatten(2)
    mass = masks.sum(-1)
    prototypes = masks @ features.flatten(2).transpose(1, 2) / (mass.unsqueeze(-1) + EPSILON)
    prototypes = F.normalize(prototypes, dim=-1, eps=EPSILON)
    distance = (prototypes - F.normalize(text, dim=-1, eps=EPSILON)).square().sum(-1)
    shown = counted.flatten(2).any(-1).to(distance.dtype)
    return quotient((distance * shown).sum(), shown.sum())


def _pooled(masks: Tensor, grid: Sequence[int]) -> Tensor:
    pool: Any = F.adaptive_avg_pool3d if masks.ndim == 5 else F.adaptive_avg_pool2d
    return pool(masks, tuple(grid))


@float32
def class_means(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return each class's mean feature over a batch ``(K, D)``, and ``(K,)`` whether it has one.

    Args:
        features: ``(B, D, *grid)``.
        masks: ``(B, K, *spatial)``, brought to the grid by averaging; where a class lies.
    """
    masks = _pooled(masks.float(), features.shape[2:]).flatten(2)
    mass = masks.sum((0, 2))
    sums = torch.einsum("bkn,bdn->kd", masks, features.flatten(2))
    return sums / mass.clamp_min(EPSILON)[:, None], mass > 0


@float32
def text_dissimilarity(features: Tensor, masks: Tensor, text: Tensor) -> Tensor:
    """Return ``1 - mean over c of cos(v_c, t_c)`` ([1]), v_c the mean feature of class c.

    A class that lies nowhere is left out (released code: not a number). Gradients flow into
    features and text.

    Args:
        features: as of :func:`class_means`.
        masks: the same.
        text: ``(K, D)``.

    Returns:
        A scalar in [0, 2]; 0 where no class lies anywhere.
    """
    means, shown = class_means(features, masks)
    distance = 1.0 - F.cosine_similarity(means, text, dim=-1, eps=EPSILON)
    return (distance * shown).sum() / shown.sum().clamp_min(1)


@torch.no_grad()
def agreed_classes(outputs: Sequence[Tensor], label: PseudoLabel, regions: bool) -> Tensor:
    """Mark where every member predicts the class that the label says; ``(B, K, *spatial)`` bool.

    Args:
        outputs: of the members, ``(B, K, *spatial)`` logits.
        label: of the patches; voxels without weight do not count.
        regions: sigmoid channels instead of softmax.
    """
    agreed = one_hot(label.target, outputs[0].shape[1], regions).bool() & (label.weight > 0)
    for logits in outputs:
        agreed = agreed & predicted_classes(probabilities(logits, regions), regions)
    return agreed


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
