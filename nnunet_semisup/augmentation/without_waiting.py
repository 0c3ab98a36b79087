"""nnU-Net's transforms on any device: the host draws for them, and they never wait for the device.

Each is batchgeneratorsv2's own (0.3.6), which draws its numbers on the host as ever. Some of them
are applied there only, or wait for the device by their way of indexing; these are written anew
here, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform, _build_kernel
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import (
    Convert2DTo3DTransform,
    Convert3DTo2DTransform,
)
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from torch import Tensor
from torch.nn.functional import pad

TRUNCATE = 6.0
"""Width of a blur's kernel over its sigma, as batchgeneratorsv2's blur takes it."""


class DrawnSpatial(SpatialTransform):
    """Draw rotation and scaling; the points are made on the device."""

    def _get_base_grid_clone(self) -> Tensor:
        return torch.zeros((1,) * len(self.patch_size) + (len(self.patch_size),))


class Noise(GaussianNoiseTransform):
    """Add noise that the device draws, from a seed in place of nnU-Net's numbers.

    Those are drawn nevertheless, so that whatever the host draws next is what it would have been.
    """

    def get_parameters(self, **data: Any) -> dict[str, Any]:
        """Return what nnU-Net draws, and the seed."""
        drawn: dict[str, Any] = super().get_parameters(**data)
        shape = (drawn["num_apply"], *data["image"].shape[1:])
        numbers = torch.empty(shape).normal_().flatten()
        return {**drawn, "seed": int(numbers[:2].view(torch.int64)) if len(numbers) > 1 else 0}

    def _apply_to_image(self, img: Tensor, **drawn: Any) -> Tensor:
        generator = torch.Generator(img.device).manual_seed(drawn["seed"])
        sigmas = drawn["sigmas"]
        for place, channel in enumerate(drawn["apply_idx"]):
            sigma = float(sigmas[place] if isinstance(sigmas, list) else sigmas)
            noise = torch.empty_like(img[channel]).normal_(0.0, sigma, generator=generator)
            img[channel].add_(noise)
        return img


class Blur(GaussianBlurTransform):
    """Blur channels as weighted sums of shifted images, whose weights need not be sent."""

    def _apply_to_image(self, img: Tensor, **drawn: Any) -> Tensor:
        sigmas = drawn["sigmas"]
        for place, channel in enumerate(np.flatnonzero(drawn["apply_to_channel"])):
            of_axes = sigmas if self.synchronize_channels else sigmas[place]
            for axis, sigma in enumerate(of_axes):
                img[channel] = blurred(img[channel], sigma, axis)
        return img


class Mask(MaskImageTransform):
    """Set channels to a value outside."""

    def apply(self, data: dict[str, Any], **drawn: Any) -> dict[str, Any]:
        """Change ``image`` where ``segmentation`` is below 0."""
        outside = data["segmentation"][self.channel_idx_in_seg] < 0
        for channel in self.apply_to_channels:
            data["image"][channel].masked_fill_(outside, self.set_outside_to)
        return data


class RemoveLabel(RemoveLabelTransform):
    """Put one label in place of another."""

    def _apply_to_segmentation(self, segmentation: Tensor, **drawn: Any) -> Tensor:
        channels = self.segmentation_channels
        for channel in range(len(segmentation)) if channels is None else channels:
            here = segmentation[channel] == self.label_value
            segmentation[channel].masked_fill_(here, self.set_to)
        return segmentation


class Regions(ConvertSegmentationToRegionsTransform):
    """Make bool channels of regions."""

    def _apply_to_segmentation(self, segmentation: Tensor, **drawn: Any) -> Tensor:
        label = segmentation[self.channel_in_seg]
        regions = []
        for values in self.regions:
            region = torch.zeros_like(label, dtype=torch.bool)
            for value in values:
                region |= label == int(value)
            regions.append(region)
        return torch.stack(regions)


def blurred(image: Tensor, sigma: float, axis: int) -> Tensor:
    """Return an image blurred along an axis, as batchgeneratorsv2's ``blur_dimension``.

    Args:
        image: ``(*spatial)``.
        sigma: of the Gaussian, in voxels.
        axis: of the image.
    """
    weights = _build_kernel(sigma, truncate=TRUNCATE).tolist()
    radius = len(weights) // 2
    sides = [0, 0] * (image.ndim - 1 - axis) + [radius, radius] + [0, 0] * axis
    padded = pad(image[None], sides, mode="reflect")[0]
    size = image.shape[axis]
    result = padded.narrow(axis, 0, size) * weights[0]
    for shift, weight in enumerate(weights[1:], 1):
        result.add_(padded.narrow(axis, shift, size), alpha=weight)
    return result


WRITTEN_ANEW: dict[type[BasicTransform], type[BasicTransform]] = {
    SpatialTransform: DrawnSpatial,
    GaussianNoiseTransform: Noise,
    GaussianBlurTransform: Blur,
    MaskImageTransform: Mask,
    RemoveLabelTransform: RemoveLabel,
    ConvertSegmentationToRegionsTransform: Regions,
}
AS_THEY_ARE = (
    Convert3DTo2DTransform,
    Convert2DTo3DTransform,
    MultiplicativeBrightnessTransform,
    ContrastTransform,
    SimulateLowResolutionTransform,
    GammaTransform,
    MirrorTransform,
    DownsampleSegForDSTransform,
)


def without_waiting(transforms: ComposeTransforms) -> ComposeTransforms:
    """Return nnU-Net's augmentation with transforms that work on any device.

    Raises:
        ValueError: there are others; the message has their names.
    """
    unknown = sorted({type(one).__name__ for one in _inner(transforms.transforms)})
    if unknown:
        raise ValueError(", ".join(unknown))
    return ComposeTransforms([_anew(one) for one in transforms.transforms])


def _inner(transforms: Sequence[BasicTransform]) -> list[BasicTransform]:
    """Return the transforms, those applied at random themselves, that are not known here."""
    inner = [t.transform if type(t) is RandomTransform else t for t in transforms]
    return [t for t in inner if type(t) not in WRITTEN_ANEW and type(t) not in AS_THEY_ARE]


def _anew(transform: BasicTransform) -> BasicTransform:
    if type(transform) is RandomTransform:
        return RandomTransform(_anew(transform.transform), transform.apply_probability)
    kind = WRITTEN_ANEW.get(type(transform))
    if kind is None:
        return transform
    result: BasicTransform = object.__new__(kind)
    result.__dict__.update(vars(transform))
    return result
