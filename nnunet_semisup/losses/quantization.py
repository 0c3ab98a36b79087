"""Losses on the codebook."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_semisup.losses.precision import float32


@float32
def usage_entropy(tokens: Tensor, codebook: Tensor, inverse_temperature: float = 1.0) -> Tensor:
    """Mean entropy of the soft assignments minus the entropy of their mean (USE).

    Low when every token is sure of its code and all codes are used alike: the entropy penalty of
    Yu et al. (MAGVIT-2, ICLR 2024, eq. 7) with ``q = softmax_k(-|z - c_k|^2 / tau)``, as VQ-Seg's
    released code uses it; its paper does not define the loss.

    Args:
        tokens: ``(N, C)``.
        codebook: ``(K, C)``.
        inverse_temperature: ``1 / tau``.

    Returns:
        Scalar in ``[-log K, log K]``, float32.
    """
    squared = (
        tokens.square().sum(1, keepdim=True) - 2.0 * tokens @ codebook.T + codebook.square().sum(1)
    )
    log_q = torch.log_softmax(-inverse_temperature * squared, 1)
    q = log_q.exp()
    per_token = -(q * log_q).sum(1).mean()
    mean = q.mean(0)
    return per_token + (mean * (mean + 1e-7).log()).sum()
