"""Graphs of labeled patches' skeletons, made in the workers: members of an atlas.

Nodes lie on the skeleton, one in each cell of a grid that the skeleton passes; an edge joins two of
them whose parts of the skeleton (the points nearest to each along it) touch.
"""

from __future__ import annotations

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from scipy.ndimage import binary_dilation
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize
from torch import Tensor

from nnunet_semisup.losses.targets import labels_of_target

EDGES = 256
"""Edges of a graph, at most; where there are more, as many are taken at even distances."""
CELL = 8
"""Voxels between two nodes, about."""
NUMBERS = 6
"""Numbers of an edge: x and y of both ends, half of the width in voxels, 1 (0: no edge)."""


def skeleton_graphs(segmentation: Tensor, labels: LabelManager) -> Tensor:
    """Return the graph of each foreground class or region.

    Coordinates are those of ``grid_sample`` (``align_corners=False``): -1 to 1 from border to
    border, x along the last axis. Voxels with the ignore label are outside of every class.

    Args:
        segmentation: nnU-Net's target of one 2D patch, class numbers ``(1, h, w)`` or for regions
            0/1 ``(R, h, w)`` with an ignore label as one more channel.
        labels: of the data set.

    Returns:
        ``(C, EDGES, NUMBERS)`` float32; rows behind the last edge are 0.
    """
    regions = labels.has_regions
    label = labels_of_target(segmentation[None], labels.ignore_label, regions)
    inside, known = label.target[0], label.weight[0] > 0
    if regions:
        masks = (inside > 0) & known
    else:
        numbers = range(1, labels.num_segmentation_heads)
        masks = torch.cat([inside == number for number in numbers]) & known
    return torch.from_numpy(np.stack([_rows(mask) for mask in masks.numpy()]))


def skeleton_graph(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the graph of a mask's skeleton.

    A node without neighbours has an edge to itself, so that every part of the mask has an edge;
    of parts that share a cell some are left out.

    Args:
        mask: ``(h, w)`` bool.

    Returns:
        Nodes ``(n, 2)``, row and column in voxels, and edges ``(m, 2)``, numbers of nodes.
    """
    voxels = np.argwhere(skeletonize(mask))
    if len(voxels) == 0:
        return np.zeros((0, 2), int), np.zeros((0, 2), int)
    nodes = _one_of_each_cell(voxels)
    near = cKDTree(voxels).query_pairs(1.5, output_type="ndarray")
    lengths = np.linalg.norm(voxels[near[:, 0]] - voxels[near[:, 1]], axis=1)
    steps = coo_array((lengths, (near[:, 0], near[:, 1])), shape=(len(voxels),) * 2).tocsr()
    *_, owners = dijkstra(
        steps, directed=False, indices=nodes, min_only=True, return_predecessors=True
    )
    number = np.full(len(voxels), -1)
    number[nodes] = np.arange(len(nodes))
    reached = near[(owners[near] >= 0).all(1)]
    joined = np.sort(number[owners[reached]], 1)
    joined = joined[joined[:, 0] != joined[:, 1]]
    alone = np.setdiff1d(np.arange(len(nodes)), joined)
    return voxels[nodes], np.unique(np.concatenate([joined, np.stack([alone] * 2, 1)]), axis=0)


def _one_of_each_cell(voxels: np.ndarray) -> np.ndarray:
    """Return the number of the voxel of each cell that is nearest to the mean of its voxels."""
    _, cells = np.unique(voxels // CELL, axis=0, return_inverse=True)
    cells = cells.reshape(-1)
    counts = np.bincount(cells)
    means = np.stack([np.bincount(cells, axis) / counts for axis in voxels.T], 1)
    order = np.lexsort((np.linalg.norm(voxels - means[cells], axis=1), cells))
    return order[np.unique(cells[order], return_index=True)[1]]


def _rows(mask: np.ndarray) -> np.ndarray:
    rows = np.zeros((EDGES, NUMBERS), np.float32)
    nodes, edges = skeleton_graph(mask)
    if len(edges) == 0:
        return rows
    if len(edges) > EDGES:
        edges = edges[np.linspace(0, len(edges) - 1, EDGES).round().astype(int)]
    places = ((2 * nodes + 1) / np.array(mask.shape) - 1)[:, ::-1]
    padded = np.pad(mask, 1)
    rim = np.argwhere(binary_dilation(padded) & ~padded) - 1
    depth, _ = cKDTree(rim).query(nodes)
    rows[: len(edges), :2], rows[: len(edges), 2:4] = places[edges[:, 0]], places[edges[:, 1]]
    rows[: len(edges), 4], rows[: len(edges), 5] = depth[edges].mean(1), 1
    return rows
