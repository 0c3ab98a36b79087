"""The loss at critical pixels: which way it pushes, where, by how much."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_semisup.losses.structures import structure_loss
from nnunet_semisup.topology.structures import structures
from tests.unit.topology.maps import blob, levels, noise

SHAPE = (20, 30)
MAIN, SPURIOUS = ((9, 7), 3.0, 200), ((10, 22), 1.5, 90)


def maps(*facets):
    """Return ``(facets, 1, h, w)`` probabilities, each of the sum of blobs."""
    stacked = np.stack([sum(blob(SHAPE, *one) for one in blobs) for blobs in facets])
    return torch.tensor(levels(stacked) / 256)[:, None]


def persistence_of(probs, place):
    """Return the persistence of the structure whose peak is at a place, 0 if there is none."""
    found = structures(levels(probs.detach().numpy() * 256), 10**6)
    where = np.ravel_multi_index(place, SHAPE)
    return int(found.persistence[found.birth == where].sum())


def test_a_step_raises_what_is_found_again_and_lowers_what_is_not():
    """Written of the filtration 1 - p but applied to p, the loss would push peaks down."""
    start = maps([MAIN], [MAIN, SPURIOUS], [MAIN], [MAIN]).clamp(0.02, 0.98)
    logits = torch.logit(start).requires_grad_()
    loss, log = structure_loss(logits.sigmoid(), 3)
    assert (int(log["structures"]), float(log["consistent"])) == (5, pytest.approx(0.8))
    loss.backward()
    ahead = (logits - 4 * logits.grad).sigmoid()
    for number in range(4):
        place = (number, 0, *MAIN[0])
        assert ahead[place] > start[place]
        lowest = structures(levels(start[number, 0].numpy() * 256)).death[0]
        assert ahead[number, 0].flatten()[lowest] < start[number, 0].flatten()[lowest]
    spurious = (1, 0, *SPURIOUS[0])
    assert ahead[spurious] < start[spurious]
    before, after = (persistence_of(p[1, 0], SPURIOUS[0]) for p in (start, ahead))
    assert 0 < after < before
    later, _ = structure_loss(ahead, 3)
    assert later < loss


def test_two_blobs_that_student_and_others_agree_on_are_not_pushed_down():
    """The published loss of the same group's earlier method pushes peaks of 0.80 down."""
    both = [MAIN, ((10, 22), 3.0, 200)]
    probs = maps(both, both, both).requires_grad_()
    structure_loss(probs, 3, [2])[0].backward()
    for centre, *_ in both:
        assert probs.grad[(2, 0, *centre)] < 0, "descending the gradient raises it"


def test_the_loss_by_hand():
    probs = maps([MAIN], [MAIN, SPURIOUS])
    flat = probs[1, 0].flatten()
    found = structures(levels(flat.numpy().reshape(SHAPE) * 256))
    (b0, b1), (d0, d1) = flat[found.birth], flat[found.death]
    first = probs[0, 0].max()
    expected = (
        (1 - first) ** 2 + probs[0, 0].min() ** 2 + (1 - b0) ** 2 + d0**2 + (b1 - d1) ** 2
    ) / 3
    assert float(structure_loss(probs, 2)[0]) == pytest.approx(float(expected), rel=1e-6)
    of_second = ((1 - b0) ** 2 + d0**2 + (b1 - d1) ** 2) / 2
    assert float(structure_loss(probs, 2, [1])[0]) == pytest.approx(float(of_second), rel=1e-6)


def test_the_gradient_is_at_critical_pixels_alone_and_that_of_finite_differences():
    values = np.stack([noise(40 + n, (8, 9)) for n in range(6)]).reshape(3, 2, 8, 9)
    probs = torch.tensor(values / 256).requires_grad_()
    structure_loss(probs, 2)[0].backward()
    critical = set()
    for number, one in enumerate(values.reshape(6, 8, 9)):
        found = structures(one)
        critical |= {number * 72 + int(p) for p in (*found.birth, *found.death)}
    touched = set(probs.grad.flatten().nonzero().flatten().tolist())
    assert 0 < len(touched) <= len(critical) < probs.numel()
    assert touched <= critical
    step = 1e-3  # Less than half of 1/256: the structures stay as they are.
    for pixel in [*sorted(touched)[:12], next(p for p in range(432) if p not in critical)]:
        moved = [probs.detach().clone() for _ in range(2)]
        for one, sign in zip(moved, (1, -1), strict=True):
            one.view(-1)[pixel] += sign * step
        slope = (structure_loss(moved[0], 2)[0] - structure_loss(moved[1], 2)[0]) / (2 * step)
        assert float(probs.grad.flatten()[pixel]) == pytest.approx(float(slope), abs=1e-4)


def test_only_carriers_get_a_gradient():
    probs = maps([MAIN], [MAIN], [MAIN, SPURIOUS]).requires_grad_()
    structure_loss(probs, 2, [2])[0].backward()
    assert [bool(one.any()) for one in probs.grad] == [False, False, True]


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_maps_cost_nothing_and_have_a_finite_gradient(value):
    probs = torch.full((4, 2, 6, 7), value, requires_grad=True)
    loss, log = structure_loss(probs, 3)
    loss.backward()
    assert float(loss.detach()) == float(log["structures"]) == float(log["consistent"]) == 0
    assert (probs.grad == 0).all()


def test_alike_and_sure_maps_cost_nothing():
    probs = torch.zeros(4, 1, *SHAPE, dtype=torch.float32)
    probs[..., 3:8, 4:9] = probs[..., 12:17, 20:26] = 1.0
    loss, log = structure_loss(probs, 4)
    assert float(loss) == 0
    assert (float(log["consistent"]), int(log["structures"])) == (1.0, 8)


def test_more_structures_than_are_looked_at_are_told():
    rows = torch.arange(64)[:, None] % 2
    probs = ((rows + torch.arange(64) % 2) == 0).float().expand(2, 1, 64, 64)
    _, log = structure_loss(probs, 2)
    assert (int(log["structures"]), float(log["cut"])) == (512, 1.0), "of 1,024 in each"
