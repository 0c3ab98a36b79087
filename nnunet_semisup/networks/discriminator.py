"""A light network that tells predictions of labeled patches from those of unlabeled ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.losses.precision import float32
from nnunet_semisup.losses.processes import over_processes

WIDTHS = (16, 32, 64)
"""Channels of its stages, each of which halves the resolution."""


class PatchDiscriminator(nn.Sequential):
    """Judge parts of a probability map: a logit each, positive for "labeled".

    Strided convolutions with leaky rectifiers, without normalisation, whose statistics would
    compare the patches of a batch.

    Args:
        channels: of the map.
        dimensions: 2 or 3.
    """

    def __init__(self, channels: int, dimensions: int) -> None:
        convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
        layers: list[nn.Module] = []
        for width in WIDTHS:
            layers += [convolution(channels, width, 3, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
            channels = width
        super().__init__(*layers, convolution(channels, 1, 3, 1, 1))


def reversed_gradient(x: Tensor, weight: float) -> Tensor:
    """Return ``x``, whose gradient is multiplied by ``-weight`` on its way back."""
    return (1.0 + weight) * x.detach() - weight * x


@float32
def judged(logits: Tensor, labeled: bool, valid: Tensor | None = None) -> Tensor:
    """Return the binary cross entropy of a discriminator's logits with where the map is from.

    Args:
        logits: ``(B, 1, *grid)``.
        labeled: what they are to say.
        valid: ``(B, 1, *spatial)`` bool, false in padding; parts count by their share of it, and
            the loss is 0 where there is none.
    """
    losses = F.softplus(-logits if labeled else logits)
    if valid is None:
        return losses.mean()
    pool: Any = F.adaptive_avg_pool3d if logits.ndim == 5 else F.adaptive_avg_pool2d
    share = pool(valid.float(), logits.shape[2:])
    total, count = over_processes(torch.stack([(losses * share).sum(), share.sum()]))
    return total / count.clamp_min(torch.finfo(share.dtype).tiny)
