"""Losses on how groups of queries share the voxels; computed in float32.

[0] Yuan et al., Devil is in the queries: advancing mask transformers for real-world medical image
    segmentation and out-of-distribution localization (MaxQuery), CVPR 2023, arXiv 2304.00212.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nnunet_semisup.losses.consistency import masked_mean
from nnunet_semisup.losses.precision import float32
from nnunet_semisup.losses.targets import PseudoLabel


def group_sizes(queries: int, groups: int) -> list[int]:
    """Return how many queries each group has, which lie side by side.

    The first, the background's, has half of them and what remains; the others are equal.

    Args:
        queries: their number, at least twice that of the groups.
        groups: 2 or more.
    """
    each = queries // 2 // (groups - 1)
    return [queries - each * (groups - 1), *[each] * (groups - 1)]


@float32
def group_log_shares(masks: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return log-probabilities ``(B, G, *spatial)`` that a voxel belongs to a group of queries.

    ``log sum over the group of softmax(masks)``, without the softmax, which could be 0.

    Args:
        masks: ``(B, N, *spatial)`` logits.
        sizes: of the G groups.
    """
    parts = [part.logsumexp(1) for part in masks.split(list(sizes), 1)]
    return torch.stack(parts, 1) - masks.logsumexp(1, keepdim=True)


def group_labels(label: PseudoLabel, regions: bool) -> PseudoLabel:
    """Return the group that each voxel belongs to, ``(B, 1, *spatial)``.

    A class is a group. Of regions, the last one that a voxel lies in is, as nnU-Net writes them
    into a label map, and 0 where it lies in none.

    Args:
        label: of classes or regions.
        regions: which of both.
    """
    if not regions:
        return label
    target, weight = label
    numbers = torch.arange(1, target.shape[1] + 1, device=target.device)
    numbered = target * numbers.reshape(1, -1, *[1] * (target.ndim - 2))
    return PseudoLabel(numbered.amax(1, keepdim=True).long(), weight[:, :1])


def query_distribution_loss(
    layers: Sequence[Tensor], label: PseudoLabel, sizes: Sequence[int]
) -> Tensor:
    """Return the negative log-probability of the voxels' groups, a mean over voxels and layers.

    [0], query distribution loss, without matching, as DK-UXNet has it; there a sum over the voxels.

    Args:
        layers: mask logits ``(B, N, *spatial)``, of any resolution each.
        label: groups at full resolution; voxels without weight do not count.
        sizes: of the groups.
    """
    losses = []
    for masks in layers:
        target, weight = label.resized(masks.shape[2:])
        surprise = -group_log_shares(masks, sizes).gather(1, target)
        losses.append(masked_mean(surprise, weight))
    return torch.stack(losses).mean()
