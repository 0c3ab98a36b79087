"""Contrastive alignment of features with a frozen foundation model's (VQ-Seg's PFA)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.precision import float32


@float32
def patchwise_infonce(features: Tensor, reference: Tensor, temperature: float = 0.07) -> Tensor:
    """Return InfoNCE between the positions of one image, of which the same one is positive.

    VQ-Seg (NeurIPS 2025, arXiv 2601.10124), section 3.4: cosine similarity, negatives from the same
    image only. The paper does not state the temperature; 0.07 is the usual value.

    Args:
        features: ``(B, N, C)``, ``N`` positions an image; gradient flows here.
        reference: ``(B, N, C)`` of the frozen model; no gradient.
        temperature: of the softmax.

    Returns:
        Scalar float32; at least ``log N`` for features that are the same at all positions.
    """
    ours = F.normalize(features, dim=-1)
    theirs = F.normalize(reference.detach(), dim=-1)
    logits = ours @ theirs.transpose(1, 2) / temperature
    positions = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[0], -1)
    return F.cross_entropy(logits.flatten(0, 1), positions.flatten())


def slicewise_infonce(maps: Tensor, reference: Tensor, temperature: float = 0.07) -> Tensor:
    """Return :func:`patchwise_infonce` of feature maps, of volumes slice by slice.

    Args:
        maps: ``(B, C, *grid)``.
        reference: ``(B * slices, N, C)`` of the frozen model on the grid's ``N`` positions.
        temperature: of the softmax.
    """
    flat = maps if maps.ndim == 4 else maps.transpose(1, 2).flatten(0, 1)
    return patchwise_infonce(flat.flatten(2).transpose(1, 2), reference, temperature)
