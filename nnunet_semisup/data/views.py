"""The strong view: intensity perturbations of whole batches on the device.

The kinds are those of nnU-Net's own augmentation but for the simulated low resolution: blur in its
range, noise up to three times as strong (a variance up to 0.1, nnU-Net's number is a deviation),
brightness, contrast and gamma in somewhat wider ranges, gamma without restoring mean and deviation
afterwards; all are applied much more often. Every image and channel draws its own parameters as
tensors on the device, so nothing waits for it and nothing loops over images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def strong_view(images: Tensor, probability: float = 0.8) -> Tensor:
    """Return an intensity-perturbed copy of ``images``; geometry is untouched.

    Args:
        images: ``(B, C, *spatial)`` float, normalised intensities.
        probability: with which each of the five kinds is applied to an image's channel.
    """
    images = images.float()
    for perturb in (_blur, _noise, _brightness, _contrast, _gamma):
        images = torch.where(_chosen(images, probability), perturb(images), images)
    return images


def noisy_view(images: Tensor, deviation: float = 0.1, limit: float = 0.2) -> Tensor:
    """Return ``images`` with a little Gaussian noise (UA-MT, MICCAI 2019, section 2.2).

    Args:
        images: ``(B, C, *spatial)`` float, normalised intensities.
        deviation: standard deviation of the noise.
        limit: greatest noise, both ways.
    """
    return images + (torch.randn_like(images) * deviation).clamp(-limit, limit)


def _per_channel(images: Tensor, low: float, high: float) -> Tensor:
    shape = (*images.shape[:2], *[1] * (images.ndim - 2))
    return torch.empty(shape, device=images.device).uniform_(low, high)


def _chosen(images: Tensor, probability: float) -> Tensor:
    return _per_channel(images, 0.0, 1.0) < probability


def _spatial(images: Tensor) -> list[int]:
    return list(range(2, images.ndim))


def _noise(images: Tensor) -> Tensor:
    variance = _per_channel(images, 0.0, 0.1)
    return images + torch.randn_like(images) * variance.sqrt()


def _brightness(images: Tensor) -> Tensor:
    return images * _per_channel(images, 0.7, 1.3)


def _contrast(images: Tensor) -> Tensor:
    axes = _spatial(images)
    mean = images.mean(axes, keepdim=True)
    low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
    changed = (images - mean) * _per_channel(images, 0.65, 1.5) + mean
    return torch.minimum(torch.maximum(changed, low), high)


def _gamma(images: Tensor) -> Tensor:
    axes = _spatial(images)
    low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
    span = (high - low).clamp_min(1e-7)
    log_gamma = _per_channel(images, -0.5, 0.5)
    flipped = _per_channel(images, 0.0, 1.0) < 0.5
    unit = ((images - low) / span).clamp(0.0, 1.0)
    unit = torch.where(flipped, 1.0 - unit, unit)
    unit = unit.clamp_min(1e-7).pow(log_gamma.exp())
    return torch.where(flipped, 1.0 - unit, unit) * span + low


def _blur(images: Tensor, radius: int = 2) -> Tensor:
    sigma = _per_channel(images, 0.5, 1.0)
    offsets = range(-radius, radius + 1)
    weights = [torch.exp(-0.5 * (o / sigma) ** 2) for o in offsets]
    total = torch.stack(weights).sum(0)
    for axis in _spatial(images):
        size = images.shape[axis]
        if size <= radius:
            continue
        pad = [0, 0] * (images.ndim - 1 - axis) + [radius, radius]
        padded = F.pad(images, pad + [0] * (2 * (images.ndim - 2) - len(pad)), mode="replicate")
        images = sum(
            (
                w * padded.narrow(axis, o + radius, size)
                for w, o in zip(weights, offsets, strict=True)
            ),
            start=torch.zeros_like(images),
        )
        images = images / total
    return images
