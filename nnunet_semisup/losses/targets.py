"""Targets that a network is trained towards: hard labels, sharpened probabilities, doubt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from acvl_utils.morphology.morphology_helper import remove_all_but_largest_component
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.activation import confidence, hard_labels, probabilities
from nnunet_semisup.losses.precision import float32


class PseudoLabel(NamedTuple):
    """Hold what a network is asked to predict, and where.

    Attributes:
        target: ``(B, 1, *spatial)`` int64 class numbers, or ``(B, C, *spatial)`` 0/1 for regions.
        weight: same shape, float; 0 where the label is not to be used.
    """

    target: Tensor
    weight: Tensor

    def rolled(self) -> PseudoLabel:
        """Return the labels in which each item is the one before it in the batch."""
        return PseudoLabel(self.target.roll(1, 0), self.weight.roll(1, 0))

    def repeated(self, number: int) -> PseudoLabel:
        """Return the labels of ``number`` items: those of the batch, from the first on again."""
        return PseudoLabel(repeated(self.target, number), repeated(self.weight, number))

    @property
    def used(self) -> Tensor:
        """``(B, 1, *spatial)`` bool, where the label is to be used in any channel."""
        return (self.weight > 0).any(1, keepdim=True)

    def within(self, mask: Tensor) -> PseudoLabel:
        """Return the same labels with weight 0 where ``mask``, bool and broadcastable, is false."""
        return PseudoLabel(self.target, self.weight * mask)

    def weighted(self, factor: float) -> PseudoLabel:
        """Return the same labels with as many times their weight."""
        return PseudoLabel(self.target, self.weight * factor)

    def resized(self, spatial: Sequence[int]) -> PseudoLabel:
        """Return the labels at another resolution: the voxels that nnU-Net 2.8.1 takes itself.

        Its ``DownsampleSegForDSTransform`` interpolates by ``nearest-exact`` to the size of the
        decoder's output.
        """
        if tuple(self.target.shape[2:]) == tuple(spatial):
            return self
        size = tuple(spatial)
        target = F.interpolate(self.target.float(), size, mode="nearest-exact")
        weight = F.interpolate(self.weight.float(), size, mode="nearest-exact")
        return PseudoLabel(target.to(self.target.dtype), weight)


def repeated(batch: Tensor, number: int) -> Tensor:
    """Return ``number`` items of a batch, from the first on again where it has fewer."""
    if len(batch) == number:
        return batch
    return batch[torch.arange(number, device=batch.device) % len(batch)]


def one_hot(target: Tensor, classes: int, regions: bool) -> Tensor:
    """Return hard labels as probabilities ``(B, C, *spatial)``, 0 or 1.

    Args:
        target: as of :class:`PseudoLabel`.
        classes: number of channels of the result.
        regions: ``target`` has them already.
    """
    if regions:
        return target.float()
    shape = (target.shape[0], classes, *target.shape[2:])
    return torch.zeros(shape, device=target.device).scatter_(1, target, 1.0)


@torch.no_grad()
def pseudo_label(
    logits: Tensor, regions: bool, threshold: float | None, valid: Tensor | None = None
) -> PseudoLabel:
    """Return hard labels of a teacher with weight 1 where it is confident, else 0.

    A voxel below the threshold is left out; it never becomes background. (FixMatch, Sohn et al.,
    NeurIPS 2020, eq. 4, with labels per voxel.)

    Args:
        logits: ``(B, C, *spatial)`` of the teacher.
        regions: sigmoid channels instead of softmax.
        threshold: least confidence; ``None`` uses every voxel.
        valid: ``(B, 1, *spatial)`` bool, false in padding.
    """
    probs = probabilities(logits, regions)
    sure = confidence(probs, regions)
    weight = torch.ones_like(sure) if threshold is None else (sure >= threshold).float()
    if valid is not None:
        weight = weight * valid
    return PseudoLabel(hard_labels(probs, regions), weight)


def weighted_by_image(label: PseudoLabel, valid: Tensor) -> PseudoLabel:
    """Return labels of which each valid voxel has the confident share of its image as weight.

    ReCo (Liu et al., ICLR 2022, arXiv 2104.04465); for regions, of its channel.

    Args:
        label: with weight 1 where it is confident, else 0.
        valid: ``(B, 1, *spatial)`` bool, false in padding.
    """
    axes = list(range(2, valid.ndim))
    share = label.weight.sum(axes, keepdim=True) / valid.sum(axes, keepdim=True).clamp_min(1)
    return PseudoLabel(label.target, share * valid)


def performance_shares(losses: Tensor) -> Tensor:
    """Return members' shares in a common label ``(M,)``, which add up to 1, by their losses.

    VCLIPSeg (Li et al., MICCAI 2024), dynamic labeling branch: ``softmax_k(1 - sigmoid(loss_k))``;
    of two members with Dice losses, 0 to 1, no share is above 0.56.

    Args:
        losses: ``(M,)``.
    """
    return (1.0 - losses.float().sigmoid()).softmax(0)


@torch.no_grad()
def joint_label(
    outputs: Sequence[Tensor], shares: Tensor, regions: bool, valid: Tensor | None = None
) -> PseudoLabel:
    """Return the hard labels of several members' probabilities, averaged by shares.

    Args:
        outputs: of the members, ``(B, C, *spatial)`` logits.
        shares: ``(M,)``, which add up to 1.
        regions: sigmoid channels instead of softmax.
        valid: ``(B, 1, *spatial)`` bool, false in padding.
    """
    # Not by einsum, which autocast computes in half precision.
    weighted = [
        share * probabilities(one, regions) for share, one in zip(shares, outputs, strict=True)
    ]
    target = hard_labels(torch.stack(weighted).sum(0), regions)
    weight = torch.ones_like(target, dtype=torch.float32)
    return PseudoLabel(target, weight if valid is None else weight * valid)


def labels_of_target(target: Any, ignore_label: int | None, regions: bool) -> PseudoLabel:
    """Return nnU-Net's target at full resolution as labels, with weight 0 where it says "ignore".

    Args:
        target: ``(B, 1, *spatial)`` class numbers; for regions ``(B, R, *spatial)`` 0/1, with an
            ignore label one more channel that is 1 where it applies; a list of them under deep
            supervision.
        ignore_label: its number, or ``None``.
        regions: one channel a region.
    """
    full: Tensor = target[0] if isinstance(target, (list, tuple)) else target
    if regions:
        if ignore_label is None:
            return PseudoLabel(full.float(), torch.ones_like(full, dtype=torch.float32))
        weight = 1.0 - full[:, -1:].float()
        return PseudoLabel(full[:, :-1].float(), weight.expand_as(full[:, :-1]))
    classes = full.long()
    if ignore_label is None:
        return PseudoLabel(classes, torch.ones_like(classes, dtype=torch.float32))
    ignored = classes == ignore_label
    return PseudoLabel(classes.masked_fill(ignored, 0), (~ignored).float())


@float32
def sharpen(probs: Tensor, temperature: float, regions: bool) -> Tensor:
    """Return probabilities raised to ``1 / temperature`` and normalised again.

    MC-Net (Wu et al., MICCAI 2021), eq. 2, whose ``p^(1/T) / (p^(1/T) + (1 - p)^(1/T))`` is meant
    for two classes; for more, the sum runs over all of them, so that the result is a distribution,
    and regions keep the binary form, channel by channel. Gradient flows through.

    Args:
        probs: ``(B, C, *spatial)``.
        temperature: in (0, 1]; 1 changes nothing.
        regions: channels overlap and are sharpened one by one.
    """
    power = 1.0 / temperature
    if regions:
        # Divided by the greater side first: a high power of both may be 0 in float32.
        largest = torch.maximum(probs, 1.0 - probs).detach()
        own, other = (probs / largest).pow(power), ((1.0 - probs) / largest).pow(power)
        return own / (own + other)
    raised = (probs / probs.amax(1, keepdim=True).detach()).pow(power)
    return raised / raised.sum(1, keepdim=True)


@float32
def normalised_entropy(probs: Tensor, regions: bool) -> Tensor:
    """Return the entropy of each voxel's prediction as a share of the greatest possible one.

    UA-MT (Yu et al., MICCAI 2019), eq. 3, divided by ``ln C``, or for regions by ``ln 2`` in each
    channel. As there, 1e-6 is added within the logarithm; the result therefore stays below 1.

    Args:
        probs: ``(B, C, *spatial)``, ``C`` at least 2 unless ``regions``.
        regions: channels overlap; each has an entropy of its own.

    Returns:
        ``(B, 1, *spatial)``, for regions ``(B, C, *spatial)``, in [0, 1).
    """
    if regions:
        entropy = _surprise(probs) + _surprise(1.0 - probs)
        return (entropy / math.log(2)).clamp_min(0.0)
    entropy = _surprise(probs).sum(1, keepdim=True)
    return (entropy / math.log(probs.shape[1])).clamp_min(0.0)


@float32
def distance_to_mask(distance: Tensor, steepness: float) -> Tensor:
    """Return the probabilities of being inside that signed distances stand for.

    DTC (Luo et al., AAAI 2021, arXiv 2009.04448): ``sigmoid(-k z)``, a smooth step at the
    boundary. Its argument is kept within 30: beyond, a float32 sigmoid is 0 or 1 all the same.

    Args:
        distance: ``(B, C, *spatial)`` in [-1, 1], negative inside.
        steepness: ``k``.
    """
    return torch.sigmoid((-steepness * distance).clamp(-30.0, 30.0))


def _surprise(probs: Tensor) -> Tensor:
    return -probs * (probs + 1e-6).log()


@torch.no_grad()
def largest_component(target: Tensor, classes: int, regions: bool) -> Tensor:
    """Return hard labels in which each class of each image is its largest component alone.

    What is removed becomes background. A region that lies in another one is looked for within what
    is kept of that. Voxels that touch by a corner belong together; of components of equal size all
    stay. It is done on the host, one class and image after the other, and waits for the device.

    Args:
        target: ``(B, 1, *spatial)`` class numbers, or ``(B, R, *spatial)`` 0/1 for regions.
        classes: number of classes, the background among them; not read for regions.
        regions: every channel is a class.

    Returns:
        A tensor like ``target``.
    """
    labels = target.cpu().numpy()
    kept = np.zeros_like(labels)
    for image, result in zip(labels, kept, strict=True):
        if regions:
            _keep_largest_regions(image > 0, result)
            continue
        for number in range(1, classes):
            result[0][_largest(image[0] == number)] = number
    return torch.from_numpy(kept).to(target.device)


def _keep_largest_regions(image: np.ndarray, result: np.ndarray) -> None:
    """Mark the largest component of each channel of ``(R, *spatial)`` bool in ``result``."""
    done: list[int] = []
    for number in np.argsort(-image.reshape(len(image), -1).sum(1), kind="stable"):
        within = [result[other] > 0 for other in done if image[other][image[number]].all()]
        result[number][_largest(np.logical_and.reduce([image[number], *within]))] = 1
        done.append(int(number))


def _largest(mask: np.ndarray) -> np.ndarray:
    return remove_all_but_largest_component(mask) if mask.any() else mask
