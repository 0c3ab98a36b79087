"""Batches passed to a method, and the loss terms that it returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_semisup.data.labeled_views import WEAK, maps_of
from nnunet_semisup.data.views import noisy_view, strong_view
from nnunet_semisup.losses.partial import Gaps
from nnunet_semisup.training.partial_labels import PartialLabels

Terms = dict[str, Tensor]


class Labeled(NamedTuple):
    """Hold labeled patches under nnU-Net's augmentation.

    Attributes:
        image: ``(B, C, *spatial)`` float.
        target: nnU-Net's target, a list of tensors under deep supervision.
        weak: ``(B, C, *spatial)``, the same patches with their intensities as they are, where the
            trainer sets ``labeled_weak``.
        maps: of the trainer's ``labeled_maps``, each ``(B, channels, *spatial)``.
        gaps: what the target leaves open; ``None`` where every case has labels of all classes.
    """

    image: Tensor
    target: Any
    weak: Tensor | None = None
    maps: Mapping[str, Tensor] = {}
    gaps: Gaps | None = None


class Unlabeled(NamedTuple):
    """Hold unlabeled patches under the spatial part of nnU-Net's augmentation (the weak view).

    Attributes:
        image: ``(B, C, *spatial)`` float.
        valid: ``(B, 1, *spatial)`` bool, false in padding (:mod:`nnunet_semisup.data.valid`).
        masked: ``(B, C, *spatial)`` bool, where nnU-Net sets a channel to 0 after its
            augmentation (outside of the brain, say); ``None`` where it does so nowhere.
        label: ``(B, 1, *spatial)``, of whole scans (:mod:`nnunet_semisup.data.scan_labels`);
            ``None`` where there are none.
    """

    image: Tensor
    valid: Tensor
    masked: Tensor | None = None
    label: Tensor | None = None

    def strong_view(self, probability: float = 0.8) -> Tensor:
        """Return :func:`~nnunet_semisup.data.views.strong_view` of the image, of its shape."""
        return self.masked_like_image(strong_view(self.image, probability))

    def noisy_view(self) -> Tensor:
        """Return :func:`~nnunet_semisup.data.views.noisy_view` of the image, of its shape."""
        return self.masked_like_image(noisy_view(self.image))

    def masked_like_image(self, view: Tensor) -> Tensor:
        """Return a view of the image with 0 where nnU-Net sets the image to 0."""
        return view if self.masked is None else view.masked_fill(self.masked, 0.0)


def unwrap(network: nn.Module) -> nn.Module:
    """Return the module inside DistributedDataParallel and torch.compile."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def to_device(
    batch: dict[str, Any],
    device: torch.device,
    masked_channels: Tensor | None,
    partial: PartialLabels | None = None,
) -> tuple[Labeled, Unlabeled]:
    """Return a batch of the loader as both parts of a step, on the device.

    Args:
        batch: of :class:`~nnunet_semisup.data.two_stream.NumberedLoader`.
        device: of the training.
        masked_channels: ``(1, C, 1, ...)`` bool, channels that nnU-Net sets to 0 in padding.
        partial: cases that have labels of some classes only; ``None``: there are none.
    """

    valid = _move(batch["unlabeled_valid"], device)
    masked = None if masked_channels is None else ~valid & masked_channels
    label = _move(batch["unlabeled_label"], device) if "unlabeled_label" in batch else None
    unlabeled = Unlabeled(_move(batch["unlabeled"], device), valid, masked, label)
    return labeled_part(batch, device, partial), unlabeled


def labeled_part(
    batch: dict[str, Any], device: torch.device, partial: PartialLabels | None = None
) -> Labeled:
    """Return a batch's labeled patches, on the device of the training."""
    weak = _move(batch[WEAK], device) if WEAK in batch else None
    maps = {name: _move(value, device) for name, value in maps_of(batch).items()}
    target = _move(batch["target"], device)
    gaps = None if partial is None else partial.gaps(batch["keys"], target, device)
    return Labeled(_move(batch["data"], device), target, weak, maps, gaps)


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_move(v, device) for v in value]
    return value.to(device, non_blocking=True)
