"""Classes of voxels, drawn alike from frequent and rare ones, and their distance to prototypes.

Labels have one class a voxel, the background among them. Regions overlap: each of them is a class,
and class 0 are the voxels in none of them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.activation import probabilities
from nnunet_semisup.losses.precision import float32
from nnunet_semisup.losses.targets import PseudoLabel


def class_probabilities(logits: Tensor, regions: bool) -> Tensor:
    """Return ``(B, K, *spatial)`` float32; for regions, class 0 has what the greatest one leaves.

    Args:
        logits: ``(B, C, *spatial)``; K is C, or C + 1 for regions.
        regions: sigmoid channels instead of softmax.
    """
    probs = probabilities(logits, regions)
    return torch.cat([1.0 - probs.amax(1, keepdim=True), probs], 1) if regions else probs


def classes_of(label: PseudoLabel, count: int, regions: bool) -> Tensor:
    """Return where each class is, ``(B, count, *spatial)`` bool; nowhere if it is not to be used.

    Args:
        label: class numbers, or 0/1 for regions.
        count: number of classes.
        regions: one channel a region.
    """
    used = label.weight > 0
    if regions:
        inside = label.target > 0.5
        return torch.cat([~inside.any(1, keepdim=True), inside], 1) & used.all(1, keepdim=True)
    shape = (label.target.shape[0], count, *label.target.shape[2:])
    nowhere = torch.zeros(shape, dtype=torch.bool, device=label.target.device)
    return nowhere.scatter_(1, label.target, True) & used


def draw_voxels(classes: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Draw voxels of each class at random, without waiting for the device.

    Args:
        classes: ``(B, K, *spatial)`` bool.
        most: voxels of a class that are drawn where it has as many.

    Returns:
        Their places ``(K, N)``, counted over the batch (:func:`at_voxels`), and which of these are
        of the class ``(K, N)`` bool: all that there are come first.
    """
    flat = _by_class(classes)
    lots = torch.rand(flat.shape[1], device=flat.device)
    best, places = torch.where(flat, lots, -1.0).topk(min(most, flat.shape[1]), dim=1)
    return places, best >= 0


def at_voxels(maps: Tensor, places: Tensor) -> Tensor:
    """Return what maps ``(B, D, *spatial)`` have at places ``(K, N)``: ``(K, N, D)``."""
    flat = maps.flatten(2)
    size = flat.shape[2]
    return flat[places // size, :, places % size]


def of_own_class(maps: Tensor, places: Tensor) -> Tensor:
    """Return what each class's map of ``(B, K, *spatial)`` has at its own places: ``(K, N)``."""
    return _by_class(maps).gather(1, places)


def _by_class(maps: Tensor) -> Tensor:
    return maps.transpose(0, 1).flatten(1)


@float32
def prototype_distance(rows: Tensor, weights: Tensor, prototypes: Tensor, filled: Tensor) -> Tensor:
    """Return ``1 - cosine`` of features and prototypes of their class, a mean of classes' means.

    SS-Net (Wu et al., MICCAI 2022). Classes without features or prototypes do not count; 0
    if none has both.

    Args:
        rows: features ``(K, N, D)``.
        weights: of the features ``(K, N)``, as bool which of them are to be used.
        prototypes: ``(K, M, D)``.
        filled: ``(K, M)`` bool, which prototypes exist.
    """
    cosine = F.normalize(rows, dim=-1) @ F.normalize(prototypes, dim=-1).transpose(1, 2)
    pairs = weights[:, :, None].float() * filled[:, None].float()
    total = pairs.sum((1, 2))
    means = ((1.0 - cosine) * pairs).sum((1, 2)) / total.clamp_min(1e-12)
    return means.sum() / (total > 0).sum().clamp_min(1)
