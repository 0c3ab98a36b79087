"""Maps of graphs, their bending, and the energy of edges on maps that are known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.draw import line

from nnunet_semisup.data.skeleton_graph import skeleton_graphs
from nnunet_semisup.losses.graph_energy import (
    COARSER,
    SOFTNESS,
    bending,
    coarser,
    deform,
    edge_energies,
    softest,
)
from nnunet_semisup.networks.graph_prior import AFFINE, CONTROL, FREE

LABELS = SimpleNamespace(has_regions=False, ignore_label=None, num_segmentation_heads=2)
SIZE = 96
IDENTITY = torch.tensor([[1.0, 0, 0], [0, 1, 0]])[None, None]
NO_SHIFT = torch.zeros(1, 1, 2, CONTROL, CONTROL)


def tree(angle=0.0, shift=(0, 0)):
    """Return the mask of a small tree, turned about the centre and moved, in voxels."""
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = np.array([[76, 48], [48, 48], [24, 30], [24, 66], [40, 76], [60, 30]]) - SIZE / 2
    points = (points @ turn.T + SIZE / 2 + np.array(shift)).round().astype(int)
    mask = np.zeros((SIZE, SIZE), bool)
    for one, other in ((0, 1), (1, 2), (1, 3), (1, 4), (1, 5)):
        mask[line(*points[one], *points[other])] = True
    grown = torch.from_numpy(mask).float()[None, None]
    return torch.nn.functional.max_pool2d(grown, 3, 1, 1)[:, 0]


def graph_of(mask):
    return skeleton_graphs(mask, LABELS)


def energy(maps, edges, affine=IDENTITY, free=NO_SHIFT):
    return edge_energies(maps, edges, affine, free)


def test_points_are_moved_by_both_maps():
    points = torch.tensor([[[0.5, -0.25], [-1.0, 1.0]]])
    turned = torch.tensor([[0.0, -1, 0.1], [1, 0, 0.2]])[None, None]
    shift = NO_SHIFT.clone()
    shift[:, :, 0] = 0.05
    moved = deform(points, turned, shift)[0, 0]
    expected = torch.tensor([[0.25 + 0.1, 0.55 + 0.2], [-1 + 0.1, -0.95 + 0.2]])
    torch.testing.assert_close(moved, expected)


def test_a_displacement_is_interpolated_between_control_points():
    free = NO_SHIFT.clone()
    places = torch.linspace(-1, 1, CONTROL)
    free[0, 0, 1] = 0.04 * places  # Along y, as a function of x.
    points = torch.tensor([[[0.3, 0.0], [-0.7, 0.5]]])
    moved = deform(points, IDENTITY, free)[0, 0]
    torch.testing.assert_close(moved, points[0] + torch.tensor([[0, 0.012], [0, -0.028]]))


def test_bending_is_zero_for_affine_displacements_only():
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, CONTROL)] * 2, indexing="ij")
    affine = torch.stack([0.1 * rows - 0.2 * columns, 0.3 * columns + 0.1])[None, None]
    assert float(bending(affine)) < 1e-12
    for curved in (rows.square(), columns.square(), rows * columns):
        assert float(bending(torch.stack([curved, curved])[None, None])) > 1e-3


def test_the_greatest_map_folds_nothing():
    """The determinant of its derivative stays above 0 in every cell."""
    random = torch.Generator().manual_seed(0)
    graphs = 200
    signs = torch.randn(1, graphs, 2, CONTROL, CONTROL, generator=random).sign()
    change = AFFINE * torch.randn(1, graphs, 2, 3, generator=random).sign()
    step = 1e-3
    at = 1.98 * torch.rand(graphs, 50, 2, generator=random) - 0.99
    points = torch.cat([at, at + torch.tensor([step, 0]), at + torch.tensor([0, step])], 1)
    moved = deform(points, IDENTITY + change, 0.99 * FREE * signs)[0]
    origin, right, down = moved.split(50, 1)
    (a, c), (b, d) = ((one - origin).unbind(-1) for one in (right, down))
    assert (a * d - b * c > 0).all()


def test_a_graph_fits_its_own_mask_best():
    mask = tree()
    edges = graph_of(mask)
    own = float(energy(mask, edges))
    assert own < 0.35
    for other in (torch.zeros_like(mask), torch.ones_like(mask), tree(0.3), tree(shift=(8, 5))):
        assert float(energy(other, edges)) > own + 0.3
    assert float(energy(torch.zeros_like(mask), edges)) == pytest.approx(1.0)


def test_the_energy_of_one_edge_is_that_of_its_definition():
    maps = torch.zeros(1, 40, 80)
    maps[0, 20] = 0.9  # Row 20 lies at y = 0.025.
    maps[0, 16] = 0.4  # Four voxels beside it: half a width of 2, and the margin.
    edges = torch.zeros(1, 3, 6)
    edges[0, 0] = torch.tensor([-0.5, 0.025, 0.5, 0.025, 2.0, 1.0])
    assert float(energy(maps, edges)) == pytest.approx(1 - 0.72**2, abs=1e-5)
    assert float(energy(maps, torch.zeros(1, 3, 6))) == 0
    edges[0, 1] = torch.tensor([1.5, 0, 1.8, 0, 2, 1])  # Outside of the patch.
    assert float(energy(maps, edges)) == pytest.approx((1 - 0.72**2 + 1) / 2, abs=1e-5)


@pytest.mark.parametrize(("angle", "shift"), [(0.1, (0, 0)), (0.1, (3, -3))])
def test_descending_the_energies_lays_a_graph_over_its_moved_copy(angle, shift):
    mask, edges = tree(angle, shift), graph_of(tree())
    coarse = coarser(mask[:, None])[:, 0]
    affine = IDENTITY.clone().requires_grad_()
    optimizer = torch.optim.Adam([affine], 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        both = energy(mask, edges, affine) + edge_energies(coarse, edges, affine, NO_SHIFT, COARSER)
        both.backward()
        optimizer.step()
    own = float(energy(tree(), edges))
    assert float(energy(mask, edges)) > own + 0.3
    assert float(energy(mask, edges, affine.detach())) < own + 0.05
    # Rows and columns turn the other way round than x and y.
    cosine, sine = math.cos(angle), math.sin(angle)
    right = [[cosine, sine, 2 * shift[1] / SIZE], [-sine, cosine, 2 * shift[0] / SIZE]]
    assert affine.detach()[0, 0].sub(torch.tensor(right)).abs().max() < 0.08


def test_a_coarser_map_keeps_thin_structures_and_has_no_gradient():
    mask = tree()[:, None].requires_grad_()
    coarse = coarser(mask)
    assert coarse.shape == (1, 1, SIZE // COARSER, SIZE // COARSER)
    assert not coarse.requires_grad
    assert set(coarse.unique().tolist()) == {0.0, 1.0}
    own = edge_energies(coarse[:, 0], graph_of(tree()), IDENTITY, NO_SHIFT, COARSER)
    moved = IDENTITY.clone()
    moved[..., 2] = 2 * 12 / SIZE
    assert float(own) < 0.4
    assert float(edge_energies(coarse[:, 0], graph_of(tree()), moved, NO_SHIFT, COARSER)) > 0.6


def test_the_energy_teaches_the_map_of_probabilities():
    mask = tree()
    probs = torch.full_like(mask, 0.5).requires_grad_()
    energy(probs, graph_of(mask)).backward()
    inside = probs.grad[mask > 0]
    assert inside.mean() < 0
    assert probs.grad[mask == 0].mean() > 0


def test_an_edge_that_finds_nothing_asks_for_nothing():
    """And one of which a part is found, for the rest: a map is not covered with edges."""
    edges = torch.zeros(1, 2, 6)
    edges[0, 0] = torch.tensor([-0.5, 0.025, 0.5, 0.025, 2.0, 1.0])
    asked = []
    for part in (0.0, 0.9):
        maps = torch.full((1, 40, 80), 0.001)
        maps[0, 20, 40:] += part
        energy(maps.requires_grad_(), edges).backward()
        asked.append(float(-maps.grad[0, 20, :38].min()))
    assert asked[0] < 0.002
    assert asked[1] > 0.1


def test_the_soft_minimum_lies_between_the_least_and_the_mean():
    energies = torch.tensor([[0.2, 0.5, 0.9], [0.7, 0.7, 0.1]])
    found = softest(energies, torch.tensor([True, True, False]))
    assert 0.2 < float(found[0]) < 0.35
    assert float(found[0]) == pytest.approx(0.2 + SOFTNESS * math.log(2), abs=1e-3)
    assert float(found[1]) == pytest.approx(0.7)
    none = softest(energies.requires_grad_(), torch.zeros(3, dtype=torch.bool))
    assert none.tolist() == [0, 0]
    none.sum().backward()
    assert not energies.grad.any()
