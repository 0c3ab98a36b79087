"""nnU-Net's patches, of whose cases no more is read than what comes out of their augmentation.

nnU-Net 2.8.1's loader reads and pads each patch as large as the greatest rotation needs, looks for
the labels in all of it, and asks the operating system for the loaded libraries at each batch
(threadpoolctl 3.6: 5 ms). Here what is drawn for the rotation comes first, in nnU-Net's order, so
that the batches are equal to the last bit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import (
    Convert2DTo3DTransform,
    Convert3DTo2DTransform,
)
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from threadpoolctl import ThreadpoolController
from torch import Tensor

from nnunet_semisup.augmentation.spatial import (
    Box,
    can_look_ahead,
    flat,
    looked_at,
    moved_labels,
    on_whole,
)
from nnunet_semisup.data.valid import OUTSIDE, MarkEmptyVoxels

Sample = dict[str, Any]


@functools.cache
def thread_pools() -> ThreadpoolController:
    """Return what limits the threads of the libraries that were loaded at the first call."""
    return ThreadpoolController()


class Patch(NamedTuple):
    """Hold where a patch of a case lies.

    Attributes:
        image: ``(C, *spatial)``, lazily read.
        label: ``(1, *spatial)``, lazily read.
        start: first voxel of the patch, which may lie before the case's.
    """

    image: Any
    label: Any
    start: list[int]


class Chain(NamedTuple):
    """Hold an augmentation taken apart at its spatial transform.

    Attributes:
        before: what marks voxels ahead of it.
        spatial: rotation and scaling.
        after: the rest, without what nnU-Net puts around the spatial one to turn slices alone.
    """

    before: list[BasicTransform]
    spatial: SpatialTransform
    after: list[BasicTransform]


def taken_apart(transforms: Any) -> Chain | None:
    """Return an augmentation's parts; ``None`` where nnU-Net's loader has to make the patches."""
    given = list(transforms.transforms) if isinstance(transforms, ComposeTransforms) else []
    parts = [t for t in given if not isinstance(t, (Convert3DTo2DTransform, Convert2DTo3DTransform))]
    places = [place for place, one in enumerate(parts) if isinstance(one, SpatialTransform)]
    if len(places) != 1:
        return None
    before, spatial, after = parts[: places[0]], parts[places[0]], parts[places[0] + 1 :]
    known = all(isinstance(one, MarkEmptyVoxels) for one in before)
    return Chain(before, spatial, after) if known and can_look_ahead(spatial) else None


class PatchLoader(nnUNetDataLoader):
    """Make nnU-Net's batches, equal to the last bit, and read what they need.

    Where its transforms are not nnU-Net's in their first part (no rotation, say), or where there is
    the segmentation of a previous stage, nnU-Net's own loader makes them.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.chain = taken_apart(self.transforms)

    def generate_train_batch(self) -> dict[str, Any]:
        """Return ``data`` ``(B, C, *spatial)`` float, ``target``, a list of them, and ``keys``."""
        cascade = getattr(self._data, "folder_with_segs_from_previous_stage", None) is not None
        if self.chain is None or cascade:
            batch: dict[str, Any] = super().generate_train_batch()
            return batch
        keys = self.get_indices()
        with torch.no_grad(), thread_pools().limit(limits=1):
            samples = [self.sample(patch) for patch in self.patches(keys)]
        return {**self.joined(samples), "keys": keys}

    def patches(self, keys: Sequence[str]) -> Iterator[Patch]:
        """Draw a patch of each case, as nnU-Net does."""
        for place, key in enumerate(keys):
            forced = self.get_do_oversample(place)
            image, label, _, properties = self._data.load_case(key)
            start, _ = self.get_bbox(image.shape[1:], forced, properties["class_locations"])
            yield Patch(image, label, [int(number) for number in start])

    def sample(self, patch: Patch) -> Sample:
        """Return ``image`` and ``segmentation`` of a patch after the augmentation."""
        assert self.chain is not None
        spatial = self.chain.spatial
        size, shape = spatial.patch_size, self.patch_size[-len(spatial.patch_size) :]
        drawn = spatial.get_parameters(image=torch.empty((1, *shape), device="meta"))
        box = looked_at(size, drawn["affine"], shape)
        data: Sample = self.read(patch, box)
        for transform in self.chain.before:
            data = transform(**data)
        if drawn["grid"] is not None:
            data = _moved(spatial, drawn["grid"], box, shape, data)
        elif any(isinstance(transform, RandomTransform) for transform in self.chain.after):
            # Sums over a part of a larger array, which nnU-Net's is, are rounded otherwise.
            image = torch.empty((*data["image"].shape[: -len(shape)], *shape))[box.index]
            data["image"] = image.copy_(data["image"])
        for transform in self.chain.after:
            data = transform(**data)
        return data

    def read(self, patch: Patch, box: Box, label_type: Any = np.int16) -> Sample:
        """Return the part of a patch that a box of its last axes takes out.

        Args:
            patch: where it lies.
            box: the part.
            label_type: of the segmentation.
        """
        others = len(patch.start) - len(box.start)
        starts = [s + b for s, b in zip(patch.start[others:], box.start, strict=True)]
        place = Box(
            tuple(patch.start[:others] + starts),
            (*(int(n) for n in self.patch_size[:others]), *box.size),
        )
        image = torch.from_numpy(cut(patch.image, place, 0, None)).float()
        label = torch.from_numpy(cut(patch.label, place, OUTSIDE, label_type))
        if self.patch_size_was_2d:
            image, label = image[:, 0], label[:, 0]
        return {"image": image, "segmentation": label}

    def joined(self, samples: list[Sample]) -> dict[str, Any]:
        """Return samples as a batch."""
        targets = [sample["segmentation"] for sample in samples]
        lists = isinstance(targets[0], list)
        target = [torch.stack(one) for one in zip(*targets, strict=True)] if lists else None
        return {
            "data": torch.stack([sample["image"] for sample in samples]),
            "target": target if lists else torch.stack(targets),
        }


