"""The atlas of graphs and what lays it over an image."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.networks.graph_prior import CONTROL, GraphPrior, raster
from tests.unit.losses.test_graph_energy import SIZE, energy, graph_of, tree

VALID = torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool)
FEATURES = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def prior():
    torch.manual_seed(0)
    return GraphPrior(1, 3, 4)


def test_maps_begin_as_the_identity(prior):
    graph = graph_of(tree())
    prior.remember(graph[None])
    affine, free = prior.aligner(FEATURES, graph)
    assert torch.equal(affine[0, 0], prior.aligner.identity)
    assert not free.any()
    found = prior(FEATURES, tree()[:, None], VALID)
    torch.testing.assert_close(found.energy, energy(tree(), graph)[0, 0])
    assert float(found.bending.detach()) == 0


def test_the_aligner_learns_to_lay_a_graph_over_moved_copies(prior):
    prior.remember(graph_of(tree())[None])
    masks = torch.cat([tree(0.1, (3, -3)), tree(-0.1, (-3, 4))])[:, None]
    features = 10 * torch.nn.functional.avg_pool2d(masks, 8).repeat(1, 4, 1, 1)
    valid = VALID.expand(2, -1, -1, -1)
    before = float(prior(features, masks, valid).energy.detach())
    optimizer = torch.optim.Adam(prior.parameters(), 0.003)
    for _ in range(60):
        optimizer.zero_grad()
        found = prior(features, masks, valid)
        (found.energy + found.coarse + 10 * found.bending).backward()
        optimizer.step()
    assert float(found.energy) < before - 0.3
    affine, _ = prior.aligner(features, graph_of(tree()))
    assert affine[0, 0, 0, 2] < 0 < affine[1, 0, 0, 2], "each image has its own map"


def test_classes_without_graphs_do_not_bend():
    """The mean is over classes that have some, as that of the energies is."""
    bent = []
    for classes in (1, 3):
        torch.manual_seed(0)
        prior = GraphPrior(classes, 3, 4)
        prior.aligner.free.weight.data.normal_(generator=torch.Generator().manual_seed(1))
        graphs = torch.nn.functional.pad(graph_of(tree())[None], (0, 0, 0, 0, 0, classes - 1))
        prior.remember(graphs)
        masks = tree()[:, None].expand(-1, classes, -1, -1)
        bent.append(float(prior(FEATURES, masks, VALID).bending.detach()))
    assert bent[0] > 0
    assert bent[0] == pytest.approx(bent[1])


def test_the_atlas_keeps_the_last_graphs_with_edges(prior):
    first, second = graph_of(tree()), graph_of(tree(0.3))
    prior.remember(torch.stack([first, torch.zeros_like(first)]))
    rows, there = prior.atlas.per_class()
    assert there.tolist() == [[True, False, False]]
    prior.remember(second[None])
    rows, there = prior.atlas.per_class()
    assert there.tolist() == [[True, True, False]]
    assert torch.equal(rows[0, :2], torch.cat([second, first]).flatten(1))
    for number in range(3):
        prior.remember(graph_of(tree(0.1 * number))[None])
    assert torch.equal(prior.atlas.per_class()[0][0, 2], graph_of(tree())[0].flatten())
    again = GraphPrior(1, 3, 4)
    again.load_state_dict(prior.state_dict())
    assert torch.equal(again.atlas.per_class()[0], prior.atlas.per_class()[0])


def test_an_image_counts_by_its_valid_voxels_and_nothing_in_padding(prior):
    prior.remember(graph_of(tree())[None])
    probs = tree()[:, None].clone().requires_grad_()
    valid = VALID.clone()
    valid[:, :, : SIZE // 2] = False
    found = prior(FEATURES, probs, valid).energy
    expected = 0.5 * energy(tree() * valid[:, 0], graph_of(tree()))[0, 0]
    torch.testing.assert_close(found, expected)
    found.backward()
    assert not probs.grad[~valid].any()
    assert probs.grad[valid].any()
    assert float(prior(FEATURES, probs, torch.zeros_like(valid)).energy) == 0


def test_without_an_atlas_there_is_no_energy(prior):
    probs = torch.rand(1, 1, SIZE, SIZE, requires_grad=True)
    found = prior(FEATURES, probs, VALID)
    assert [float(one.detach()) for one in found] == [0, 0, 0]
    found.energy.backward()
    assert not probs.grad.any()


def test_a_class_without_graphs_is_left_out_of_the_mean():
    torch.manual_seed(0)
    prior = GraphPrior(2, 3, 4)
    graph = graph_of(tree())
    prior.remember(torch.stack([graph, torch.zeros_like(graph)], 1))
    found = prior(FEATURES, torch.cat([tree(), tree()])[None], VALID)
    torch.testing.assert_close(found.energy, energy(tree(), graph)[0, 0])


def test_the_raster_says_where_edges_are_and_lead():
    edges = torch.zeros(1, 4, 6)
    edges[0, 0] = torch.tensor([-0.9, -0.8, -0.7, -0.8, 3, 1])  # Along x, in the first cell.
    edges[0, 1] = torch.tensor([0.8, 0.7, 0.8, 0.9, 5, 1])  # Along y, in the last one.
    found = raster(edges)[0] / CONTROL**2
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([0.5, 0.5, 0, 1.5]))
    torch.testing.assert_close(found[:, -1, -1], torch.tensor([0.5, -0.5, 0, 2.5]))
    assert float(found[0].sum()) == 1
