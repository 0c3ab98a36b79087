"""nnU-Net's patches, of whose cases no more is read than what comes out of their augmentation.

nnU-Net 2.8.1's loader reads and pads each patch as large as the greatest rotation needs, looks for
the labels in all of it, and asks the operating system for the loaded libraries at each batch. Here
what is drawn for the rotation comes first, in nnU-Net's order, so that the batches are equal to the
last bit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from threadpoolctl import ThreadpoolController
from torch import Tensor

from nnunet_semisup.augmentation.chain import Chain, Sample, joined, taken_apart
from nnunet_semisup.augmentation.spatial import (
    Box,
    like,
    lines,
    looked_at,
    moved_labels_at_edges,
    on_whole,
    outside_label,
)
from nnunet_semisup.data.valid import OUTSIDE, MarkEmptyVoxels


@functools.cache
def thread_pools() -> ThreadpoolController:
    """Return what limits the threads of the libraries that were loaded at the first call."""
    return ThreadpoolController()


class Patch(NamedTuple):
    """Hold where a patch of a case lies.

    Attributes:
        image: ``(C, *spatial)`` of the case, lazily read.
        label: ``(1, *spatial)``, lazily read.
        start: first voxel of the patch, which may lie before the case's.
    """

    image: Any
    label: Any
    start: tuple[int, ...]


class PatchLoader(nnUNetDataLoader):
    """Make nnU-Net's batches, equal to the last bit, and read what they need.

    Where the transforms do not begin as nnU-Net's (in validation), or where there is a segmentation
    of a previous stage, nnU-Net's own loader makes them.
    """

    scan_labels = False
    """Whether segmentations of unlabeled cases have classes in them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.chain = taken_apart(self.transforms, (MarkEmptyVoxels,))

    def generate_train_batch(self) -> dict[str, Any]:
        """Return ``data`` ``(B, C, *spatial)`` float, ``target``, where needed a list, ``keys``."""
        cascade = getattr(self._data, "folder_with_segs_from_previous_stage", None) is not None
        if self.chain is None or cascade:
            batch: dict[str, Any] = super().generate_train_batch()
            return batch
        keys = self.get_indices()
        with torch.no_grad(), thread_pools().limit(limits=1):
            return {**self.batch_of(self.patches(keys), self.chain), "keys": keys}

    def batch_of(self, patches: Iterator[Patch], chain: Chain) -> dict[str, Any]:
        """Return a batch of patches without ``keys``."""
        return joined([self.sample(patch, chain) for patch in patches])

    def patches(self, keys: Sequence[str]) -> Iterator[Patch]:
        """Draw a patch of each case, as nnU-Net does."""
        for place, key in enumerate(keys):
            forced = self.get_do_oversample(place)
            image, label, _, properties = self._data.load_case(key)
            start, _ = self.get_bbox(image.shape[1:], forced, properties["class_locations"])
            yield Patch(image, label, tuple(int(number) for number in start))

    def looked_at(self, chain: Chain) -> tuple[dict[str, Any], Box, tuple[int, ...]]:
        """Draw rotation and scaling; return what was drawn, what it looks at, the patch's size."""
        size = chain.spatial.patch_size
        shape = tuple(int(number) for number in self.patch_size[-len(size) :])
        stand_in = torch.empty((1, *shape), device="meta")
        drawn = chain.spatial.get_parameters(image=stand_in)
        return drawn, looked_at(size, drawn["affine"], shape), shape

    def sample(self, patch: Patch, chain: Chain) -> Sample:
        """Return ``image`` and ``segmentation`` of a patch after the augmentation."""
        drawn, box, shape = self.looked_at(chain)
        image, label = self.read(patch, box, np.int16)
        data: Sample = {"image": image, "segmentation": label}
        for transform in chain.before:
            data = transform(**data)
        if drawn["grid"] is not None:
            data |= _moved(chain.spatial, drawn["grid"], box, shape, data)
        elif any(isinstance(transform, RandomTransform) for transform in chain.after):
            # Sums over a part of a larger array, which nnU-Net's is, are rounded otherwise.
            whole = torch.empty((*data["image"].shape[: -len(shape)], *shape))
            data["image"] = whole[box.index].copy_(data["image"])
        for transform in chain.after:
            data = transform(**data)
        return data

    def read(self, patch: Patch, box: Box, label_type: Any) -> tuple[Tensor, Tensor]:
        """Return image and segmentation of the part of a patch that a box takes out.

        Args:
            patch: where it lies.
            box: the part, of the patch's last axes.
            label_type: of the segmentation.
        """
        others = len(patch.start) - len(box.start)
        starts = [s + b for s, b in zip(patch.start[others:], box.start, strict=True)]
        sizes = [int(number) for number in self.patch_size[:others]]
        place = Box((*patch.start[:others], *starts), (*sizes, *box.size))
        image = torch.from_numpy(cut(patch.image, place, 0, patch.image.dtype)).float()
        label = torch.from_numpy(cut(patch.label, place, OUTSIDE, label_type))
        return (image[:, 0], label[:, 0]) if self.patch_size_was_2d else (image, label)


def _moved(
    spatial: SpatialTransform, grid: Tensor, box: Box, shape: Sequence[int], data: Sample
) -> Sample:
    """Return ``image`` and ``segmentation`` of a box after rotation and scaling."""
    image, label = data["image"], data["segmentation"]
    outside = outside_label(spatial)
    added = [outside] if spatial._may_reach_outside(grid, shape) else []
    labels = [
        moved_labels_at_edges(line[None], grid, box, shape, values_of(line, added), outside)
        for line in lines(label, spatial)
    ]
    sample = on_whole(grid, box, shape)
    return {
        "image": like(sample(lines(image, spatial), "bilinear"), image),
        "segmentation": like(torch.cat(labels), label),
    }


def values_of(label: Tensor, added: Sequence[int] = ()) -> list[int]:
    """Return the values of a label, and further ones, each once and in ascending order."""
    values = label.numpy().ravel().astype(np.intp)
    lowest = values.min()
    found = np.flatnonzero(np.bincount(values - lowest)) + lowest
    return sorted({*found.tolist(), *added})


def cut(array: Any, box: Box, outside: float, kind: Any) -> np.ndarray:
    """Return a part of an array, which may reach over its border.

    Args:
        array: ``(C, *spatial)``, a numpy or a Blosc2 one.
        box: of the last axes.
        outside: what is beyond the border.
        kind: type of the numbers.
    """
    inner, places = [], []
    for start, size, length in zip(box.start, box.size, array.shape[1:], strict=True):
        first = min(max(start, 0), length)
        last = max(min(start + size, length), first)
        inner.append(slice(first, last))
        places.append(slice(first - start, last - start))
    part = array[(slice(None), *inner)]
    if part.shape[1:] == box.size:
        found: np.ndarray = part.astype(kind, copy=False)
        return found if found.flags.writeable else found.copy()
    whole = np.full((len(part), *box.size), outside, kind)
    if part.size:
        whole[(slice(None), *places)] = part
    return whole
