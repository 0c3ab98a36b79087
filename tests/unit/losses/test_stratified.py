"""Draws by strata: chances, bounds, and the variance of estimates (ARCO, theorem 3.2)."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from nnunet_semisup.losses.stratified import draw_stratified, strata_of

WAYS = ("sg", "sag", "ns")
each_way = pytest.mark.parametrize("sampling", WAYS)


def row(strata):
    """Return candidates ``(1, 1, 1, N)`` that are all of one class, and their strata."""
    strata = torch.as_tensor(strata)
    return torch.ones(1, 1, 1, len(strata), dtype=torch.bool), strata


def draws(strata, count, sampling, times, seed=0):
    """Return places ``(times, count)`` of independent draws from a row."""
    candidates, strata = row(strata)
    torch.manual_seed(seed)
    many = candidates.expand(-1, times, -1, -1)
    return draw_stratified(many, strata, count, sampling)[0]


def variance_of_mean(values, strata, count, sampling, times=4000):
    """Return mean and variance of the estimate of the mean of ``values``."""
    estimates = values[draws(strata, count, sampling, times)].double().mean(1)
    return float(estimates.mean()), float(estimates.var())


@each_way
@pytest.mark.parametrize("number", [1, 5, 29, 200, 5233])
def test_every_candidate_is_drawn_alike(sampling, number):
    """At n = 29 and 5233 the released sampler draws the last ones never, or a fifth less often."""
    strata = torch.arange(number) * 7 // number
    times = max(40, 40 * number // 256)
    found = draws(strata, 256, sampling, times).flatten()
    assert int(found.min()) >= 0
    assert int(found.max()) < number
    counts = torch.bincount(found, minlength=number).numpy()
    if number > 1:
        assert stats.chisquare(counts).pvalue > 1e-4
    tail = counts[-max(1, number // 20) :]
    expected = len(tail) * len(found) / number
    # Mirrored pairs have up to twice a plain draw's variance.
    assert abs(tail.sum() - expected) < 4.5 * (2 * expected) ** 0.5 + 1e-9


@each_way
@pytest.mark.parametrize("count", [1, 3, 256])
def test_drawn_are_candidates_and_a_class_without_any_is_told(sampling, count):
    torch.manual_seed(0)
    candidates = torch.rand(2, 3, 6, 5) < 0.2
    candidates[:, 1] = False
    candidates[:, 2] = False
    candidates[1, 2, -1, -1] = True
    strata = strata_of(candidates, 4)
    places, there = draw_stratified(candidates, strata, count, sampling)
    assert places.shape == there.shape == (3, count)
    assert there.tolist() == [[True] * count, [False] * count, [True] * count]
    flat = candidates.transpose(0, 1).flatten(1)
    assert flat[0][places[0]].all()
    assert (places[2] == 59).all()
    assert ((places >= 0) & (places < 60)).all()


@pytest.mark.parametrize("sampling", ["sg", "sag"])
def test_each_stratum_has_its_share_of_the_draws(sampling):
    sizes = torch.tensor([1, 40, 7, 300, 52])
    strata = torch.arange(5).repeat_interleave(sizes)
    found = strata[draws(strata, 128, sampling, 200)]
    for number, size in enumerate(sizes):
        share = 128 * float(size) / 400
        of_stratum = (found == number).sum(1).float()
        assert (of_stratum - share).abs().max() < (2 if sampling == "sg" else 4)
        assert float(of_stratum.mean()) == pytest.approx(share, abs=0.15)


def test_whole_shares_are_kept_in_every_draw():
    strata = torch.arange(4).repeat_interleave(torch.tensor([10, 30, 40, 20]))
    found = strata[draws(strata, 20, "sg", 50)]
    for number, share in enumerate((2, 6, 8, 4)):
        assert ((found == number).sum(1) == share).all()


@each_way
@pytest.mark.parametrize("count", [1, 10, 256])
def test_the_estimate_is_unbiased(sampling, count):
    torch.manual_seed(1)
    strata = torch.arange(777) * 11 // 777
    values = torch.randn(777).cumsum(0)
    mean, variance = variance_of_mean(values, strata, count, sampling, 2000)
    assert abs(mean - float(values.mean())) < 4.5 * (variance / 2000) ** 0.5


def test_the_gap_to_plain_sampling_is_the_theorems():
    """With whole shares: 1/n times the variance of the strata's means."""
    torch.manual_seed(2)
    sizes, count = torch.tensor([100, 200, 50, 50]), 16
    strata = torch.arange(4).repeat_interleave(sizes)
    values = torch.randn(400) + 2 * torch.tensor([0.0, 1.0, -1.0, 3.0])[strata]
    means = torch.stack([values[strata == number].mean() for number in range(4)])
    gap = float((sizes / 400 * (means - values.mean()).square()).sum()) / count
    plain = float(values.var(correction=0)) / count
    _, by_strata = variance_of_mean(values, strata, count, "sg")
    _, unaided = variance_of_mean(values, strata, count, "ns")
    assert unaided == pytest.approx(plain, rel=0.1)
    assert by_strata == pytest.approx(plain - gap, rel=0.1)
    assert by_strata < 0.5 * unaided


