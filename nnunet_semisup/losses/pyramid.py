"""Agreement of a decoder's outputs at several resolutions, less where they are unsure.

[0] Luo et al., Efficient semi-supervised gross target volume of nasopharyngeal carcinoma
    segmentation via uncertainty rectified pyramid consistency, MICCAI 2021, arXiv 2012.07042.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.consistency import masked_mean
from nnunet_semisup.losses.precision import float32


def at_full_size(outputs: Sequence[Tensor]) -> Tensor:
    """Return logits of several resolutions, interpolated to that of the first.

    Args:
        outputs: each ``(B, C, *spatial)`` of its own resolution, full resolution first.

    Returns:
        ``(S, B, C, *spatial)`` float32.
    """
    first, *others = (logits.float() for logits in outputs)
    mode = "trilinear" if first.ndim == 5 else "bilinear"
    return torch.stack([first, *(F.interpolate(x, first.shape[2:], mode=mode) for x in others)])


@float32
def pyramid_consistency(logits: Tensor, regions: bool, valid: Tensor | None = None) -> Tensor:
    """Return how far each output is from their mean, rectified by its divergence from it ([0]).

    With ``m`` the mean of the probabilities ``p_s`` and ``D_s = KL(m || p_s)`` at each voxel:
    ``mean((m - p_s)^2 exp(-D_s)) / mean(exp(-D_s)) + mean(D_s)``. Gradient flows into all outputs,
    through ``m`` as well, as in the released code.

    Args:
        logits: ``(S, B, C, *spatial)`` of ``S`` outputs.
        regions: sigmoid channels, each with a divergence of its own, in place of softmax.
        valid: ``(B, 1, *spatial)`` bool, false in padding.

    Returns:
        ``(S,)``.
    """
    logs = log_rivals(logits, regions)
    mean = logs.logsumexp(0) - math.log(len(logs))
    terms = []
    for own in logs:
        divergence = (mean.exp() * (mean - own)).sum(1)
        square = (mean.exp() - own.exp()).square().mean(1)
        trust = (-divergence).exp()
        rectified = masked_mean(square * trust, valid) / (masked_mean(trust, valid) + 1e-8)
        terms.append(rectified + masked_mean(divergence, valid))
    return torch.stack(terms)


def log_rivals(logits: Tensor, regions: bool) -> Tensor:
    """Return the logarithm of the probabilities that compete with each other.

    Args:
        logits: ``(S, B, C, *spatial)``.
        regions: each channel competes with its absence.

    Returns:
        ``(S, B, C, 1, *spatial)``, or for regions ``(S, B, 2, C, *spatial)``, which
        add up to 1 along the third axis.
    """
    if regions:
        return torch.stack([F.logsigmoid(-logits), F.logsigmoid(logits)], 2)
    return F.log_softmax(logits, 2)[:, :, :, None]
