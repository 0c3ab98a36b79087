"""Rows, budgets, cases and the file that keeps them."""

from __future__ import annotations

import json

import pytest

from nnunet_semisup.benchmark.cases import check_budgets, choose_cases
from nnunet_semisup.benchmark.design import Layout, Row, read_design, read_row, write_design
from nnunet_semisup.benchmark.planning import longer_rows, rows_of, rows_of_all
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.raw import find_dataset
from nnunet_semisup.registry import METHODS
from tests.helpers import nnunet_folders
from tests.unit.benchmark.shared import make_dataset, make_design


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    return make_dataset(nnunet_folders(tmp_path, monkeypatch).raw)


@pytest.fixture
def folders(dataset):
    return find_dataset(950)


def test_rows_are_read_with_settings_and_inserts():
    row = read_row("UAMT:ema_decay=0.9,mc_passes=2+nsda")
    assert row == Row("nnUNetTrainerUAMT", "ema_decay=0.9,mc_passes=2", ("nsda",))
    assert row.title == "nnUNetTrainerUAMT:ema_decay=0.9,mc_passes=2+nsda"
    assert row.plans == "nnUNetPlans-nsda"
    assert "/" not in row.key
    with pytest.raises(UserError, match=r"UAMTT is no trainer of this package\. Possible: .*UAMT"):
        read_row("UAMTT")


def test_labels_alone_come_first_and_at_equal_operations_last():
    rows = rows_of(["PseudoLabel", "UAMT", "DTC"], "3d_fullres")
    assert rows[0].is_baseline
    longer = longer_rows(rows, [])
    assert longer == [Row("nnUNetTrainerSupervised", steps_factor=2.3)]
    assert longer_rows(rows[:1], []) == []
    assert [row.steps_factor for row in longer_rows(rows, [1.5, 3])] == [1.5, 3]
    assert rows_of(["PseudoLabel", "nnUNetTrainerPseudoLabel"], "2d")[1:] == (
        Row("nnUNetTrainerPseudoLabel"),
    )
    assert len({row.key for row in (*rows, *longer)}) == len(rows) + 1


@pytest.mark.parametrize(("configuration", "dims"), [("3d_fullres", 3), ("2d", 2)])
def test_all_are_the_trainers_of_the_dimensions(configuration, dims):
    rows = rows_of(["all", "DTC"], configuration)
    optional = {row.trainer for row in rows_of_all(["all", "DTC"], rows)}
    assert optional == {r.trainer for r in rows} - {"nnUNetTrainerSupervised", "nnUNetTrainerDTC"}
    assert {row.trainer for row in rows} == {m.trainer for m in METHODS if dims in m.dims}


def test_roles_come_from_the_fold_and_budgets_are_nested(folders):
    cases = choose_cases(folders, 0)
    assert cases.pool == ("lab_000", "lab_001", "lab_002")
    assert cases.evaluation == ("lab_003", "lab_004")
    drawn = {seed: choose_cases(folders, 0, seed).pool for seed in range(6)}
    assert all(sorted(pool) == sorted(cases.pool) for pool in drawn.values())
    assert len(set(drawn.values())) > 1
    assert drawn[0] == choose_cases(folders, 0, 0).pool
    assert choose_cases(folders, 0, left_out=["lab_001"]).pool == ("lab_000", "lab_002")


@pytest.mark.parametrize(
    ("split", "fold", "left_out", "message"),
    [
        ({}, 1, [], "has the folds 0 to 0; --fold 1 was given"),
        ({"train": ["lab_000", "lab_009"]}, 0, [], "imagesTr does not have: lab_009"),
        ({"train": ["lab_000", "lab_004"]}, 0, [], "gives cases two roles: lab_004"),
        ({"val": []}, 0, [], "no case is left in val"),
        ({}, 0, ["lab_9"], "--leave-out lab_9: no case"),
        ({}, 0, ["unl_00"], "--leave-out unl_00: no case"),
        ({"train": "lab_000"}, 0, [], "must be a list with one object per fold"),
    ],
)
def test_faults_of_the_roles_are_named(folders, split, fold, left_out, message):
    content = {"train": ["lab_000"], "val": ["lab_003", "lab_004"], **split}
    (folders.raw / "splits_final.json").write_text(json.dumps([content]))
    with pytest.raises(UserError, match=message):
        choose_cases(folders, fold, left_out=left_out)


def test_without_a_split_nothing_is_chosen(folders):
    (folders.raw / "splits_final.json").unlink()
    with pytest.raises(UserError, match=r"has no splits_final\.json"):
        choose_cases(folders, 0)


def test_budgets_that_cannot_be_had_are_refused(folders):
    cases = choose_cases(folders, 0)
    check_budgets([1, 3], cases, others=2)
    with pytest.raises(UserError, match="--budgets 0 4: 3 labeled cases are there"):
        check_budgets([0, 2, 4], cases, others=2)
    with pytest.raises(UserError, match="with all 3 cases labeled none is unlabeled"):
        check_budgets([2, 3], cases, others=0)


def test_a_design_is_kept_and_takes_more_rows_but_nothing_else(dataset, tmp_path):
    layout = Layout(tmp_path / "benchmark")
    with pytest.raises(UserError, match="holds no benchmark"):
        read_design(layout)
    design = make_design(dataset)
    write_design(layout, design)
    assert read_design(layout) == design
    write_design(layout, make_design(dataset, Row("nnUNetTrainerUAMT"), seeds=(1,), budgets=(3,)))
    kept = read_design(layout)
    assert [row.trainer for row in kept.rows] == ["nnUNetTrainerSupervised", "nnUNetTrainerUAMT"]
    assert kept.seeds == (0, 1)
    assert len(kept.runs()) == 2 * 2 * 2
    assert [run.budget for run in kept.runs()] == [2] * 4 + [3] * 4
    with pytest.raises(UserError, match="another benchmark: steps was 8 and is 16"):
        write_design(layout, make_design(dataset, steps=16))
    assert read_design(layout) == kept


def test_more_steps_are_whole_epochs(dataset):
    design = make_design(dataset)
    assert design.steps_of(Row("nnUNetTrainerSupervised")) == 8
    assert design.steps_of(Row("nnUNetTrainerSupervised", steps_factor=2.3)) == 18
