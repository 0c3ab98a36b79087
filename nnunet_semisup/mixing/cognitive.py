"""Dynamic cognitive augmentation: foregrounds change places between labeled and unlabeled.

[0] Text-SemiSeg, MICCAI 2025, arXiv 2507.12382, section 2.3, equations 5 and 6.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnunet_semisup.losses.consistency import PseudoLabel


def exchange_foreground(
    labeled: Tensor, label: PseudoLabel, unlabeled: Tensor, pseudo: PseudoLabel
) -> tuple[Tensor, PseudoLabel]:
    """Each image keeps its own foreground and takes the rest from its partner ([0], eq. 5, 6).

    [0] is written for one class; here the foreground is the union of all of them. Voxels that are
    not to be used (ignored, padding) are never foreground and keep weight 0 wherever they go.

    Args:
        labeled: ``(B, C, *spatial)``.
        label: of the labeled images.
        unlabeled: ``(B, C, *spatial)``; partners have the same place in the batch.
        pseudo: of the unlabeled images.

    Returns:
        The ``(2 B, C, *spatial)`` mixed images, those with labeled foreground first, and their
        labels.
    """
    own = torch.cat([labeled, unlabeled])
    other = torch.cat([unlabeled, labeled])
    target = torch.cat([label.target, pseudo.target])
    weight = torch.cat([label.weight, pseudo.weight])
    mask = torch.cat([foreground(label), foreground(pseudo)])
    return torch.where(mask, own, other), PseudoLabel(
        torch.where(mask, target, _swap(target)), torch.where(mask, weight, _swap(weight))
    )


def foreground(label: PseudoLabel) -> Tensor:
    """``(B, 1, *spatial)`` bool: any class or region, where the label is to be used."""
    return ((label.target > 0) & (label.weight > 0)).any(1, keepdim=True)


def labels_of_target(target: Any, ignore_label: int | None, regions: bool) -> PseudoLabel:
    """nnU-Net's target at full resolution as labels with weights, 0 where it says "ignore".

    Args:
        target: ``(B, 1, *spatial)`` class numbers; for regions ``(B, R, *spatial)`` 0/1, with an
            ignore label one more channel that is 1 where it applies; a list of them under deep
            supervision.
        ignore_label: its number, or ``None``.
        regions: one channel a region.
    """
    full: Tensor = target[0] if isinstance(target, (list, tuple)) else target
    if regions:
        if ignore_label is None:
            return PseudoLabel(full.float(), torch.ones_like(full, dtype=torch.float32))
        weight = 1.0 - full[:, -1:].float()
        return PseudoLabel(full[:, :-1].float(), weight.expand_as(full[:, :-1]))
    classes = full.long()
    if ignore_label is None:
        return PseudoLabel(classes, torch.ones_like(classes, dtype=torch.float32))
    ignored = classes == ignore_label
    return PseudoLabel(classes.masked_fill(ignored, 0), (~ignored).float())


def _swap(both: Tensor) -> Tensor:
    half = both.shape[0] // 2
    return torch.cat([both[half:], both[:half]])
