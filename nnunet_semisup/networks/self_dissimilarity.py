"""Attention to what differs from its neighborhood, without parameters (NSDA, NeurIPS 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-6
"""Added to the local deviation, relative to its mean over the map."""


def box_mean(x: Tensor, window: Sequence[int]) -> Tensor:
    """Return the mean over a box around each voxel, of the voxels that there are.

    One axis after another: the box is a product, and so is the number of voxels in it.

    Args:
        x: ``(B, C, *spatial)``.
        window: odd length along each axis.
    """
    for axis, length in enumerate(window, 2):
        if length > 1:
            x = _mean_along(x, axis, length)
    return x


def _mean_along(x: Tensor, axis: int, length: int) -> Tensor:
    """Return the mean over a window along one axis, of the voxels that there are.

    Sums over 1, 2, 4 ... voxels, each of two of the one before, make up the window's: faster on a
    CPU than torch 2.14's pooling; on a GPU the compiler fuses them.
    """
    size = x.shape[axis]
    reach = min(length // 2, size - 1)
    length = 2 * reach + 1
    after = [0, 0] * (x.ndim - axis - 1)
    sums = F.pad(x, [*after, reach, reach])
    total, width, done = sums.narrow(axis, 0, size), 1, 1
    while done < length:
        kept = sums.shape[axis] - width
        sums, width = sums.narrow(axis, 0, kept) + sums.narrow(axis, width, kept), 2 * width
        if length & width:
            total, done = total + sums.narrow(axis, done, size), done + width
    place = torch.arange(size, device=x.device)
    count = (place + reach).clamp(max=size - 1) - (place - reach).clamp(min=0) + 1
    return total / count.view(-1, *[1] * (x.ndim - axis - 1))


def dissimilarity(x: Tensor, window: Sequence[int]) -> Tensor:
    """Return attention in [0, 1), ``1 - exp(-d / 2v)``: d a voxel's squared deviation, v its mean.

    d is the squared distance from the mean of the voxel's own box, v the mean of d over that box.
    Differences that float32 cannot tell from the rounding of the mean are none.

    Args:
        x: ``(B, C, *spatial)``, float32.
        window: odd length along each axis.
    """
    mean = box_mean(x, window)
    difference = x - mean
    rounding = 4 * torch.finfo(x.dtype).eps * mean.abs()
    deviation = torch.where(difference.abs() <= rounding, 0, difference).square()
    local = box_mean(deviation, window)
    axes = tuple(range(2, x.ndim))
    floor = EPSILON * local.mean(axes, keepdim=True) + torch.finfo(x.dtype).tiny
    return 1 - torch.exp(-deviation / (2 * local + floor))


class SelfDissimilarity:
    """Multiply a module's output by one plus its self-dissimilarity, as a forward hook.

    The gate has no gradient, as in the paper's code. A hook, because it has no parameters: state
    dicts keep nnU-Net's keys.

    Args:
        window: odd length along each axis.
    """

    def __init__(self, window: Sequence[int]) -> None:
        self.window = tuple(window)

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Return ``(B, C, *spatial)`` of the same dtype."""
        with torch.no_grad(), torch.autocast(output.device.type, enabled=False):
            gate = 1 + dissimilarity(output.float(), self.window)
        return output * gate.to(output.dtype)
