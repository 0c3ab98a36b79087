"""Rows are compared case by case with the baseline, over the seeds that both have."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from nnunet_semisup.benchmark.collect import collect
from nnunet_semisup.benchmark.statistics import compare_rows, groups, holm
from nnunet_semisup.evaluation.compare import MEAN_OF_CLASSES
from tests.unit.benchmark.fake import BASELINE, BETTER, WORSE, Fake

NAN = math.nan


def test_holm_by_hand():
    """Sorted .005 .01 .03 .04 times 4 3 2 1 are .02 .03 .06 .04; none is below one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_never_exceeds_one_and_leaves_out_what_was_not_tested():
    corrected = holm([NAN, 0.9, 0.02])
    assert math.isnan(corrected[0])
    assert corrected[1:] == pytest.approx([0.9, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """The baseline with seeds 0 and 1, another row with 0, 1 and 2."""
    fake = Fake(tmp_path_factory.mktemp("two"), rows=(BASELINE, BETTER), seeds=(0, 1, 2))
    fake.finish(fake.run(BASELINE), shifts=[3, 3, 2, 2, 3, 1, 2, 1, 0])
    fake.finish(fake.run(BASELINE, seed=1), shifts=[1, 2, 3, 2, 1, 1, 2, 1, 0])
    fake.finish(fake.run(BETTER), shifts=[1, 1, 1, 2, 1, 2, 2, 1, 0])
    fake.finish(fake.run(BETTER, seed=1), shifts=[0, 1, 2, 1, 2, 2, 2, 1, 0])
    fake.finish(fake.run(BETTER, seed=2), shifts=[3, 3, 3, 3, 3, 3, 2, 1, 0])
    return collect(fake.layout.folder)


def dice(benchmark, row, seed):
    """Dice of the eight cases that have the class."""
    result = next(r for r in benchmark.of(row, 2) if r.run.seed == seed)
    cases = list(result.evaluation.cases.values())
    return np.array([case["organ"]["Dice"] for case in cases[:8]])


def test_mean_and_spread_are_those_of_the_seeds(two_seeds):
    _, line = compare_rows(two_seeds, 2)["organ"]
    means = [dice(two_seeds, BETTER, seed).mean() for seed in (0, 1, 2)]
    assert line.seeds == (0, 1, 2)
    assert line.metrics["Dice"].mean == pytest.approx(np.mean(means))
    assert line.metrics["Dice"].std == pytest.approx(np.std(means, ddof=1))


def test_difference_pairs_cases_over_the_seeds_of_both(two_seeds):
    """Seed 2 of the row has no counterpart: it has no part in the difference."""
    baseline, line = compare_rows(two_seeds, 2)["organ"]
    first = (dice(two_seeds, BASELINE, 0) + dice(two_seeds, BASELINE, 1)) / 2
    other = (dice(two_seeds, BETTER, 0) + dice(two_seeds, BETTER, 1)) / 2
    change = line.differences["Dice"]
    assert change.count == 8
    assert change.difference == pytest.approx((other - first).mean())
    assert change.low < change.difference < change.high
    assert (change.better, change.worse) == ((other > first).sum(), (other < first).sum())
    assert change.p_value == pytest.approx(wilcoxon(other - first).pvalue)
    assert line.corrected["Dice"] == change.p_value
    assert baseline.differences == {}


def test_lowest_dice_is_of_the_worst_case(two_seeds):
    baseline, _ = compare_rows(two_seeds, 2)["organ"]
    mean = (dice(two_seeds, BASELINE, 0) + dice(two_seeds, BASELINE, 1)) / 2
    assert baseline.worst == (f"test_{mean.argmin()}", pytest.approx(mean.min()))


def test_p_values_are_corrected_for_the_rows_of_a_budget(tmp_path):
    fake = Fake(tmp_path, rows=(BASELINE, BETTER, WORSE)).finish_all()
    found = compare_rows(collect(fake.layout.folder), 2)["organ"]
    assert [line.row for line in found] == [BASELINE, BETTER, WORSE]
    plain = [line.differences["Dice"].p_value for line in found[1:]]
    assert plain == pytest.approx([plain[0]] * 2)
    assert [line.corrected["Dice"] for line in found[1:]] == pytest.approx([2 * plain[0]] * 2)


def test_several_classes_begin_with_their_mean(tmp_path):
    """The last case has one of the two classes; its mean is that class's alone."""
    labels = {"background": 0, "organ": 1, "lesion": 2}
    fake = Fake(tmp_path, labels, rows=(BASELINE, BETTER)).finish_all()
    benchmark = collect(fake.layout.folder)
    found = compare_rows(benchmark, 2)
    assert list(found) == list(groups(benchmark)) == [MEAN_OF_CLASSES, "organ", "lesion"]
    counts = {group: lines[1].differences["Dice"].count for group, lines in found.items()}
    assert counts == {MEAN_OF_CLASSES: 9, "organ": 9, "lesion": 8}
