"""Recipes of what is to be done to a patch: drawn by a worker, done on the device of the training.

A worker draws every number of the augmentation in nnU-Net's order, cuts out what rotation and
scaling look at, and sends both. A batch is therefore the same function of the seed and its number
as without; noise alone has other numbers (of the same distribution), and sums are rounded
otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor

from nnunet_semisup.augmentation.chain import Chain, Sample, joined
from nnunet_semisup.augmentation.spatial import (
    Box,
    like,
    lines,
    moved_labels,
    on_box,
    outside_label,
)

Drawn = list[tuple[int, dict[str, Any]]]
"""Numbers of transforms that are to be applied, and what each of them drew."""


@dataclass(frozen=True)
class Recipe:
    """Hold what a worker drew for a patch.

    Attributes:
        box: the part of the patch that was cut out.
        affine: rotation and scaling (:func:`~nnunet_semisup.augmentation.spatial.looked_at`), or
            ``None``.
        present: labels in the part and beyond, in ascending order, where there is an affine map.
        drawn: for the transforms after it.
    """

    box: Box
    affine: np.ndarray | None
    present: Sequence[int]
    drawn: Drawn


def drawn_by(transforms: Sequence[BasicTransform], shape: Sequence[int]) -> Drawn:
    """Draw what transforms apply to an image, without the image.

    Args:
        transforms: one after another.
        shape: of the image, ``(C, *spatial)``.
    """
    stand_in = torch.empty(1).expand(*shape)
    drawn: Drawn = []
    for number, transform in enumerate(transforms):
        one = transform
        if isinstance(one, RandomTransform):
            if not one.get_parameters()["apply_transform"]:
                continue
            one = one.transform
        found = one.get_parameters(image=stand_in)
        # As a numpy array, a few numbers take the pipe; a tensor, a file in shared memory.
        drawn.append((number, {k: v.numpy() if _tensor(v) else v for k, v in found.items()}))
    return drawn


def apply_drawn(transforms: Sequence[BasicTransform], drawn: Drawn, data: Sample) -> Sample:
    """Return a sample after transforms, by what :func:`drawn_by` gave for them."""
    for number, found in drawn:
        one = transforms[number]
        one = one.transform if isinstance(one, RandomTransform) else one
        given = {k: torch.from_numpy(v) if _array(v) else v for k, v in found.items()}
        data = one.apply(data, **given)
    return data


Layout = list[tuple[Sequence[int], torch.dtype]]


def packed(parts: Sequence[Tensor]) -> tuple[Tensor, Layout]:
    """Return tensors as one of bytes, which one message and one copy to the device bring there.

    Args:
        parts: those of the wider types first.
    """
    buffer = torch.cat([part.contiguous().flatten().view(torch.uint8) for part in parts])
    return buffer, [(part.shape, part.dtype) for part in parts]


def unpacked(buffer: Tensor, layout: Layout) -> list[Tensor]:
    """Return the tensors that :func:`packed` got, on the buffer's memory."""
    parts, start = [], 0
    for shape, kind in layout:
        # Not shape.numel(): batchgenerators 0.25.5 pins a batch by tuples in place of torch.Size.
        length = math.prod(shape) * kind.itemsize
        parts.append(buffer[start : start + length].view(kind).view(shape))
        start += length
    return parts


class DeviceAugmentation:
    """Make a batch of patches that were cut out, on the device; nothing waits for it.

    Args:
        chain: the augmentation, in the kinds of
            :mod:`~nnunet_semisup.augmentation.without_waiting`.
        shape: voxels of the patches that the parts were cut from, of the axes that are rotated.
        device: of the training.
    """

    def __init__(self, chain: Chain, shape: Sequence[int], device: torch.device) -> None:
        self.chain = chain
        self.shape = tuple(shape)
        self.device = device

    def batch(self, crops: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``data`` and ``target``.

        Args:
            crops: ``packed`` and ``layout`` (:func:`packed`) of a batch's images and then labels,
                and ``recipes``.
        """
        parts = unpacked(crops["packed"].to(self.device, non_blocking=True), crops["layout"])
        number = len(crops["recipes"])
        with torch.no_grad():
            given = zip(parts[:number], parts[number:], crops["recipes"], strict=True)
            return joined([self.sample(*one) for one in given])

    def sample(self, image: Tensor, label: Tensor, recipe: Recipe) -> Sample:
        """Return ``image`` and ``segmentation`` of a patch after the augmentation.

        Args:
            image: ``(C, *box)`` float, like the label on the device; it is written to.
            label: ``(1, *box)``.
            recipe: what is to be done.
        """
        data: Sample = {"image": image, "segmentation": label}
        for transform in self.chain.before:
            data = transform(**data)
        if recipe.affine is not None:
            data |= self.moved(data["image"], data["segmentation"], recipe, recipe.affine)
        data["segmentation"] = data["segmentation"].to(torch.int16)
        return apply_drawn(self.chain.after, recipe.drawn, data)

    def moved(self, image: Tensor, label: Tensor, recipe: Recipe, affine: np.ndarray) -> Sample:
        """Return ``image`` and ``segmentation`` after rotation and scaling."""
        spatial = self.chain.spatial
        size = tuple(int(number) for number in spatial.patch_size)
        sample = on_box(affine, size, recipe.box, self.shape, self.device)
        given = sample, size, recipe.present, outside_label(spatial)
        return {
            "image": like(sample(lines(image, spatial), "bilinear"), image),
            "segmentation": like(moved_labels(lines(label, spatial), *given), label),
        }


def _tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _array(value: Any) -> bool:
    return isinstance(value, np.ndarray)
