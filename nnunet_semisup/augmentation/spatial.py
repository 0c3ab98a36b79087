"""nnU-Net's rotation and scaling, on the part of a patch that they look at.

nnU-Net 2.8.1 cuts a patch that leaves room for the greatest rotation (205 voxels an edge for one of
128), and batchgeneratorsv2 0.3.6 then reads all of it; without a rotation, the middle is all that
is left. What is drawn says beforehand which part that is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from torch import Tensor
from torch.nn.functional import grid_sample

Sampler = Callable[[Tensor, str], Tensor]
"""From values ``(C, *box)`` and ``bilinear`` or ``nearest`` to those at a transform's points."""

SCORE = 1000
"""What batchgeneratorsv2 multiplies a label's share of a voxel by, before it rounds to float16."""


@dataclass(frozen=True)
class Box:
    """Hold a part of an array's last axes.

    Attributes:
        start: its first voxel.
        size: its number of voxels.
    """

    start: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def index(self) -> tuple[Any, ...]:
        """Index that takes the part out of an array with further axes before."""
        ends = zip(self.start, self.size, strict=True)
        return (..., *(slice(start, start + size) for start, size in ends))


def can_look_ahead(spatial: SpatialTransform) -> bool:
    """Tell whether a transform is of the kind that nnU-Net makes, but for its numbers."""
    outside = {"zeros", "constant"}
    return (
        not spatial.random_crop
        and not spatial.p_elastic_deform
        and {spatial.padding_mode_image, spatial.border_mode_seg} <= outside
        and spatial.padding_value_image == 0
        and (spatial.mode_image, spatial.mode_seg) == ("bilinear", "bilinear")
        and spatial.seg_tiebreak == "nearest"
        and not spatial.align_corners
    )


