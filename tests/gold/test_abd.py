"""Which cells are moved where, against numbers of ABD's released code.

Released, the second copy reads what the first one wrote, and mean probabilities go through a
softmax before they are compared. The recorded cells never overlap, and the softmax is added here.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_semisup.mixing.displacement import (
    Move,
    cells_of,
    displace,
    doubted_by_alike,
    surest_by_doubted,
)
from tests.gold.numbers import close, labels, tensor

BOTH_WAYS = ((0, 1), (1, 0))


@pytest.fixture
def case(gold):
    return gold("abd_a")


def grid_of_case(case):
    return tuple(case["grid"].tolist())


def both(case, name, labeled):
    """Return what both networks have of the labeled or of the unlabeled half."""
    first = int(case["labelled_bs"])
    part = slice(None, first) if labeled else slice(first, None)
    return [tensor(case[f"{name}{network}"])[part] for network in (1, 2)]


def cells(case, labeled):
    """Return the cells of both networks."""
    outputs = both(case, "outputs", labeled)
    return [cells_of(logits, False, grid_of_case(case)) for logits in outputs]


def test_confidence_of_cells(case):
    edge, grid = int(case["patch_size"]), grid_of_case(case)
    for ours, confidence in zip(cells(case, False), both(case, "conf", False), strict=True):
        for number, sure in enumerate(ours.sure.T):
            row, column = (edge * place for place in divmod(number, grid[1]))
            inside = confidence[:, row : row + edge, column : column + edge]
            close(sure, inside.flatten(1).mean(1).numpy(), 1e-6)


@pytest.mark.parametrize(("name", "by_likeness"), [("abd_r", [True, True]), ("abd_r_bcp", None)])
def test_unlabeled_images(case, name, by_likeness):
    """The released variant on copy-paste takes the surest cell where its coin says so."""
    alike = by_likeness or (case["coins"] < 0.5).tolist()
    assert by_likeness or len(set(alike)) == 2
    compared = [one._replace(mean=one.mean.softmax(1)) for one in cells(case, False)]
    images, moved = both(case, "image", False), []
    for own, other in BOTH_WAYS:
        near = doubted_by_alike(compared[own], compared[other], int(case["top_num"]))
        sure = doubted_by_alike(compared[own], compared[other], 1)
        source = torch.where(torch.tensor(alike), near.source, sure.source)
        move = Move(near.to, source)
        moved.append(displace(images[own], images[other], move, grid_of_case(case)))
    np.testing.assert_array_equal(torch.cat(moved)[:, 0], case[name])


def test_labeled_images_and_their_labels(case):
    ours, grid = cells(case, True), grid_of_case(case)
    chosen = torch.from_numpy(case["coins"] < 0.5)
    number = int(case["labelled_bs"])
    found = {"image": [], "label": []}
    for own, other in BOTH_WAYS:
        move = surest_by_doubted(ours[own], ours[other], 1.0)
        move = move._replace(to=torch.where(chosen, move.to, -1))
        images = both(case, "image", True)
        found["image"].append(displace(images[own], images[other], move, grid))
        maps = [labels(case[f"label{network}"])[:number] for network in (1, 2)]
        found["label"].append(displace(maps[own], maps[other], move, grid))
    for name, parts in found.items():
        np.testing.assert_array_equal(torch.cat(parts)[:, 0], case[f"abd_i_{name}"])
