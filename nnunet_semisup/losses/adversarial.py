"""Noise that changes a network's prediction most (virtual adversarial training)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def adversarial_noise(
    distance: Callable[[Tensor], Tensor],
    image: Tensor,
    deviation: float,
    scaler: Any = None,
) -> Tensor:
    """Return noise in the direction in which a distance between predictions grows fastest.

    Miyato et al., Virtual adversarial training, TPAMI 2019, arXiv 1704.03976, algorithm 1 with one
    step of the power iteration; as there, the finite step has the size of the noise. The gradient
    goes to the noise alone: those of weights stay as they are.

    Args:
        distance: from noise like ``image`` to the scalar distance between the prediction for image
            plus noise and that for the image.
        image: ``(B, C, *spatial)``.
        deviation: root mean square of each image's noise.
        scaler: of gradients in half precision, or ``None``; the direction does not depend on it.

    Returns:
        Noise like ``image``, without gradient; 0 for an image whose prediction it does not change.
    """
    noise = _of_size(torch.randn_like(image), deviation).requires_grad_()
    change = distance(noise)
    scaled = change if scaler is None else scaler.scale(change)
    (gradient,) = torch.autograd.grad(scaled, noise)
    return _of_size(gradient, deviation)


def _of_size(noise: Tensor, deviation: float) -> Tensor:
    """Return each image's noise with another root mean square; what overflowed counts as 0."""
    noise = torch.nan_to_num(noise.float(), 0.0, 0.0, 0.0)
    axes = list(range(1, noise.ndim))
    # By the greatest first: the squares of a small gradient would be 0 in float32.
    noise = noise / noise.abs().amax(axes, keepdim=True).clamp_min(torch.finfo(noise.dtype).tiny)
    root = noise.square().mean(axes, keepdim=True).sqrt()
    return deviation * noise / root.clamp_min(torch.finfo(noise.dtype).tiny)
