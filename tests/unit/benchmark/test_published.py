"""Every published number has a source, and is set beside own ones as somebody else's."""

from __future__ import annotations

import re

import pytest

from nnunet_semisup.benchmark.published import READ, published_names, read_published
from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import METHODS

DATASETS = {name: read_published(name) for name in published_names()}
LINES = [line for dataset in DATASETS.values() for line in dataset.lines]


def test_data_sets_that_the_field_reports_on():
    assert set(DATASETS) == {"la", "pancreas", "brats2019", "msd_lung", "lc", "acdc"}
    assert all(dataset.warnings and dataset.lines for dataset in DATASETS.values())


def test_every_line_says_who_where_and_how_it_was_read():
    for line in LINES:
        assert line.read in READ
        assert (line.via is not None) == (line.read == "relayed"), line
        assert line.by
        assert line.table.count(", ") >= 2
        assert line.backbone
        assert line.selection


def test_values_are_in_the_units_that_are_told():
    for line in LINES:
        assert 0 < line.metrics["Dice"] < 1, line
        if "Jaccard" in line.metrics:
            assert line.metrics["Jaccard"] < line.metrics["Dice"], line
        assert all(value >= 0.1 for key, value in line.metrics.items() if key in ("HD95", "ASD"))


def test_trainers_exist():
    known = {method.trainer for method in METHODS}
    assert {line.trainer for line in LINES if line.trainer} <= known


@pytest.mark.parametrize(
    ("dataset", "method", "budget", "by", "metrics"),
    [
        ("la", "ARCO-SG", "4", "ARCO, NeurIPS 2023", {"Dice": 0.878, "ASD": 1.66}),
        ("la", "DTC", "8", "DTC, AAAI 2021", {"Dice": 0.8751, "HD95": 8.23, "ASD": 2.36}),
        ("pancreas", "Text-SemiSeg", "6", "Text-SemiSeg, MICCAI 2025", {"Dice": 0.8127}),
        ("brats2019", "MLRP", "50", "Text-SemiSeg, MICCAI 2025", {"HD95": 7.76}),
        ("msd_lung", "BCP", "10", "Text-SemiSeg, MICCAI 2025", {"Jaccard": 0.4483}),
        ("lc", "VQ-Seg", "10 %", "VQ-Seg, NeurIPS 2025", {"Dice": 0.7852, "HD95": 11.6179}),
        ("acdc", "nnU-Net", "3", "nnFilterMatch, arXiv 2025", {"Dice": 0.8296}),
    ],
)
def test_numbers_as_they_are_printed(dataset, method, budget, by, metrics):
    """The order of the metrics differs from table to table: DTC's has ASD before HD95."""
    (line,) = [
        line
        for line in DATASETS[dataset].lines
        if (line.method, line.budget, line.by) == (method, budget, by)
    ]
    assert {key: line.metrics[key] for key in metrics} == metrics


def test_budgets_are_counted_in_cases():
    """ACDC's papers count patients, each of whom has two scans; LC's give a share."""
    acdc = DATASETS["acdc"]
    assert {line.budget for line in acdc.at(6)} == {"3"}
    assert acdc.at(3) == []
    assert DATASETS["lc"].at(5) == []
    dice = [line.metrics["Dice"] for line in DATASETS["la"].at(8)]
    assert dice == sorted(dice, reverse=True)


def test_sources_that_were_not_read_are_told():
    relayed = [line for line in DATASETS["la"].lines if line.method == "DyCON"]
    assert re.search(r"; relayed by a note on the paper$", relayed[0].source)


def test_unknown_data_set_is_refused():
    with pytest.raises(UserError, match="Possible: la, pancreas"):
        read_published("liver")
