"""Voxels drawn from each class, and their distance to prototypes."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.losses.prototypes import (
    at_voxels,
    class_probabilities,
    classes_of,
    draw_voxels,
    of_own_class,
    prototype_distance,
)
from nnunet_semisup.losses.targets import PseudoLabel

SHAPES = pytest.mark.parametrize("spatial", [(6, 5), (3, 4, 5)], ids=["2D", "3D"])


def random_classes(spatial, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, classes, *spatial, generator=generator) < 0.3


@SHAPES
def test_voxels_in_no_region_are_class_0(spatial):
    target = random_classes(spatial, 2).float()
    weight = torch.ones_like(target)
    weight[:, :, 0] = 0
    found = classes_of(PseudoLabel(target, weight), 3, True)
    assert torch.equal(found[:, 1:, 1:], target[:, :, 1:] == 1)
    assert torch.equal(found[:, 0, 1:], target[:, :, 1:].sum(1) == 0)
    assert not found[:, :, 0].any()


@SHAPES
def test_each_voxel_has_its_label(spatial):
    target = torch.randint(0, 4, (2, 1, *spatial))
    weight = torch.ones(2, 1, *spatial)
    weight[:, :, 0] = 0
    found = classes_of(PseudoLabel(target, weight), 4, False)
    for number in range(4):
        assert torch.equal(found[:, number, 1:], target[:, 0, 1:] == number)
    assert not found[:, :, 0].any()


def test_probability_of_no_region_is_what_the_greatest_leaves():
    logits = torch.randn(2, 2, 4, 4)
    probs = class_probabilities(logits, True)
    torch.testing.assert_close(probs[:, 0], 1 - logits.sigmoid().amax(1))
    torch.testing.assert_close(probs[:, 1:], logits.sigmoid())
    torch.testing.assert_close(class_probabilities(logits, False), logits.softmax(1))


@SHAPES
@pytest.mark.parametrize("most", [1, 7, 10_000])
def test_drawn_are_voxels_of_the_class_without_repetition(spatial, most):
    classes = random_classes(spatial)
    places, there = draw_voxels(classes, most)
    voxels = classes[:, 0].numel()
    assert places.shape == there.shape == (3, min(most, voxels))
    for number in range(3):
        flat = classes[:, number].flatten()
        chosen = places[number][there[number]]
        assert len(chosen) == min(most, int(flat.sum()))
        assert flat[chosen].all()
        assert len(chosen.unique()) == len(chosen)
        assert there[number][: len(chosen)].all()


def test_every_voxel_is_drawn_alike():
    classes = random_classes((8, 8))
    counts = torch.zeros(3, 128)
    for seed in range(400):
        torch.manual_seed(seed)
        places, there = draw_voxels(classes, 10)
        counts.scatter_add_(1, places, there.float())
    for number in range(3):
        flat = classes[:, number].flatten()
        share = counts[number][flat] / 400
        expected = 10 / int(flat.sum())
        assert (share - expected).abs().max() < 5 * (expected * (1 - expected) / 400) ** 0.5


def test_a_class_that_is_not_there_has_none():
    places, there = draw_voxels(torch.zeros(1, 2, 4, 4, dtype=torch.bool), 5)
    assert not there.any()
    assert places.shape == (2, 5)


@SHAPES
def test_maps_at_places(spatial):
    maps = torch.randn(2, 3, *spatial)
    places, _ = draw_voxels(random_classes(spatial), 9)
    rows, own = at_voxels(maps, places), of_own_class(maps, places)
    flat = maps.movedim(1, -1).reshape(-1, 3)
    for number in range(3):
        assert torch.equal(rows[number], flat[places[number]])
        assert torch.equal(own[number], flat[places[number], number])


def test_distance_is_a_mean_over_pairs_and_then_over_classes():
    generator = torch.Generator().manual_seed(0)
    rows, prototypes = (torch.randn(4, n, 5, generator=generator) for n in (6, 3))
    weights = torch.rand(4, 6, generator=generator)
    filled = torch.ones(4, 3, dtype=torch.bool)
    filled[1, 2] = False
    filled[2] = False
    weights[3] = 0
    means = []
    for number in (0, 1):
        pairs = [
            (weights[number, i], 1 - torch.cosine_similarity(row, prototype, 0))
            for i, row in enumerate(rows[number])
            for prototype in prototypes[number][filled[number]]
        ]
        total = sum(weight for weight, _ in pairs)
        means.append(sum(weight * distance for weight, distance in pairs) / total)
    expected = torch.stack(means).mean()
    torch.testing.assert_close(prototype_distance(rows, weights, prototypes, filled), expected)


def test_without_a_class_it_is_0_with_a_gradient():
    rows = torch.zeros(2, 3, 4, requires_grad=True)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    loss = prototype_distance(rows, nothing, torch.zeros(2, 5, 4), torch.zeros(2, 5).bool())
    loss.backward()
    assert loss == 0
    assert (rows.grad == 0).all()


def test_no_step_waits_for_the_device():
    """On the meta device no value can be read, so that a step that looks at one would fail."""
    with torch.device("meta"):
        label = PseudoLabel(torch.zeros(2, 1, 4, 4, dtype=torch.long), torch.ones(2, 1, 4, 4))
        places, there = draw_voxels(classes_of(label, 3, False), 8)
        rows = at_voxels(torch.ones(2, 6, 4, 4), places)
        prototypes, filled = torch.ones(3, 2, 6), torch.ones(3, 2, dtype=torch.bool)
        inner = prototype_distance.__wrapped__  # Autocast does not know the meta device.
        loss = inner(rows, there, prototypes, filled)
    assert loss.shape == ()
