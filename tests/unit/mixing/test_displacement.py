"""Cells of a grid, which network is sure of which, and their move to another place."""

from __future__ import annotations

import itertools

import pytest
import torch

from nnunet_semisup.losses.targets import PseudoLabel
from nnunet_semisup.mixing.displacement import (
    Cells,
    Move,
    cells_of,
    displace,
    displace_label,
    doubted_by_alike,
    grid_of,
    surest_by_doubted,
)

GRIDS = pytest.mark.parametrize(
    ("spatial", "grid"), [((6, 8), (3, 4)), ((8, 6, 4), (4, 2, 1)), ((4, 6, 10), (2, 3, 5))]
)
BOTH = pytest.mark.parametrize("regions", [False, True], ids=["labels", "regions"])


def parts(spatial, grid):
    """Return the slices of each cell, in raster order."""
    sizes = [length // number for length, number in zip(spatial, grid, strict=True)]
    return [
        tuple(slice(n * s, (n + 1) * s) for n, s in zip(place, sizes, strict=True))
        for place in itertools.product(*map(range, grid))
    ]


@pytest.mark.parametrize(
    ("spatial", "most", "grid"),
    [
        ((256, 224), 4, (4, 4)),
        ((28, 256, 250), 4, (4, 4, 2)),
        ((14, 15, 7), 4, (2, 3, 1)),
        ((96, 96), 1, (1, 1)),
    ],
)
def test_the_grid_divides_the_patch(spatial, most, grid):
    assert grid_of(spatial, most) == grid


@GRIDS
@BOTH
def test_cells_have_means(spatial, grid, regions):
    logits = torch.randn(2, 3, *spatial)
    found = cells_of(logits.requires_grad_(), regions, grid)
    probs = logits.detach().sigmoid() if regions else logits.detach().softmax(1)
    assert not found.sure.requires_grad
    for number, part in enumerate(parts(spatial, grid)):
        inside = probs[(..., *part)].flatten(2)
        if regions:
            inside = torch.cat([inside, 1 - inside], 1)
            sure = torch.maximum(inside[:, :3], inside[:, 3:]).mean((1, 2))
        else:
            sure = inside.amax(1).mean(1)
        torch.testing.assert_close(found.mean[..., number], inside.mean(2))
        torch.testing.assert_close(found.sure[:, number], sure)


@GRIDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_one_cell_of_each_image_is_replaced(spatial, grid, dtype):
    own, other = (torch.randint(0, 5, (3, 2, *spatial)).to(dtype) for _ in range(2))
    where = parts(spatial, grid)
    move = Move(torch.tensor([0, len(where) - 1, 1]), torch.tensor([len(where) - 1, 2, 1]))
    moved = displace(own, other, move, grid)
    for image, (to, source) in enumerate(zip(*move, strict=True)):
        expected = own[image].clone()
        expected[(slice(None), *where[to])] = other[image][(slice(None), *where[source])]
        assert torch.equal(moved[image], expected)
    assert moved.dtype == dtype


def test_an_image_without_a_move_stays():
    own, other = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    moved = displace(own, other, Move(torch.tensor([-1, 3]), torch.tensor([0, 0])), (2, 2))
    assert moved.sum((1, 2, 3)).tolist() == [0, 4]


def test_labels_move_with_their_weights():
    own, other = (
        PseudoLabel(torch.randint(0, 3, (2, 1, 4, 4)), torch.rand(2, 1, 4, 4)) for _ in range(2)
    )
    move = Move(torch.tensor([1, 2]), torch.tensor([3, 0]))
    target, weight = displace_label(own, other, move, (2, 2))
    assert torch.equal(target, displace(own.target, other.target, move, (2, 2)))
    assert torch.equal(weight, displace(own.weight, other.weight, move, (2, 2)))


def random_cells(seed, batch=5, classes=3, number=12):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(batch, classes, number, generator=generator).softmax(1)
    return Cells(torch.rand(batch, number, generator=generator), mean)


@pytest.mark.parametrize("most", [1, 4, 50])
def test_the_doubted_cell_gets_the_most_alike_of_the_sure_ones(most):
    own, other = random_cells(0), random_cells(1)
    to, source = doubted_by_alike(own, other, most)
    for image in range(5):
        doubted = min(range(12), key=lambda cell: own.sure[image, cell])
        sure = sorted(range(12), key=lambda cell: -other.sure[image, cell])[:most]
        mean = own.mean[image, :, doubted]

        def divergence(cell, image=image, mean=mean):
            return float((mean * (mean / other.mean[image, :, cell]).log()).sum())

        assert int(to[image]) == doubted
        assert int(source[image]) == min(sure, key=divergence)


def test_certain_cells_can_be_compared():
    """Probabilities of exactly 0 and 1 have no finite logarithm."""
    own = Cells(torch.tensor([[0.1, 0.9]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
    other = Cells(torch.tensor([[0.8, 0.9]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
    assert doubted_by_alike(own, other, 2) == Move(torch.tensor([0]), torch.tensor([0]))


def test_the_surest_cell_gets_the_one_the_other_doubts_most():
    own, other = random_cells(0), random_cells(1)
    to, source = surest_by_doubted(own, other, 1.0)
    assert torch.equal(to, own.sure.argmax(1))
    assert torch.equal(source, other.sure.argmin(1))
    assert (surest_by_doubted(own, other, 0.0).to == -1).all()


def test_images_are_chosen_with_their_probability():
    cells = random_cells(0, batch=3000)
    share = (surest_by_doubted(cells, cells, 0.3).to >= 0).float().mean()
    assert share.item() == pytest.approx(0.3, abs=0.05)


def test_no_step_waits_for_the_device():
    """On the meta device no value can be read, so that a step that looks at one would fail."""
    with torch.device("meta"):
        cells = Cells(torch.ones(2, 4), torch.ones(2, 3, 4))
        for move in (doubted_by_alike(cells, cells, 2), surest_by_doubted(cells, cells, 0.5)):
            moved = displace(torch.ones(2, 1, 4, 4), torch.ones(2, 1, 4, 4), move, (2, 2))
    assert moved.shape == (2, 1, 4, 4)
