"""Exchange of voxels between images and, alike, between their labels.

One component for every method that pastes; they differ in the partner and in the mask
(``mixing/masks.py``): CutMix takes boxes of the item before it in the batch, BCP one box between a
labeled and an unlabeled patch, Text-SemiSeg the partner's foreground.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_semisup.losses.targets import PseudoLabel
from nnunet_semisup.mixing.masks import foreground


def exchange(
    a: Tensor, label_a: PseudoLabel, b: Tensor, label_b: PseudoLabel, mask: Tensor
) -> tuple[Tensor, PseudoLabel]:
    """Paste ``b`` into ``a`` where ``mask`` is true, labels and their weights alike.

    Args:
        a: ``(B, C, *spatial)``.
        label_a: of ``a``.
        b: like ``a``; partners have the same place in the batch.
        label_b: of ``b``.
        mask: bool, ``(B, 1, *spatial)``, or ``(1, 1, *spatial)`` for the whole batch.

    Returns:
        The mixed images and their labels; new tensors.
    """
    return torch.where(mask, b, a), PseudoLabel(
        torch.where(mask, label_b.target, label_a.target),
        torch.where(mask, label_b.weight, label_a.weight),
    )


def exchange_with_previous(
    image: Tensor, label: PseudoLabel, mask: Tensor
) -> tuple[Tensor, PseudoLabel]:
    """Paste the item before it in the batch into each one (CutMix); the first gets the last.

    A batch of one stays as it is.
    """
    return exchange(image, label, image.roll(1, 0), label.rolled(), mask)


def exchange_foreground(
    labeled: Tensor, label: PseudoLabel, unlabeled: Tensor, pseudo: PseudoLabel
) -> tuple[Tensor, PseudoLabel]:
    """Paste each image's foreground into its partner (Text-SemiSeg, section 2.3, eq. 5 and 6).

    MICCAI 2025, arXiv 2507.12382. Written there for one class; here the foreground is the union of
    all of them. Voxels that are not to be used (ignored, padding) are never foreground and keep
    weight 0 wherever they go.

    Args:
        labeled: ``(B, C, *spatial)``.
        label: of the labeled images.
        unlabeled: ``(B, C, *spatial)``; partners have the same place in the batch.
        pseudo: of the unlabeled images.

    Returns:
        The ``(2 B, C, *spatial)`` mixed images, those with labeled foreground first, and their
        labels.
    """
    there, label_there = exchange(unlabeled, pseudo, labeled, label, foreground(label))
    here, label_here = exchange(labeled, label, unlabeled, pseudo, foreground(pseudo))
    both = zip(label_there, label_here, strict=True)
    return torch.cat([there, here]), PseudoLabel(*(torch.cat(parts) for parts in both))