def looked_at(size: Sequence[int], affine: np.ndarray | None, shape: Sequence[int]) -> Box:
    """Return the part of a patch that its middle, rotated and scaled, is interpolated from.

    Args:
        size: voxels that come out.
        affine: ``(d, d)``, from offsets to the middle of what comes out to those in the patch;
            ``None``: neither rotated nor scaled.
        shape: voxels of the patch, at least as many.
    """
    if affine is None:
        starts = [n // 2 - s // 2 for n, s in zip(shape, size, strict=True)]
        return Box(tuple(starts), tuple(int(s) for s in size))
    whole = np.asarray(shape)
    reach = np.abs(affine) @ ((np.asarray(size) - 1) / 2)
    middle = (whole - 1) / 2
    # One voxel more than interpolation reads, for what float32 rounds.
    lower = np.clip(np.floor(middle - reach).astype(int) - 1, 0, whole - 1)
    upper = np.clip(np.ceil(middle + reach).astype(int) + 1, 0, whole - 1)
    return Box(tuple(lower.tolist()), tuple((upper - lower + 1).tolist()))


def on_whole(grid: Tensor, box: Box, shape: Sequence[int]) -> Sampler:
    """Return a sampler of a box as if the whole patch were there: equal to the last bit.

    Args:
        grid: ``(*size, d)``, points as ``grid_sample`` takes them, of the whole patch.
        box: the part that they look at.
        shape: voxels of the patch.
    """

    def sample(values: Tensor, mode: str) -> Tensor:
        whole = torch.empty((len(values), *shape))  # What is not written is not read either.
        whole[box.index] = values
        return grid_sample(whole[None], grid[None], mode, "zeros", align_corners=False)[0]

    return sample


def on_box(
    affine: np.ndarray, size: Sequence[int], box: Box, shape: Sequence[int], device: torch.device
) -> Sampler:
    """Return a sampler of a box by itself, on any device; nothing is sent there.

    Args:
        affine: as in :func:`looked_at`, like ``size`` and ``shape``.
        size: voxels that come out.
        box: the part that they look at.
        shape: voxels of the patch.
        device: of the values.
    """
    dims = len(size)
    axes = [
        torch.linspace((1 - n) / 2, (n - 1) / 2, n, device=device).reshape(
            [-1 if other == axis else 1 for other in range(dims)]
        )
        for axis, n in enumerate(size)
    ]
    points = []
    for axis in range(dims):
        # Offsets to the middle of the patch, then voxels of the box, then its edges at -1 and 1.
        middle = (shape[axis] - 1) / 2 - box.start[axis]
        scale = 2 / box.size[axis]
        point = axes[0] * (float(affine[axis, 0]) * scale) + ((middle + 0.5) * scale - 1)
        for other in range(1, dims):
            point = point + axes[other] * (float(affine[axis, other]) * scale)
        points.append(point)
    grid = torch.stack([point.expand(*size) for point in reversed(points)], -1)

    def sample(values: Tensor, mode: str) -> Tensor:
        return grid_sample(values[None], grid[None], mode, "zeros", align_corners=False)[0]

    return sample


def moved_labels(
    label: Tensor, sample: Sampler, size: Sequence[int], present: Sequence[int], outside: int
) -> Tensor:
    """Return labels at the points of a sampler, as batchgeneratorsv2's SpatialTransform does.

    The label with the greatest share of a voxel; of several, that of the nearest voxel.

    Args:
        label: ``(C, *box)``.
        sample: interpolates them.
        size: voxels that come out.
        present: their values in ascending order, with ``outside`` where points may lie beyond; none
            of them: the nearest voxel's label is taken.
        outside: label of what lies beyond the patch.
    """

    def score(value: int) -> Tensor:
        here = (label == value).float()
        if value == outside:
            return sample((here - 1) * SCORE, "bilinear").add_(SCORE).half()
        return sample(here * SCORE, "bilinear").half()

    if len(present) == 1:
        return label.new_full((len(label), *size), present[0])
    near = (sample(label.float() - outside, "nearest") + outside).to(label.dtype)
    if not present:
        return near
    moved = torch.full_like(near, present[0])
    if len(present) == 2:
        upper = score(present[1])
        moved.masked_fill_(upper > SCORE / 2, present[1])
        return torch.where(upper == SCORE / 2, near, moved)
    best = score(present[0])
    of_near = torch.where(near == present[0], best, -1)
    for value in present[1:]:
        upper = score(value)
        of_near = torch.where(near == value, upper, of_near)
        moved.masked_fill_(upper > best, value)
        best = torch.maximum(best, upper)
    return torch.where(of_near == best, near, moved)


def moved_labels_at_edges(
    label: Tensor,
    grid: Tensor,
    box: Box,
    shape: Sequence[int],
    present: Sequence[int],
    outside: int,
) -> Tensor:
    """Return what :func:`moved_labels` does, to the last bit, by less work on the host.

    A voxel between eight of the same label has that label, whatever their shares; all labels are
    interpolated at the other voxels alone.

    Args:
        label: ``(1, *box)``.
        grid: as in :func:`on_whole`, like ``box`` and ``shape``.
        box: the part that the points look at.
        shape: voxels of the patch.
        present: as in :func:`moved_labels`, like ``outside``.
        outside: label of what lies beyond the patch.
    """
    sample = on_whole(grid, box, shape)
    size = grid.shape[:-1]
    if len(present) <= 2:
        return moved_labels(label, sample, size, present, outside)
    moved = moved_labels(label, sample, size, [], outside)
    at_edge = sample(edges(label[0], box, shape, outside)[None].float(), "bilinear") > 0
    points = grid[at_edge[0]][(None,) * (len(size) - 1)]
    if points.numel():
        here = on_whole(points, box, shape)
        moved[at_edge] = moved_labels(label, here, points.shape[:-1], present, outside).flatten()
    return moved


def edges(label: Tensor, box: Box, shape: Sequence[int], outside: int) -> Tensor:
    """Return which voxels of a box have a neighbour of another label, bool, of the label's shape.

    Args:
        label: ``(*box)``.
        box: a part of a patch.
        shape: voxels of the patch.
        outside: label of what lies beyond the patch.
    """
    found = torch.zeros(label.shape, dtype=torch.bool)
    for axis, (start, size) in enumerate(zip(box.start, box.size, strict=True)):
        differ = label.narrow(axis, 1, size - 1) != label.narrow(axis, 0, size - 1)
        found.narrow(axis, 1, size - 1).logical_or_(differ)
        found.narrow(axis, 0, size - 1).logical_or_(differ)
        if start == 0:
            found.select(axis, 0).logical_or_(label.select(axis, 0) != outside)
        if start + size == shape[axis]:
            found.select(axis, -1).logical_or_(label.select(axis, -1) != outside)
    return found


def outside_label(spatial: SpatialTransform) -> int:
    """Return the label of what lies beyond a patch."""
    return int(spatial.padding_value_seg) if spatial.border_mode_seg == "constant" else 0


def lines(values: Tensor, spatial: SpatialTransform) -> Tensor:
    """Return values with channels, and slices that turn alone, in the first axis."""
    return values.flatten(0, -len(spatial.patch_size) - 1)


def like(moved: Tensor, values: Tensor) -> Tensor:
    """Return what became of :func:`lines` of values with the axes of these."""
    dims = moved.dim() - 1
    return moved.reshape(*values.shape[:-dims], *moved.shape[1:])
