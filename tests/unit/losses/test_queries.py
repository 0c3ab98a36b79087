"""Groups of queries and the query loss, against softmax and loops."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nnunet_semisup.losses.queries import (
    group_labels,
    group_log_shares,
    group_sizes,
    query_distribution_loss,
)
from nnunet_semisup.losses.targets import PseudoLabel

SIZES = [3, 2, 1]


def masks(*spatial, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn((2, sum(SIZES), *spatial), generator=generator)


@pytest.mark.parametrize(
    ("queries", "groups", "sizes"),
    [(32, 2, [16, 16]), (32, 3, [16, 8, 8]), (32, 4, [17, 5, 5, 5]), (8, 3, [4, 2, 2])],
)
def test_the_background_has_half_of_the_queries_and_what_remains(queries, groups, sizes):
    assert group_sizes(queries, groups) == sizes


@pytest.mark.parametrize("groups", range(2, 40))
def test_every_group_has_queries(groups):
    sizes = group_sizes(2 * groups, groups)
    assert sum(sizes) == 2 * groups
    assert len(sizes) == groups
    assert min(sizes) >= 1


@pytest.mark.parametrize("spatial", [(4, 5), (3, 4, 5)])
def test_shares_of_groups_are_summed_shares_of_queries(spatial):
    logits = masks(*spatial)
    expected = [part.sum(1) for part in logits.softmax(1).split(SIZES, 1)]
    found = group_log_shares(logits, SIZES).exp()
    torch.testing.assert_close(found, torch.stack(expected, 1))
    torch.testing.assert_close(found.sum(1), torch.ones(2, *spatial))


def test_saturated_logits_give_hard_groups_and_finite_losses():
    """A softmax would be 0 there, and its logarithm infinite."""
    logits = masks(4, 4, scale=1e7)
    shares = group_log_shares(logits, SIZES)
    numbers = torch.tensor([0, 0, 0, 1, 1, 2])[logits.argmax(1)]
    assert torch.equal(shares.exp(), F.one_hot(numbers, 3).movedim(-1, 1).float())
    label = PseudoLabel((numbers[:, None] + 1) % 3, torch.ones(2, 1, 4, 4))
    assert query_distribution_loss([logits], label, SIZES).isfinite()


def test_the_loss_is_the_mean_of_a_loop_over_voxels_that_count_and_over_layers():
    layers = [masks(4, 6), masks(2, 3, seed=1)]
    generator = torch.Generator().manual_seed(2)
    target = torch.randint(0, 3, (2, 1, 4, 6), generator=generator)
    weight = (torch.rand((2, 1, 4, 6), generator=generator) > 0.3).float()
    means = []
    for logits, step in zip(layers, (1, 2), strict=True):
        surprises = []
        for b, i, j in torch.cartesian_prod(*map(torch.arange, (2, *logits.shape[2:]))).tolist():
            # nearest-exact takes the voxel behind the middle of each two.
            y, x = (i, j) if step == 1 else (2 * i + 1, 2 * j + 1)
            if weight[b, 0, y, x] > 0:
                shares = logits[b, :, i, j].double().softmax(0).split(SIZES)
                surprises.append(-shares[target[b, 0, y, x]].sum().log())
        means.append(torch.stack(surprises).mean())
    found = query_distribution_loss(layers, PseudoLabel(target, weight), SIZES)
    torch.testing.assert_close(found.double(), torch.stack(means).mean())


def test_the_released_sum_is_the_loss_times_the_number_of_voxels():
    """DK-UXNet's: minus the log of the summed shares, summed over the voxels of an image."""
    logits = masks(4, 4, 4)
    target = torch.randint(0, 3, (2, 1, 4, 4, 4), generator=torch.Generator().manual_seed(3))
    shares = torch.stack([p.sum(1) for p in logits.softmax(1).split(SIZES, 1)], 1)
    released = -(shares.log() * F.one_hot(target[:, 0], 3).movedim(-1, 1)).sum((1, 2, 3, 4)).mean()
    found = query_distribution_loss([logits], PseudoLabel(target, torch.ones(target.shape)), SIZES)
    torch.testing.assert_close(found * 64, released)
    assert query_distribution_loss(
        [logits], PseudoLabel(target, torch.zeros(target.shape)), SIZES
    ) == pytest.approx(0.0)


def test_of_regions_the_last_one_a_voxel_lies_in_is_its_group():
    """As nnU-Net's label manager writes regions into a label map, in their order."""
    regions = torch.tensor([[[[0, 1, 1, 0]], [[0, 0, 1, 1]]]]).float()
    weight = torch.tensor([[[[1, 0, 1, 1]]]]).float().expand(1, 2, 1, 4)
    found = group_labels(PseudoLabel(regions, weight), regions=True)
    assert found.target.tolist() == [[[[0, 1, 2, 2]]]]
    assert found.weight.tolist() == [[[[1, 0, 1, 1]]]]
    classes = PseudoLabel(found.target, found.weight)
    assert group_labels(classes, regions=False) is classes
