"""Paired comparison of evaluations: numbers, counts of cases, refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from nnunet_semisup.cli import compare as command
from nnunet_semisup.cli import evaluate
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.compare import (
    compare,
    load_evaluations,
    paired_difference,
    short_names,
)

NAN = math.nan


def write(path, cases, classes=("heart",), **changes):
    """The parts of an evaluation's file that a comparison reads; ``cases``: case to values."""
    values = {
        case: {
            "shape": [4, 4, 4],
            "spacing": [1.0, 1.0, 1.0],
            "ignored_voxels": 0,
            "classes": {
                name: {"Dice": d, "HD95": h, "reference_voxels": 5}
                for name, (d, h) in zip(classes, pairs, strict=True)
            },
        }
        for case, pairs in cases.items()
    }
    content = {
        "format_version": 1,
        "distance_unit": "mm",
        "classes": {name: [i + 1] for i, name in enumerate(classes)},
        "cases": values,
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_difference_is_paired_and_has_the_metrics_direction():
    first, other = [0.5, 0.7, 0.9, 0.6], [0.6, 0.9, 0.8, 0.6]
    dice = paired_difference(first, other, higher_is_better=True)
    assert (dice.count, dice.better, dice.worse) == (4, 2, 1)
    assert dice.difference == pytest.approx(0.05)
    assert dice.other - dice.first == pytest.approx(dice.difference)
    assert dice.low < dice.difference < dice.high
    assert dice.p_value == wilcoxon(np.subtract(other, first)).pvalue
    distance = paired_difference(first, other, higher_is_better=False)
    assert (distance.better, distance.worse) == (1, 2)
    assert distance.difference == dice.difference


def test_interval_covers_the_true_difference_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        first = generator.uniform(0.5, 0.9, 40)
        result = paired_difference(first, first + generator.normal(0.1, 0.2, 40), True)
        covered += result.low <= 0.1 <= result.high
    assert 88 <= covered <= 99


def test_interval_is_repeatable():
    values = [0.1, 0.4, 0.2], [0.3, 0.35, 0.6]
    assert paired_difference(*values, True) == paired_difference(*values, True)


def test_case_with_a_value_in_one_evaluation_counts_but_has_no_part_in_means():
    invented_by_other = paired_difference([NAN, 0.5], [0.0, 0.6], True)
    assert (invented_by_other.better, invented_by_other.worse) == (1, 1)
    assert invented_by_other.count == 1
    assert invented_by_other.difference == pytest.approx(0.1)
    invented_by_first = paired_difference([40.0, 3.0], [NAN, 3.0], False)
    assert (invented_by_first.better, invented_by_first.worse) == (1, 0)


@pytest.mark.parametrize("values", [([], []), ([NAN], [NAN]), ([0.5], [0.5]), ([0.5], [0.7])])
def test_too_few_cases_have_no_interval(values):
    result = paired_difference(*values, True)
    assert math.isnan(result.low)
    assert math.isnan(result.high)


def test_equal_evaluations_differ_nowhere():
    result = paired_difference([0.5, 0.6], [0.5, 0.6], True)
    assert (result.low, result.high, result.better, result.worse) == (0, 0, 0, 0)
    assert math.isnan(result.p_value)


def test_sequences_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="3 and 2"):
        paired_difference([1, 2, 3], [1, 2], True)


def test_cases_are_paired_by_name_and_classes_averaged_where_both_have_them(tmp_path):
    first = write(
        tmp_path / "a.json",
        {"x": [(0.5, 2.0), (0.7, 4.0)], "y": [(0.8, 1.0), (None, None)]},
        classes=("heart", "liver"),
    )
    other = write(
        tmp_path / "b.json",
        {"y": [(0.9, 1.0), (0.0, 50.0)], "x": [(0.6, 2.0), (0.5, 3.0)]},
        classes=("heart", "liver"),
    )
    lines = compare(load_evaluations([first, other]), ["Dice"])
    assert [line[:3] for line in lines] == [
        ("Dice", "heart", "b.json"),
        ("Dice", "liver", "b.json"),
        ("Dice", "mean over classes, by case", "b.json"),
    ]
    heart, liver, mean = (line[3] for line in lines)
    assert heart.difference == pytest.approx(0.1)
    assert (heart.better, heart.worse) == (2, 0)
    assert (liver.count, liver.difference) == (1, pytest.approx(-0.2))
    assert liver.worse == 2
    assert mean.count == 2
    assert mean.difference == pytest.approx(((0.55 - 0.6) + (0.9 - 0.8)) / 2)


