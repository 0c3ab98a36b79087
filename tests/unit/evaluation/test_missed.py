"""A structure that a prediction misses never improves a mean, in any table.

seg-metrics 1.2.8 gives such a prediction a 95th percentile of 0.0 mm, the best there is, and MONAI
1.6.1 nan, which means over cases usually leave out.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from nnunet_semisup.evaluation.compare import compare, load_evaluations
from nnunet_semisup.evaluation.evaluate import evaluate_folders
from nnunet_semisup.evaluation.names import HIGHER_IS_BETTER, METRICS
from nnunet_semisup.evaluation.report import mean_dice, write_report

CLASSES = {"background": 0, "heart": 1, "liver": 2, "nowhere": 3}
CASES = "xyz"


def organs(shift):
    """A heart and a liver of ``(10, 9, 8)`` voxels, moved by ``shift`` along the last axis."""
    labels = np.zeros((10, 9, 8), np.uint8)
    labels[1:4, 1:4, shift : 3 + shift] = 1
    labels[6:9, 4:8, shift : 2 + shift] = 2
    return labels


def numbers(evaluation):
    """Every mean of the JSON file, by metric and place."""
    summary = json.loads(evaluation.read_text())["summary"]
    places = {**summary["classes"], "mean of classes": summary["over_classes"]}
    return {(m, place): v[m]["mean"] for place, v in places.items() for m in METRICS}


def evaluated(folders, prediction, target):
    evaluation = evaluate_folders(folders.reference, prediction)
    write_report(evaluation, target)
    return evaluation


@pytest.mark.parametrize("shift", [0, 5])
@pytest.mark.parametrize("value", [1, 2])
@pytest.mark.parametrize("cases", ["y", CASES])
def test_leaving_a_structure_out_improves_no_mean(folders, tmp_path, shift, value, cases):
    """Neither of a good prediction (at its place) nor of one that lies beside the organ."""
    folders.dataset_json(CLASSES)
    less = tmp_path / "less"
    for case in CASES:
        folders.case(case, organs(0), organs(shift))
    shutil.copytree(folders.prediction, less)
    for case in cases:
        folders.write(less, case, np.where(organs(shift) == value, 0, organs(shift)))
    files = tmp_path / "all.json", tmp_path / "less.json"
    with_all = evaluated(folders, folders.prediction, files[0])
    with_less = evaluated(folders, less, files[1])
    before, after = numbers(files[0]), numbers(files[1])
    name = {v: n for n, v in CLASSES.items()}[value]
    for (metric, place), number in before.items():
        if place == "nowhere":
            assert after[metric, place] is None
        elif place in (name, "mean of classes"):
            worse = after[metric, place] < number
            assert worse == HIGHER_IS_BETTER[metric] or number == after[metric, place] == 0
        else:
            assert after[metric, place] == number
    for one, other in zip(with_all.cases, with_less.cases, strict=True):
        assert mean_dice(other) <= mean_dice(one)
    for metric, title, _, d in compare(load_evaluations(files), METRICS):
        if title not in ("liver", "heart") or title == name:
            assert d.better == 0, (metric, title)
        if title in (name, "mean over classes, by case"):
            assert d.count == len(CASES), "no case is left out of a mean"
            assert (d.worse == len(cases)) or (metric in ("Dice", "Jaccard") and d.difference == 0)
            assert not (d.difference > 0 if HIGHER_IS_BETTER[metric] else d.difference < 0)


def test_a_missed_structure_has_the_diagonal_of_its_image(folders, tmp_path):
    """10 x 9 x 8 voxels of 3 x 1 x 0.5 mm; no two voxels of the image are that far apart."""
    folders.dataset_json(CLASSES)
    far = np.zeros((10, 9, 8), np.uint8)
    far[0, 0, 0] = 1
    opposite = np.zeros_like(far)
    opposite[-1, -1, -1] = 1
    folders.case("missed", far, np.zeros_like(far))
    folders.case("opposite", far, opposite)
    missed, opposed = evaluated(folders, folders.prediction, tmp_path / "x.json").cases
    for metric in ("HD95", "ASD", "ASD_directed"):
        diagonal = missed.classes["heart"].values[metric]
        assert diagonal == pytest.approx(np.sqrt(30.0**2 + 9.0**2 + 4.0**2))
        assert diagonal > opposed.classes["heart"].values[metric]
