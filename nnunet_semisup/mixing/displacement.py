"""Cells of a grid moved between two views of an image, to another place.

[0] Chi et al., Adaptive bidirectional displacement for semi-supervised medical image segmentation,
    CVPR 2024, arXiv 2405.00378.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.activation import confidence, probabilities
from nnunet_semisup.losses.targets import PseudoLabel


class Cells(NamedTuple):
    """Hold what a network predicts in each of N cells.

    Attributes:
        sure: ``(B, N)``, mean probability of what it predicts.
        mean: ``(B, C, N)``, mean distribution over classes; of regions, in and out of each.
    """

    sure: Tensor
    mean: Tensor


class Move(NamedTuple):
    """Say which cell is pasted where.

    Attributes:
        to: ``(B,)``, number of the cell that is replaced; -1 leaves the image as it is.
        source: ``(B,)``, number of the cell of the other view that comes there.
    """

    to: Tensor
    source: Tensor


def grid_of(spatial: Sequence[int], most: int) -> tuple[int, ...]:
    """Return the greatest number of equal cells along each axis that is at most ``most``."""
    return tuple(
        max(number for number in range(1, most + 1) if size % number == 0) for size in spatial
    )


@torch.no_grad()
def cells_of(logits: Tensor, regions: bool, grid: Sequence[int]) -> Cells:
    """Return means over the cells of a grid.

    Args:
        logits: ``(B, C, *spatial)``.
        regions: sigmoid channels instead of softmax.
        grid: cells along each axis, which divide it.
    """
    pool: Any = F.adaptive_avg_pool3d if len(grid) == 3 else F.adaptive_avg_pool2d
    probs = probabilities(logits, regions)
    sure = pool(confidence(probs, regions), grid).flatten(2).mean(1)
    mean = pool(torch.cat([probs, 1.0 - probs], 1) if regions else probs, grid).flatten(2)
    return Cells(sure, mean)


def doubted_by_alike(own: Cells, other: Cells, most: int) -> Move:
    """Replace the cell one network doubts most by a sure one of the other that is most like it.

    [0], of unlabeled images: of the ``most`` cells that the other network is surest of, the one
    whose mean prediction has the least Kullback-Leibler divergence from that of the doubted cell.
    """
    to = own.sure.argmin(1)
    doubted = _pick(own.mean, to[:, None])
    candidates = other.sure.topk(min(most, other.sure.shape[1]), dim=1).indices
    alike = _pick(other.mean, candidates)
    tiny = torch.finfo(doubted.dtype).tiny
    logs = doubted.clamp_min(tiny).log() - alike.clamp_min(tiny).log()
    nearest = (doubted * logs).sum(1).argmin(1, keepdim=True)
    return Move(to, candidates.gather(1, nearest)[:, 0])


def surest_by_doubted(own: Cells, other: Cells, probability: float) -> Move:
    """Replace the cell one network is surest of by the one that the other doubts most.

    [0], of labeled images: with a probability for each of them.
    """
    to = own.sure.argmax(1)
    chosen = torch.rand(len(to), device=to.device) < probability
    return Move(torch.where(chosen, to, -1), other.sure.argmin(1))


def displace(own: Tensor, other: Tensor, move: Move, grid: Sequence[int]) -> Tensor:
    """Return ``own`` with one cell replaced by one of ``other``, from its place to the new one.

    Args:
        own: ``(B, C, *spatial)``; images, labels or masks.
        other: the same of the other view.
        move: from which cell to which.
        grid: cells along each axis, which divide it.
    """
    cells, size = _split(own, grid)
    others, _ = _split(other, grid)
    rows = torch.arange(len(own), device=own.device)
    here = torch.arange(cells.shape[2], device=own.device) == move.to[:, None]
    mixed = torch.where(here[:, None, :, None], others[rows, :, move.source][:, :, None], cells)
    return _join(mixed, grid, size)


def displace_label(
    own: PseudoLabel, other: PseudoLabel, move: Move, grid: Sequence[int]
) -> PseudoLabel:
    """Return labels moved as :func:`displace` moves images, with their weights."""
    pairs = zip(own, other, strict=True)
    return PseudoLabel(*(displace(one, another, move, grid) for one, another in pairs))


def _pick(mean: Tensor, cells: Tensor) -> Tensor:
    """Return the means ``(B, C, M)`` of cells ``(B, M)``."""
    return mean.gather(2, cells[:, None].expand(-1, mean.shape[1], -1))


def _split(maps: Tensor, grid: Sequence[int]) -> tuple[Tensor, list[int]]:
    """Return ``(B, C, N, voxels)``, cells in raster order, and the size of a cell."""
    size = [length // number for length, number in zip(maps.shape[2:], grid, strict=True)]
    dims = len(grid)
    inner = [part for both in zip(grid, size, strict=True) for part in both]
    order = [0, 1, *range(2, 2 + 2 * dims, 2), *range(3, 3 + 2 * dims, 2)]
    parts = maps.reshape(*maps.shape[:2], *inner).permute(order)
    return parts.flatten(2 + dims).flatten(2, 1 + dims), size


def _join(cells: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
    dims = len(grid)
    order = [0, 1, *(2 + axis + dims * part for axis in range(dims) for part in (0, 1))]
    parts = cells.reshape(*cells.shape[:2], *grid, *size).permute(order)
    spatial = [number * length for number, length in zip(grid, size, strict=True)]
    return parts.reshape(*cells.shape[:2], *spatial)
