"""Make what a method may ask for beside nnU-Net's view of labeled patches.

A weak view is the same patch under the spatial part of the augmentation only, as unlabeled patches
have it. A map is computed in the worker from the segmentation (a distance transform, say). nnU-Net
2.8.1's loader gives ``image`` and ``segmentation`` alone and drops whatever else its transforms
return, so both are set aside by the last of them and taken up when the batch is complete. nnU-Net's
own view draws the same random numbers with and without them and is equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

MakeMap = Callable[[Tensor, LabelManager], Tensor]
"""From a segmentation and what its labels mean, to a map whose first axis is its channels.

The segmentation is nnU-Net's target of one patch at full resolution, not to be changed: class
numbers ``(1, *spatial)``, or 0/1 ``(R, *spatial)`` for regions; an ignore label is a class number
or a last channel. It has to be a function of a module, for it may be sent to another process.
"""

WEAK, MAP = "weak", "map: "
"""Keys in a batch of the weak view and, with the name behind it, of a map."""

SLOT = "regression_target"
"""The library's key for a dense map: geometry moves it with the image, intensities leave it."""


class LabeledViews:
    """Collect weak views and maps of labeled patches while nnU-Net's loader makes a batch.

    Args:
        weak: make the weak view.
        maps: name to function.
        labels: of the data set, given to those functions.
    """

    def __init__(self, weak: bool, maps: Mapping[str, MakeMap], labels: LabelManager) -> None:
        self.weak = weak
        self.maps = dict(maps)
        self.labels = labels
        self.samples: list[dict[str, Tensor]] = []

    def added_to(self, training: ComposeTransforms) -> ComposeTransforms:
        """Return nnU-Net's training transforms with those that make the views among them."""
        if not (self.weak or self.maps):
            return training
        transforms = list(training.transforms)
        last = _places(transforms, DownsampleSegForDSTransform)
        transforms.insert(last[0] if last else len(transforms), _SetAside(self))
        if self.weak:
            masks = _places(transforms, MaskImageTransform)
            spatial = _places(transforms, SpatialTransform, Convert2DTo3DTransform)
            keep = _KeepWeakView([transforms[place] for place in masks])
            transforms.insert(spatial[-1] + 1 if spatial else 0, keep)
        return ComposeTransforms(transforms)

    def take(self) -> dict[str, Tensor]:
        """Return what was set aside for the batch just made, one tensor a key, and forget it."""
        samples, self.samples = self.samples, []
        keys = samples[0] if samples else {}
        return {key: torch.stack([sample[key] for sample in samples]) for key in keys}


def maps_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the maps of a batch by their names."""
    return {key.removeprefix(MAP): value for key, value in batch.items() if key.startswith(MAP)}


class _KeepWeakView(BasicTransform):
    """Keep a copy of the image before its intensities change, masked as the image will be."""

    def __init__(self, masks: list[BasicTransform]) -> None:
        super().__init__()
        self.masks = masks

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        kept = {"image": data_dict["image"].clone(), "segmentation": data_dict["segmentation"]}
        for mask in self.masks:
            kept = mask(**kept)
        return {**data_dict, SLOT: kept["image"]}


class _SetAside(BasicTransform):
    """Take the weak view out of the sample, and make the maps of its final segmentation."""

    def __init__(self, views: LabeledViews) -> None:
        super().__init__()
        self.views = views

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        sample = {WEAK: data_dict.pop(SLOT)} if self.views.weak else {}
        for name, make in self.views.maps.items():
            sample[MAP + name] = make(data_dict["segmentation"], self.views.labels)
        self.views.samples.append(sample)
        return data_dict


def _places(transforms: list[BasicTransform], *kinds: type[BasicTransform]) -> list[int]:
    return [place for place, one in enumerate(transforms) if isinstance(one, kinds)]
