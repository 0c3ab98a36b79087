"""A graph that a smooth map lays over an image, and its energy on a probability map.

The map is T(v) = A (v + u(v)) + t: an affine one after a free-form one, whose displacements u are
interpolated between control points. The energy of an edge is 1 - (p (1 - q))^2, with p the mean
probability along it and q that beside it, outside of the width that it had in its own mask: 0 where
the edge runs within a structure of that width. By the square, an edge that finds nothing asks for
nothing, and one that finds a part of a structure asks for the rest. A graph that lies a few voxels
off gets no gradient from such a map; :func:`coarser` gives one that shows it the way.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.losses.precision import float32

ALONG = (1 / 6, 1 / 2, 5 / 6)
"""Where an edge is looked at, as shares of its length."""
MARGIN = 2.0
"""Voxels beyond the half width at which it is looked at beside the edge."""
COARSER = 4
"""Voxels an axis in one of the coarser map."""
SOFTNESS = 0.05
"""Temperature of the choice among the graphs of an atlas."""


class Deformation(NamedTuple):
    """Hold maps of G graphs each to B images.

    Attributes:
        affine: ``(B, G, 2, 3)``, A and t.
        free: ``(B, G, 2, n, n)``, u at the control points, the outer ones on the patch's border.
    """

    affine: Tensor
    free: Tensor


@float32
def deform(points: Tensor, affine: Tensor, free: Tensor) -> Tensor:
    """Return where each map moves the points.

    Args:
        points: ``(G, N, 2)`` of each graph, x and y, -1 to 1 from border to border.
        affine: as of :class:`Deformation`.
        free: the same.

    Returns:
        ``(B, G, N, 2)``.
    """
    images, graphs = affine.shape[:2]
    repeated = points.expand(images, *points.shape)
    displacement = F.grid_sample(
        free.flatten(0, 1),
        repeated.flatten(0, 1)[:, :, None],
        padding_mode="border",
        align_corners=True,
    )
    displacement = displacement[..., 0].unflatten(0, (images, graphs)).transpose(2, 3)
    moved = repeated + displacement
    return torch.einsum("bgij,bgnj->bgni", affine[..., :2], moved) + affine[..., None, :, 2]


@float32
def bending(free: Tensor) -> Tensor:
    """Return the mean bending of free-form maps: squared second differences; 0 for an affine one.

    Args:
        free: ``(B, G, 2, n, n)``, ``n`` 3 or more.
    """
    rows, columns = free.diff(n=2, dim=-2), free.diff(n=2, dim=-1)
    mixed = free.diff(dim=-2).diff(dim=-1)
    return rows.square().mean() + columns.square().mean() + 2 * mixed.square().mean()


@float32
def coarser(maps: Tensor) -> Tensor:
    """Return maps whose voxels are the greatest of several, where thin structures stay as bright.

    Without gradient: it would make them thicker.

    Args:
        maps: ``(B, C, h, w)``.
    """
    return F.max_pool2d(maps.detach(), COARSER, ceil_mode=True)


@float32
def edge_energies(
    maps: Tensor, edges: Tensor, affine: Tensor, free: Tensor, voxel: int = 1
) -> Tensor:
    """Return the mean energy of each graph's edges on each image.

    Outside of the patch the probability is 0, so that no edge gains by leaving it.

    Args:
        maps: ``(B, h, w)`` probabilities of one class, 0 where nothing counts.
        edges: ``(G, E, 6)`` graphs, as of
            :func:`~nnunet_semisup.data.skeleton_graph.skeleton_graphs`.
        affine: as of :class:`Deformation`.
        free: the same.
        voxel: voxels of the patch in one of the maps, an axis.

    Returns:
        ``(B, G)`` in [0, 1]; 0 for a graph without edges.
    """
    number = edges.shape[1]
    ends = torch.cat([edges[..., :2], edges[..., 2:4]], 1)
    start, end = deform(ends, affine, free).split(number, 2)
    places = [start + share * (end - start) for share in ALONG]
    side = _sideways(end - start, edges[..., 4] / voxel + MARGIN, maps.shape[-2:])
    beside = [place + sign * side for sign in (-1, 1) for place in places]
    grid = torch.stack([*places, *beside], 3).flatten(1, 2)
    found = F.grid_sample(maps[:, None], grid, align_corners=False)
    found = found[:, 0].unflatten(1, (edges.shape[0], number))
    on, off = found[..., : len(ALONG)].mean(3), found[..., len(ALONG) :].mean(3)
    there = edges[..., 5]
    energies = (1 - (on * (1 - off)).square()) * there
    return energies.sum(2) / there.sum(1).clamp_min(1)


def _sideways(along: Tensor, voxels: Tensor, size: torch.Size) -> Tensor:
    """Return vectors across edges, of a length in voxels.

    Args:
        along: ``(B, G, E, 2)``, x and y from end to end; of no length: any direction.
        voxels: ``(G, E)``.
        size: height and width of the patch.
    """
    height, width = size
    across = torch.stack([-along[..., 1] * height, along[..., 0] * width], -1)
    across = F.normalize(torch.where(across.abs().sum(-1, True) > 1e-6, across, 1.0), dim=-1)
    x, y = (across * voxels[..., None]).unbind(-1)
    return torch.stack([2 * x / width, 2 * y / height], -1)


def softest(energies: Tensor, there: Tensor) -> Tensor:
    """Return the soft minimum of each image's energies over the graphs of an atlas.

    ``-s log(mean of exp(-E / s))``: the free energy of a mixture of the graphs with equal shares,
    between their least energy and their mean.

    Args:
        energies: ``(B, G)``.
        there: ``(G,)`` bool; graphs that count.

    Returns:
        ``(B,)``; 0 where none counts.
    """
    scaled = (-energies / SOFTNESS).masked_fill(~there, -1e4)
    mean = scaled.logsumexp(1) - there.sum().clamp_min(1).log()
    return torch.where(there.any(), -SOFTNESS * mean, 0.0)
