"""Losses between a student's logits and a teacher's output. Computed in float32."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.activation import confidence, hard_labels, probabilities
from nnunet_semisup.losses.precision import float32


class PseudoLabel(NamedTuple):
    """What the student is asked to predict.

    Attributes:
        target: ``(B, 1, *spatial)`` int64 class numbers, or ``(B, C, *spatial)`` 0/1 for regions.
        weight: same shape, float; 0 where the label is not to be used.
    """

    target: Tensor
    weight: Tensor


@torch.no_grad()
def pseudo_label(
    logits: Tensor, regions: bool, threshold: float | None, valid: Tensor | None = None
) -> PseudoLabel:
    """Hard labels of the teacher with weight 1 where it is confident, else 0.

    A voxel below the threshold is left out; it never becomes background. (FixMatch, Sohn et al.,
    NeurIPS 2020, eq. 4, with labels per voxel.)

    Args:
        logits: ``(B, C, *spatial)`` of the teacher.
        regions: sigmoid channels instead of softmax.
        threshold: least confidence; ``None`` uses every voxel.
        valid: ``(B, 1, *spatial)`` bool, false in padding.
    """
    probs = probabilities(logits, regions)
    sure = confidence(probs, regions)
    weight = torch.ones_like(sure) if threshold is None else (sure >= threshold).float()
    if valid is not None:
        weight = weight * valid
    return PseudoLabel(hard_labels(probs, regions), weight)


@float32
def weighted_cross_entropy(logits: Tensor, label: PseudoLabel, regions: bool) -> Tensor:
    """Cross entropy (binary for regions) averaged over the weights; 0 where all weights are 0.

    Args:
        logits: ``(B, C, *spatial)``.
        label: targets and weights.
        regions: sigmoid channels instead of softmax.
    """
    if regions:
        loss = F.binary_cross_entropy_with_logits(logits, label.target.float(), reduction="none")
    else:
        loss = F.cross_entropy(logits, label.target[:, 0], reduction="none")[:, None]
    return (loss * label.weight).sum() / label.weight.sum().clamp_min(1.0)


@float32
def weighted_soft_dice(logits: Tensor, label: PseudoLabel, regions: bool) -> Tensor:
    """``1 - Dice`` of the foreground over the whole batch, voxels weighted; mean over the channels.

    Channels without target give about 1 and hardly any gradient, as in nnU-Net's soft Dice; 0 only
    where their summed probability is far below 1e-5. Sums run over the batch, because a
    pseudo-labeled patch often has no foreground at all.

    Args:
        logits: ``(B, C, *spatial)``; channel 0 is background and left out unless ``regions``.
        label: targets and weights.
        regions: sigmoid channels instead of softmax.
    """
    probs = probabilities(logits, regions)
    if regions:
        target = label.target.float()
    else:
        target = torch.zeros_like(probs).scatter_(1, label.target, 1.0)[:, 1:]
        probs = probs[:, 1:]
    axes = [0, *range(2, probs.ndim)]
    overlap = (probs * target * label.weight).sum(axes)
    total = ((probs + target) * label.weight).sum(axes)
    smooth = 1e-5
    return (1.0 - (2.0 * overlap + smooth) / (total + smooth)).mean()


@float32
def squared_difference(
    student: Tensor, teacher: Tensor, regions: bool, valid: Tensor | None = None
) -> Tensor:
    """Mean squared difference of the probabilities over voxels and channels.

    Args:
        student: ``(B, C, *spatial)`` logits.
        teacher: ``(B, C, *spatial)`` logits; no gradient flows into them.
        regions: sigmoid channels instead of softmax.
        valid: ``(B, 1, *spatial)`` bool; voxels where it is false are left out.
    """
    difference = probabilities(student, regions) - probabilities(teacher.detach(), regions)
    per_voxel = difference.square().mean(1, keepdim=True)
    if valid is None:
        return per_voxel.mean()
    return (per_voxel * valid).sum() / valid.sum().clamp_min(1)