def test_a_function_of_the_stratum_is_estimated_without_error():
    strata = torch.arange(4).repeat_interleave(torch.tensor([10, 30, 40, 20]))
    values = torch.tensor([3.0, -1.0, 0.5, 9.0])[strata]
    mean, variance = variance_of_mean(values, strata, 20, "sg", 100)
    assert mean == pytest.approx(float(values.mean()))
    assert variance == pytest.approx(0, abs=1e-12)
    assert variance_of_mean(values, strata, 20, "ns", 1000)[1] == pytest.approx(
        float(values.var(correction=0)) / 20, rel=0.2
    )


@pytest.mark.parametrize("count", [7, 100])
def test_shares_that_are_not_whole_still_vary_less(count):
    torch.manual_seed(3)
    strata = torch.arange(13).repeat_interleave(torch.randint(1, 60, (13,)))
    values = 0.3 * torch.randn(len(strata)) + torch.randn(13)[strata]
    by_strata = variance_of_mean(values, strata, count, "sg")[1]
    assert by_strata < variance_of_mean(values, strata, count, "ns")[1]


@pytest.mark.parametrize("of_place", [torch.sin, torch.abs, lambda x: x], ids=["sin", "abs", "x"])
def test_mirrored_draws_vary_at_most_twice_as_much(of_place):
    """Lemma 3.1, where groups have whole pairs; linear functions have no error, even ones twice."""
    strata = torch.arange(400) // 100
    values = of_place((torch.arange(400) % 100 - 49.5) / 20)
    by_strata = variance_of_mean(values, strata, 16, "sg")[1]
    mirrored = variance_of_mean(values, strata, 16, "sag")[1]
    assert mirrored <= 2 * by_strata * 1.1
    if of_place is torch.abs:
        assert mirrored == pytest.approx(2 * by_strata, rel=0.1)
    else:
        assert mirrored == pytest.approx(0, abs=1e-9)


def test_one_stratum_is_plain_sampling():
    """Also two draws together: each pair of candidates is as likely as any other."""
    for sampling in ("sg", "ns"):
        pairs = draws(torch.zeros(6, dtype=torch.long), 2, sampling, 20_000)
        counts = torch.bincount(pairs[:, 0] * 6 + pairs[:, 1], minlength=36)
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("spatial", [(8, 12), (8, 12, 4), (3, 5)])
def test_strata_are_patches_cells_and_classes(spatial):
    torch.manual_seed(0)
    label = torch.randint(0, 3, (2, *spatial))
    classes = torch.stack([label == number for number in range(3)], 1)
    strata = strata_of(classes, 4).reshape(label.shape)
    expected = {}
    for place in torch.cartesian_prod(*[torch.arange(n) for n in label.shape]).tolist():
        item, *at = place
        cell = [int(x * min(4, n) / n + 1e-9) for x, n in zip(at, spatial, strict=True)]
        key = (item, *cell, int(label[tuple(place)]))
        expected.setdefault(key, set()).add(int(strata[tuple(place)]))
    assert all(len(found) == 1 for found in expected.values())
    assert len({next(iter(found)) for found in expected.values()}) == len(expected)


def test_nested_regions_are_told_apart():
    label = torch.tensor([[[0, 1, 2, 2]]])
    regions = torch.stack([label == 0, label >= 1, label >= 2], 1)
    assert len(strata_of(regions, 1).unique()) == 3
    nowhere = torch.zeros_like(regions)
    assert len(strata_of(nowhere, 1).unique()) == 1
