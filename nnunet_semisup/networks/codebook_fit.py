"""Codes that match the tokens from the start, in closed form.

A codebook that is trained by gradient alone needs thousands of steps under nnU-Net's SGD before its
codes lie where the tokens are. The best codes of a Gaussian source have, direction by direction,
the variance ``max(lambda_i - theta, 0)``, where ``lambda_i`` are the eigenvalues of the tokens'
covariance and ``theta`` is what ``log2 K`` bits leave as error ("reverse water-filling").

[0] Cover and Thomas, Elements of Information Theory, 2nd edition, 10.3.3.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor


@torch.no_grad()
def moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean ``(D,)`` and covariance ``(D, D)`` of tokens ``(N, D)`` of all ranks, float32."""
    tokens = tokens.float()
    count = torch.full((), float(tokens.shape[0]), device=tokens.device)
    with torch.autocast(tokens.device.type, enabled=False):
        total, products = tokens.sum(0), tokens.T @ tokens
    if dist.is_available() and dist.is_initialized():
        for part in (count, total, products):
            dist.all_reduce(part)
    mean = total / count
    return mean, products / count - mean[:, None] * mean


@torch.no_grad()
def reproduction_root(covariance: Tensor, size: int) -> Tensor:
    """Return the symmetric root of the covariance of the best codes of a Gaussian source ([0]).

    Args:
        covariance: ``(D, D)`` float32 of the source.
        size: number of codes ``K``.

    Returns:
        ``(D, D)``; directions in which the source varies less than the error is left out.
    """
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp_min(1e-12)
    logs = values.log().flip(0)
    active = torch.arange(1, len(logs) + 1, device=logs.device)
    levels = (logs.cumsum(0) - 2.0 * math.log(size)) / active
    fitting = torch.where(logs > levels, active, 0).argmax()
    variances = (values - levels.gather(0, fitting[None]).exp()).clamp_min(0.0)
    return (vectors * variances.sqrt()) @ vectors.T
