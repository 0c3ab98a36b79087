"""Losses on the codebook."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.precision import float32


@float32
def usage_entropy(
    tokens: Tensor,
    codebook: Tensor,
    inverse_temperature: float = 1.0,
    at_most: int | None = None,
) -> Tensor:
    """Return the mean entropy of the soft assignments minus the entropy of their mean (USE).

    Low when every token is sure of its code and all codes are used alike: the entropy penalty of
    Yu et al. (MAGVIT-2, ICLR 2024, eq. 7) with ``q = softmax_k(-|z - c_k|^2 / tau)``, as VQ-Seg's
    released code uses it; its paper does not define the loss.

    Args:
        tokens: ``(N, C)``.
        codebook: ``(K, C)``.
        inverse_temperature: ``1 / tau``.
        at_most: compute it on this many of the tokens, drawn at random.

    Returns:
        Scalar in ``[-log K, log K]``, float32.
    """
    if at_most is not None:
        tokens = tokens[torch.randperm(tokens.shape[0], device=tokens.device)[:at_most]]
    squared = (
        tokens.square().sum(1, keepdim=True) - 2.0 * tokens @ codebook.T + codebook.square().sum(1)
    )
    log_q = torch.log_softmax(-inverse_temperature * squared, 1)
    q = log_q.exp()
    per_token = -(q * log_q).sum(1).mean()
    mean = q.mean(0)
    return per_token + (mean * (mean + 1e-7).log()).sum()


@float32
def reconstruction_difference(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Return the mean absolute difference from the image at the reconstruction's resolution.

    Intensities beyond 5 standard deviations count as 5. VQ-Seg (arXiv 2601.10124), section 3.3.

    Args:
        reconstruction: ``(B, C, *grid)``.
        image: ``(B, C, *spatial)``, normalised, averaged down to the grid; no gradient.
    """
    average: Any = F.adaptive_avg_pool3d if image.ndim == 5 else F.adaptive_avg_pool2d
    return F.l1_loss(reconstruction, average(image.clamp(-5, 5), reconstruction.shape[2:]))
