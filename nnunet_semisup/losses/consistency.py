"""Losses between what a network predicts and what it is asked to; computed in float32.

Sums run over the patches of all processes of a distributed training, so that each of them has the
loss of one process with all patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.precision import float32
from nnunet_semisup.losses.processes import over_processes
from nnunet_semisup.losses.targets import PseudoLabel, one_hot


@float32
def weighted_cross_entropy(
    logits: Tensor, label: PseudoLabel, regions: bool, among: Tensor | None = None
) -> Tensor:
    """Return the cross entropy (binary for regions) averaged over the weights; 0 where all are 0.

    Args:
        logits: ``(B, C, *spatial)``.
        label: targets and weights.
        regions: sigmoid channels instead of softmax.
        among: bool, ``(B, 1, *spatial)`` or one a channel, the voxels over whose number the
            weighted sum is averaged in place of the weights; 0 where there are none.
    """
    if regions:
        loss = F.binary_cross_entropy_with_logits(logits, label.target.float(), reduction="none")
    else:
        loss = F.cross_entropy(logits, label.target[:, 0], reduction="none")[:, None]
    counted = label.weight if among is None else among.expand_as(label.weight)
    return quotient((loss * label.weight).sum(), counted.sum())


@float32
def weighted_soft_dice(
    logits: Tensor,
    label: PseudoLabel,
    regions: bool,
    per_image: bool = False,
    background: bool = False,
) -> Tensor:
    """Return ``1 - Dice`` with weighted voxels, averaged over the channels.

    Channels without target give about 1 and hardly any gradient, as in nnU-Net's soft Dice; 0 only
    where their summed probability is far below 1e-5. Sums run over the whole batch by default,
    because a pseudo-labeled patch often has no foreground at all.

    Args:
        logits: ``(B, C, *spatial)``; channel 0 is background unless ``regions``.
        label: targets and weights.
        regions: sigmoid channels instead of softmax.
        per_image: a Dice for each image, averaged afterwards (BCP's rule).
        background: count channel 0 as well (BCP's rule); regions have none.
    """
    probs = probabilities(logits, regions)
    target = one_hot(label.target, probs.shape[1], regions)
    if not (regions or background):
        probs, target = probs[:, 1:], target[:, 1:]
    axes = list(range(2, probs.ndim)) if per_image else [0, *range(2, probs.ndim)]
    overlap = (probs * target * label.weight).sum(axes)
    total = ((probs + target) * label.weight).sum(axes)
    if not per_image:
        overlap, total = over_processes(torch.stack([overlap, total]))
    smooth = 1e-5
    return (1.0 - (2.0 * overlap + smooth) / (total + smooth)).mean()


def segmentation_loss(logits: Tensor, label: PseudoLabel, regions: bool) -> Tensor:
    """Return cross entropy plus soft Dice on the voxels with weight, as nnU-Net's own loss."""
    cross_entropy = weighted_cross_entropy(logits, label, regions)
    return cross_entropy + weighted_soft_dice(logits, label, regions)


@float32
def mean_square(one: Tensor, other: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean squared difference of two maps; gradient flows into both.

    Args:
        one: ``(B, C, *spatial)``, probabilities for instance.
        other: the same.
        valid: as of :func:`masked_mean`.
    """
    return masked_mean((one - other).square(), valid)


def masked_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean of a map over voxels and channels.

    Args:
        values: ``(B, C, *spatial)``.
        valid: bool, ``(B, 1, *spatial)`` or one a channel; where it is false nothing counts. 0
            where it is false everywhere.
    """
    if valid is None or valid.shape[1] == 1:
        values = values.mean(1, keepdim=True)
    if valid is None:
        return values.mean()
    return quotient((values * valid).sum(), valid.sum())


def quotient(total: Tensor, count: Tensor) -> Tensor:
    """Return a sum over a count, each over the patches of all processes; 0 where it counts none.

    Args:
        total: 0-d, of this process, like ``count``.
        count: voxels, or their weights.
    """
    total, count = over_processes(torch.stack([total, count.to(total.dtype)]))
    return total / count.clamp_min(1)


@float32
def squared_difference(
    student: Tensor, teacher: Tensor, regions: bool, valid: Tensor | None = None
) -> Tensor:
    """Return the mean squared difference of the probabilities over voxels and channels.

    Args:
        student: ``(B, C, *spatial)`` logits.
        teacher: ``(B, C, *spatial)`` logits; no gradient flows into them.
        regions: sigmoid channels instead of softmax.
        valid: as of :func:`mean_square`.
    """
    target = probabilities(teacher.detach(), regions)
    return mean_square(probabilities(student, regions), target, valid)


@float32
def dice_distance(one: Tensor, other: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return 1 minus the Dice of two soft masks, averaged over the channels; 0 for equal ones.

    ``1 - (2 sum p q + s) / (sum p^2 + sum q^2 + s)``, s 1e-5, with sums over the batch: the squares
    (V-Net's Dice, Milletari et al., 3DV 2016) make it a distance, unlike the sums of nnU-Net's.

    Args:
        one: ``(B, C, *spatial)`` probabilities, without the background's.
        other: the same.
        valid: ``(B, 1, *spatial)`` bool, false in padding.
    """
    if valid is not None:
        one, other = one * valid, other * valid
    axes = [0, *range(2, one.ndim)]
    sums = (one * other).sum(axes), (one.square() + other.square()).sum(axes)
    overlap, total = over_processes(torch.stack(sums))
    smooth = 1e-5
    return (1.0 - (2.0 * overlap + smooth) / (total + smooth)).mean()


def mutual_distance(
    probs: Sequence[Tensor], targets: Sequence[Tensor], valid: Tensor | None = None
) -> Tensor:
    """Return the sum of :func:`mean_square` over every member and every other member's target.

    MC-Net (MICCAI 2021), eq. 3, for any number of decoders: all ordered pairs, added.

    Args:
        probs: of at least two members, each ``(B, C, *spatial)``.
        targets: of the same members, such as their sharpened probabilities.
        valid: as of :func:`mean_square`.
    """
    pairs = permutations(range(len(probs)), 2)
    return torch.stack([mean_square(probs[i], targets[j], valid) for i, j in pairs]).sum()