def test_names_are_what_distinguishes_the_paths(tmp_path):
    files = [
        tmp_path / f"nnUNetTrainer{t}__nnUNetPlans__2d/fold_{f}/validation/x.json"
        for t, f in (("VQSeg", 0), ("PseudoLabel", 1))
    ]
    assert short_names(files) == [
        "nnUNetTrainerVQSeg__nnUNetPlans__2d/fold_0",
        "nnUNetTrainerPseudoLabel__nnUNetPlans__2d/fold_1",
    ]
    assert short_names([tmp_path / "x.json", tmp_path / "sub/x.json"]) == ["x.json", "sub/x.json"]


GOOD = {"x": [(0.5, 2.0)], "y": [(0.6, 1.0)]}
REFUSED = {
    "other cases": (lambda p: write(p, {"x": [(0.5, 2.0)], "z": [(0.6, 1.0)]}), "y, z"),
    "other classes": (lambda p: write(p, GOOD, classes=("liver",)), "--dataset-json"),
    "other unit": (lambda p: write(p, GOOD, distance_unit="pixel"), "pixel"),
    "no JSON": (lambda p: p.write_text("Dice 0.9"), "not a JSON file"),
    "other JSON": (lambda p: p.write_text('{"mean": {}}'), "not the file of an evaluation"),
    "newer format": (lambda p: write(p, GOOD, format_version=2), "format version 2"),
    "no file": (lambda p: p.unlink(missing_ok=True), "cannot be read"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_compared_is_refused_by_name(tmp_path, capsys, fault):
    make, message = REFUSED[fault]
    first = write(tmp_path / "first.json", GOOD)
    make(tmp_path / "other.json")
    with pytest.raises(SystemExit) as error:
        command.main([str(first), str(tmp_path / "other.json")])
    assert error.value.code == 2
    printed = capsys.readouterr().err
    assert "other.json" in printed
    assert message in printed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"reference_voxels": 5', '"reference_voxels": 6'),
        ("[1.0, 1.0, 1.0]", "[1.0, 1.0, 2.0]"),
        ("[4, 4, 4]", "[4, 4, 5]"),
        ('"ignored_voxels": 0', '"ignored_voxels": 9'),
    ],
)
def test_other_references_are_refused(tmp_path, old, new):
    first = write(tmp_path / "first.json", GOOD)
    other = tmp_path / "other.json"
    assert old in first.read_text()
    other.write_text(first.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match="different references: x"):
        load_evaluations([first, other])


@pytest.mark.parametrize(("count", "message"), [(1, "two or more"), (2, "given twice")])
def test_one_evaluation_is_nothing_to_compare(tmp_path, count, message):
    first = write(tmp_path / "first.json", GOOD)
    with pytest.raises(UserError, match=message):
        load_evaluations([first] * count)


def test_folders_that_the_evaluation_has_written(folders, cube, capsys):
    folders.dataset_json({"background": 0, "heart": 1})
    second = folders.prediction.parent / "second"
    for name, shift in (("a", 1), ("b", 2)):
        folders.case(name, cube, np.roll(cube, shift, axis=0))
    second.mkdir()
    for name in "ab":
        folders.write(second, name, cube)
    folders.dataset_json({"background": 0, "heart": 1}, second)
    for prediction in (folders.prediction, second):
        with pytest.raises(SystemExit):
            evaluate.main([str(folders.reference), str(prediction), "-np", "1"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as error:
        command.main([str(folders.prediction), str(second), "--metrics", "Dice", "HD95"])
    assert error.value.code == 0
    dice, distance = capsys.readouterr().out.splitlines()[2:4]
    assert dice.split()[:8] == [
        "Dice",
        "heart",
        "second",
        "2",
        "0.5000",
        "1.0000",
        "+0.5000",
        "+0.3333",
    ]
    assert dice.split()[-3:-1] == ["2", "0"]
    assert distance.split()[:2] == ["HD95", "(mm)"]
    assert distance.split()[-3:-1] == ["2", "0"]
    # Another model's predictions in the same folder: the file beside them is not of them.
    moved = second.rename(second.with_name("moved"))
    load_evaluations([folders.prediction, moved])
    folders.write(moved, "b", np.roll(cube, 3, axis=0))
    with pytest.raises(UserError, match=r"moved.*replaced since: b\. Evaluate them again"):
        load_evaluations([folders.prediction, moved])
    evaluate_again = [str(folders.reference), str(moved), "-np", "1"]
    with pytest.raises(SystemExit):
        evaluate.main(evaluate_again)
    load_evaluations([folders.prediction, moved])