def cut(array: Any, box: Box, outside: float, kind: Any) -> np.ndarray:
    """Return a part of an array, which may reach over its border.

    Args:
        array: ``(C, *spatial)``, a numpy or a Blosc2 one.
        box: of the last axes.
        outside: what is beyond the border.
        kind: type of the numbers; ``None``: the array's own.
    """
    kind = array.dtype if kind is None else np.dtype(kind)
    inner, places = [], []
    for start, size, length in zip(box.start, box.size, array.shape[1:], strict=True):
        first, last = max(start, 0), max(min(start + size, length), max(start, 0))
        inner.append(slice(first, last))
        places.append(slice(first - start, last - start))
    part = array[(slice(None), *inner)]
    if part.shape[1:] == box.size:
        found: np.ndarray = part.astype(kind, copy=False)
        return found
    whole = np.full((len(part), *box.size), outside, kind)
    whole[(slice(None), *places)] = part
    return whole


def _moved(
    spatial: SpatialTransform, grid: Tensor, box: Box, shape: Sequence[int], data: Sample
) -> Sample:
    """Return image and segmentation of a box, rotated and scaled."""
    dims, pad = len(shape), spatial.padding_value_seg
    pad = pad if spatial.border_mode_seg == "constant" else 0
    sample = on_whole(grid, box, shape)
    image, label = (data[key] for key in ("image", "segmentation"))
    beyond = spatial._may_reach_outside(grid, shape)
    moved = []
    for channel in flat(label, dims):
        present = np.unique([*pd.unique(channel.numpy().ravel()), *([pad] if beyond else [])])
        values = [int(value) for value in present]
        moved.append(moved_labels(channel[None], sample, spatial.patch_size, values, pad))
    size = spatial.patch_size
    return {
        **data,
        "image": sample(flat(image, dims), "bilinear").reshape(*image.shape[:-dims], *size),
        "segmentation": torch.cat(moved).reshape(*label.shape[:-dims], *size),
    }
