"""CutMix: a box of one image pasted into another, labels alike, in 2D and 3D.

[0] Yun et al., CutMix, ICCV 2019, arXiv 1905.04899; as used for segmentation by French et al.,
BMVC 2020, arXiv 1906.01916.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def sample_boxes(
    batch: int,
    spatial: Sequence[int],
    device: torch.device,
    probability: float = 1.0,
    volume: tuple[float, float] = (0.1, 0.5),
    aspect: float = 2.0,
) -> Tensor:
    """One random box an image, as a mask; sampled on the device without waiting for it.

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
    mask = chosen.view(batch, 1, *[1] * dims)
    for axis, size in enumerate(spatial):
        centres = (torch.arange(size, device=device) + 0.5) / size
        inside = (centres >= corner[:, axis, None]) & (
            centres < corner[:, axis, None] + edges[:, axis, None]
        )
        shape = [batch, 1, *[1] * dims]
        shape[2 + axis] = size
        mask = mask & inside.view(shape)
    return mask


def paste(own: Tensor, mask: Tensor) -> Tensor:
    """``own`` with the masked box of the item before it in the batch pasted in.

    The first item gets the last one's.

    Args:
        own: ``(B, C, *spatial)``; with ``B`` = 1 nothing changes.
        mask: ``(B, 1, *spatial)`` bool.
    """
    return torch.where(mask, own.roll(1, 0), own)
