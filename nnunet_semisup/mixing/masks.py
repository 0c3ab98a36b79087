"""Masks of what is pasted: CutMix's boxes, BCP's box, and foregrounds, in 2D and 3D.

[0] Yun et al., CutMix, ICCV 2019, arXiv 1905.04899; as used for segmentation by French et al.,
    BMVC 2020, arXiv 1906.01916.
[1] Bai et al., BCP, CVPR 2023, arXiv 2305.00673, section 3.2 and released code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nnunet_semisup.losses.targets import PseudoLabel


def sample_boxes(
    batch: int,
    spatial: Sequence[int],
    device: torch.device,
    probability: float = 1.0,
    volume: tuple[float, float] = (0.1, 0.5),
    aspect: float = 2.0,
) -> Tensor:
    """Draw one random box an image ([0]); on the device, without waiting for it.

    The box covers a share of the image drawn uniformly from ``volume``. It is cut off where it is
    longer than the image, so that it may be somewhat smaller.

    Args:
        batch: number of masks.
        spatial: image size in voxels.
        device: where the mask is made.
        probability: of a box at all; the mask of an image without one is false everywhere.
        volume: least and greatest share of the image.
        aspect: of the box: two edges, each relative to the image's, differ by at most its square.

    Returns:
        ``(batch, 1, *spatial)`` bool, true inside the box.
    """
    dims = len(spatial)
    share = torch.empty(batch, 1, device=device).uniform_(*volume)
    log_edges = torch.empty(batch, dims, device=device).uniform_(-1.0, 1.0) * math.log(aspect)
    log_edges = log_edges - log_edges.mean(1, keepdim=True)
    edges = (share.pow(1.0 / dims) * log_edges.exp()).clamp(max=1.0)
    corner = torch.rand(batch, dims, device=device) * (1.0 - edges)
    chosen = torch.rand(batch, device=device) < probability
    return _between(corner, corner + edges, spatial) & chosen.view(batch, 1, *[1] * dims)


def sample_box(spatial: Sequence[int], device: torch.device, side: float = 2 / 3) -> Tensor:
    """Draw one box for a whole batch ([1]); on the device, without waiting for it.

    All positions inside the image are equally likely; the released generator never draws the last
    one along an axis.

    Args:
        spatial: image size in voxels.
        device: where the mask is made.
        side: of the box relative to the image's, along each axis, rounded down to whole voxels.

    Returns:
        ``(1, 1, *spatial)`` bool, true inside the box.
    """
    lengths = [max(1, int(side * size)) for size in spatial]
    axes = list(zip(spatial, lengths, strict=True))
    low = [torch.randint(size - n + 1, (1, 1), device=device) / size for size, n in axes]
    high = [corner + n / size for corner, (size, n) in zip(low, axes, strict=True)]
    return _between(torch.cat(low, 1), torch.cat(high, 1), spatial)


def foreground(label: PseudoLabel) -> Tensor:
    """Mark any class or region, where the label is to be used: ``(B, 1, *spatial)`` bool."""
    return ((label.target > 0) & (label.weight > 0)).any(1, keepdim=True)


def _between(low: Tensor, high: Tensor, spatial: Sequence[int]) -> Tensor:
    """Mark the voxels whose centres are within boxes ``(B, dims)`` in shares of the image."""
    batch, dims = low.shape
    mask = torch.ones(batch, 1, *[1] * dims, dtype=torch.bool, device=low.device)
    for axis, size in enumerate(spatial):
        centres = (torch.arange(size, device=low.device) + 0.5) / size
        inside = (centres >= low[:, axis, None]) & (centres < high[:, axis, None])
        shape = [batch, 1, *[1] * dims]
        shape[2 + axis] = size
        mask = mask & inside.view(shape)
    return mask
