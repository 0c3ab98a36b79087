"""Signed distance maps of labeled patches, made in the workers (DTC's second target).

[0] Luo et al., Semi-supervised medical image segmentation through dual-task consistency, AAAI 2021,
    arXiv 2009.04448, and released code.
"""

from __future__ import annotations

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from nnunet_semisup.losses.targets import labels_of_target


def signed_distance(segmentation: Tensor, labels: LabelManager) -> Tensor:
    """Return the distance of each voxel to the boundary of each foreground class or region.

    Negative inside and positive outside, in voxels, on each side divided by the greatest one of
    that side in the patch; 0 on the inner boundary (voxels inside that share a face with one
    outside). A patch without the class is +1 and one that it fills is -1 everywhere ([0]: 0, and
    not a number). Voxels with the ignore label are neither inside nor outside; they get 0 and are
    not to be used.

    Args:
        segmentation: nnU-Net's target of one patch, class numbers ``(1, *spatial)`` or for regions
            0/1 ``(R, *spatial)`` with an ignore label as one more channel.
        labels: of the data set.

    Returns:
        ``(C, *spatial)`` float32 in [-1, 1], one channel a foreground class or region.
    """
    regions = labels.has_regions
    label = labels_of_target(segmentation[None], labels.ignore_label, regions)
    inside, known = label.target[0] > 0, label.weight[0] > 0
    if not regions:
        numbers = range(1, labels.num_segmentation_heads)
        inside = torch.cat([label.target[0] == number for number in numbers])
        known = known.expand_as(inside)
    sides = zip((inside & known).numpy(), (~inside & known).numpy(), strict=True)
    return torch.from_numpy(np.stack([_signed(*both) for both in sides]))


def _signed(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    if not inside.any() or not outside.any():
        return outside.astype(np.float32) - inside.astype(np.float32)
    depth = np.where(inside, distance_transform_edt(~outside), 0.0)
    height = np.where(outside, distance_transform_edt(~inside), 0.0)
    boundary = depth <= 1.0
    signed = height / height.max() - np.where(boundary, 0.0, depth / depth.max())
    return signed.astype(np.float32)
