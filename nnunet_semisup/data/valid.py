"""Tell the image of an unlabeled patch from its padding: ``valid``.

Labeled patches say it in their segmentation: nnU-Net 2.8.1 marks by -1 what its loader adds around
a small image (``crop_and_pad_nd``), what a rotation brings in from beyond the border
(``SpatialTransform``), and, in data sets that are normalised within a mask, what its preprocessing
cropped away; afterwards, ``RemoveLabelTransform`` makes all of it background. Unlabeled cases have
no segmentation. They are therefore given one of zeros, :func:`nothing_outside`, in which nnU-Net's
loader and transforms mark padding as ever. What preprocessing cropped away is not on file, but was
set to 0 in the image, so that :class:`MarkEmptyVoxels` finds it. No transform of the weak view
removes the -1, and :func:`valid_voxels` is what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor

OUTSIDE = -1
"""What nnU-Net writes into a segmentation where there is no image."""

EMPTY = 1e-3
"""Normalised intensity below which a voxel counts as 0: resampling leaves ripples around zeros."""


def nothing_outside(spatial: Sequence[int]) -> np.ndarray:
    """Return a segmentation of an unlabeled case, ``(1, *spatial)`` zeros that take no memory."""
    return np.broadcast_to(np.zeros((), np.int8), (1, *spatial))


class MarkEmptyVoxels(BasicTransform):
    """Mark voxels with 0 in every channel as outside, as nnU-Net's cropping mask does."""

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Write into ``segmentation`` what ``image`` shows; both ``(channels, *spatial)``."""
        outside = (data_dict["image"].abs() < EMPTY).all(0, keepdim=True)
        data_dict["segmentation"] = data_dict["segmentation"].masked_fill(outside, OUTSIDE)
        return data_dict


def valid_voxels(segmentation: Tensor) -> Tensor:
    """Return where an unlabeled patch is image, bool, of a segmentation ``(B, 1, *spatial)``."""
    return segmentation > OUTSIDE
