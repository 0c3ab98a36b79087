"""An atlas of graphs from labeled patches, and the network that lays them over an image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_semisup.data.skeleton_graph import EDGES, NUMBERS
from nnunet_semisup.losses.graph_energy import (
    COARSER,
    Deformation,
    bending,
    coarser,
    edge_energies,
    softest,
)
from nnunet_semisup.losses.precision import float32
from nnunet_semisup.networks.class_memory import ClassMemory

CONTROL = 6
"""Control points an axis; images and graphs are compared on the same grid."""
WIDTH = 32
"""Channels of that comparison."""
AFFINE = 0.25
"""Greatest change of an entry of the affine matrix, which stays invertible."""
SHIFT = 0.25
"""Greatest translation; the patch is 2 wide. A graph that were moved out of it would be lost."""
FREE = 0.1
"""Greatest displacement of a control point, a quarter of their distance: nothing folds."""


class Aligner(nn.Module):
    """Predict the map of each graph to each image; before the first step, the identity.

    Args:
        width: channels of the images' features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_image = nn.Conv2d(width, WIDTH, 1)
        self.of_graph = nn.Conv2d(NUMBERS - 2, WIDTH, 1)
        self.compare = nn.Sequential(
            nn.LeakyReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.LeakyReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.LeakyReLU(),
        )
        self.affine = nn.Linear(WIDTH * CONTROL**2, 6)
        self.free = nn.Conv2d(WIDTH, 2, 1)
        for last in (self.affine, self.free):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        self.register_buffer("identity", torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        self.register_buffer("reach", torch.tensor([[AFFINE, AFFINE, SHIFT]] * 2))

    def forward(self, features: Tensor, edges: Tensor) -> Deformation:
        """Return the maps.

        Args:
            features: ``(B, width, h, w)`` of the images.
            edges: ``(G, E, 6)`` graphs.
        """
        image = self.of_image(F.adaptive_avg_pool2d(features, CONTROL))
        graph = self.of_graph(raster(edges))
        pairs = image[:, None] + graph
        compared = self.compare(pairs.flatten(0, 1))
        affine = self.affine(compared.flatten(1) / CONTROL**2).float().tanh()
        affine = affine.view(*pairs.shape[:2], 2, 3)
        free = FREE * self.free(compared).float().tanh().unflatten(0, pairs.shape[:2])
        return Deformation(self.identity + self.reach * affine, free)


@torch.no_grad()
@float32
def raster(edges: Tensor) -> Tensor:
    """Return how many edges lie in each cell of a grid, where they lead, and how wide they are.

    Args:
        edges: ``(G, E, 6)``.

    Returns:
        ``(G, 4, CONTROL, CONTROL)``: the share of the graph's edges, times cosine and sine of twice
        their angle, and times their half width in voxels; times the number of cells.
    """
    start, end, half, there = edges.split([2, 2, 1, 1], 2)
    x, y = (end - start).unbind(-1)
    angle = 2 * torch.atan2(y, x)
    rows = torch.stack([torch.ones_like(angle), angle.cos(), angle.sin(), half[..., 0]], 1)
    cell = ((0.5 * (start + end) + 1) * 0.5 * CONTROL).long().clamp(0, CONTROL - 1)
    cell = (cell[..., 1] * CONTROL + cell[..., 0])[:, None].expand_as(rows)
    share = there.transpose(1, 2) * CONTROL**2 / there.sum(1)[..., None].clamp_min(1)
    sums = torch.zeros(*rows.shape[:2], CONTROL**2, device=edges.device)
    return sums.scatter_add(2, cell, rows * share).unflatten(2, (CONTROL, CONTROL))


class Aligned(NamedTuple):
    """Hold how an atlas fits images.

    Attributes:
        energy: on the probabilities, mean over images and classes, a scalar.
        coarse: the same on coarser maps, which teaches the maps alone.
        bending: of the free-form maps, mean over classes, a scalar.

    Classes without graphs yet are left out.
    """

    energy: Tensor
    coarse: Tensor
    bending: Tensor


class GraphPrior(nn.Module):
    """Keep the last graphs of each class, and measure how they fit probability maps.

    The atlas is in the frame of a patch, with the augmentation that labeled patches have: where in
    its case an unlabeled patch lies is not known. It works on graphs that the workers made, so it
    is trained outside of the network, and in distributed training each process keeps those of its
    own patches.

    Args:
        classes: foreground classes or regions.
        size: graphs of each.
        width: channels of the features that the maps are predicted from.
    """

    def __init__(self, classes: int, size: int, width: int) -> None:
        super().__init__()
        self.aligner = Aligner(width)
        self.atlas = ClassMemory(classes, size, EDGES * NUMBERS)

    @torch.no_grad()
    def remember(self, graphs: Tensor) -> None:
        """Put graphs that have edges before those that are there, of which the oldest go.

        Args:
            graphs: ``(B, classes, EDGES, NUMBERS)``.
        """
        images, classes = graphs.shape[:2]
        numbers = torch.arange(classes, device=graphs.device).expand(images, -1)
        scores = torch.where(graphs[..., 5].any(2), 0.0, -torch.inf)
        self.atlas.push(graphs.flatten(2).flatten(0, 1), numbers.flatten(), scores.flatten())

    def forward(self, features: Tensor, probs: Tensor, valid: Tensor) -> Aligned:
        """Lay the atlas over images.

        Args:
            features: ``(B, width, h, w)`` of the images.
            probs: ``(B, classes, H, W)`` probabilities of the foreground.
            valid: ``(B, 1, H, W)`` bool, where they count: elsewhere they are 0, and an image
                counts by its share of such voxels.
        """
        rows, there = self.atlas.per_class()
        shares = valid.float().mean((1, 2, 3))
        fine = probs * valid
        coarse = coarser(fine)
        found = []
        for number, graphs in enumerate(rows.unflatten(2, (EDGES, NUMBERS))):
            affine, free = self.aligner(features, graphs)
            energies = (
                edge_energies(fine[:, number], graphs, affine, free),
                edge_energies(coarse[:, number], graphs, affine, free, COARSER),
            )
            least = [(shares * softest(one, there[number])).mean() for one in energies]
            found.append(torch.stack([*least, bending(free) * there[number].any()]))
        known = there.any(1).sum().clamp_min(1)
        return Aligned(*(torch.stack(found).sum(0) / known))
