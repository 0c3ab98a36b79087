"""nnU-Net's augmentation taken apart at its rotation, and samples put together to a batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import (
    Convert2DTo3DTransform,
    Convert3DTo2DTransform,
)

from nnunet_semisup.augmentation.spatial import can_look_ahead

Sample = dict[str, Any]
"""``image`` ``(C, *spatial)`` and ``segmentation`` of a patch, and what transforms add to them."""


class Chain(NamedTuple):
    """Hold the parts of an augmentation.

    Attributes:
        before: what marks voxels ahead of rotation and scaling, each by itself.
        spatial: rotation and scaling.
        after: the rest, without what nnU-Net puts around the spatial one to turn slices alone.
    """

    before: list[BasicTransform]
    spatial: SpatialTransform
    after: list[BasicTransform]


def taken_apart(transforms: Any, marking: tuple[type, ...]) -> Chain | None:
    """Return an augmentation's parts; ``None`` where it does not begin as nnU-Net's.

    Args:
        transforms: of a loader.
        marking: kinds of what may come ahead of rotation and scaling.
    """
    given = list(transforms.transforms) if isinstance(transforms, ComposeTransforms) else []
    around = (Convert3DTo2DTransform, Convert2DTo3DTransform)
    parts = [one for one in given if not isinstance(one, around)]
    places = [place for place, one in enumerate(parts) if isinstance(one, SpatialTransform)]
    if len(places) != 1 or not can_look_ahead(parts[places[0]]):
        return None
    before, spatial, after = parts[: places[0]], parts[places[0]], parts[places[0] + 1 :]
    return Chain(before, spatial, after) if all(isinstance(t, marking) for t in before) else None


def joined(samples: list[Sample]) -> dict[str, Any]:
    """Return samples as ``data`` ``(B, C, *spatial)`` and ``target``, where needed a list."""
    targets = [sample["segmentation"] for sample in samples]
    if isinstance(targets[0], list):
        target: Any = [torch.stack(one) for one in zip(*targets, strict=True)]
    else:
        target = torch.stack(targets)
    return {"data": torch.stack([sample["image"] for sample in samples]), "target": target}
