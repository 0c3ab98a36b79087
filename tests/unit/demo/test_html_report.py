"""The report says which trainer was better, whichever it was, and holds its pictures."""

from __future__ import annotations

import json
import math
import re
import shutil

import numpy as np
import pytest
from matplotlib.figure import Figure

from nnunet_semisup.demo.dataset import Counts, label_path, write_phantom
from nnunet_semisup.demo.html_report import CAVEAT, write_html_report
from nnunet_semisup.demo.phantom import ORGAN
from nnunet_semisup.demo.results import chosen_cases, read_results, verdict
from nnunet_semisup.demo.settings import Layout, Settings
from nnunet_semisup.demo.stages import Stages
from nnunet_semisup.evaluation.training_log import seconds_per_step

SUPERVISED, PSEUDO = "nnUNetTrainerSupervised", "nnUNetTrainerPseudoLabel"
CASES = ("test_00", "test_01", "test_02")
SETTINGS = Settings(counts=Counts(2, 2, len(CASES)))


def evaluation(dice):
    """Content of an evaluation's file, as far as the report reads it, for Dice case by case."""
    mean = float(np.mean(dice))
    means = {"Dice": mean, "Jaccard": mean, "HD95": 2.5, "ASD": 2.5}
    summary = {metric: {"mean": value} for metric, value in means.items()}
    return {
        "summary": {
            "classes": {
                ORGAN: {**summary, "case_counts": {"prediction_empty": sum(d == 0 for d in dice)}}
            }
        },
        "cases": {
            case: {"classes": {ORGAN: {"Dice": value}}}
            for case, value in zip(CASES, dice, strict=True)
        },
    }


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)
    layout.raw.mkdir()
    write_phantom(layout.raw_dataset, SETTINGS.counts, 0)
    scores = {
        SUPERVISED: [0.7, 0.0, 0.5],
        PSEUDO: [0.6, 0.1, 0.9],
    }
    for trainer, dice in scores.items():
        layout.predictions(trainer).mkdir(parents=True)
        path = layout.predictions(trainer) / "semisup_evaluation.json"
        path.write_text(json.dumps(evaluation(dice)))
        for case in CASES:
            reference = label_path(layout.raw_dataset, "test", case)
            shutil.copy(reference, layout.predictions(trainer) / reference.name)
        fold = layout.fold(trainer)
        fold.mkdir(parents=True)
        Figure(figsize=(1, 1)).savefig(fold / "progress.png")
        times = "".join(f"Epoch time: {t} s\n" for t in (50.0, 10.0, 12.0))
        (fold / "training_log_1.txt").write_text(times)
    Figure(figsize=(1, 1)).savefig(layout.fold(PSEUDO) / "semisup_codebook.png")
    return layout


def test_numbers_of_the_table(layout):
    supervised, pseudo = read_results(SETTINGS, layout)
    assert supervised.means["Dice"] == pytest.approx(0.4)
    assert pseudo.means["HD95"] == 2.5
    assert (supervised.missed, pseudo.missed) == (1, 0)
    assert pseudo.dice["test_02"] == 0.9
    assert pseudo.seconds_per_step == pytest.approx(12 / SETTINGS.steps_per_epoch)


def test_time_of_a_step_without_logs_is_unknown(tmp_path):
    assert math.isnan(seconds_per_step(tmp_path, 25))


def test_gain_is_said_whichever_way_it_goes(layout):
    sentence = verdict(read_results(SETTINGS, layout), SETTINGS)
    assert f"0.400 by {SUPERVISED}, from the labeled scans alone" in sentence
    assert f"0.533 by {PSEUDO}, with 2 unlabeled scans: 13.3 points more" in sentence
    assert "the higher Dice in 2 of 3 cases" in sentence
    path = layout.predictions(SUPERVISED) / "semisup_evaluation.json"
    path.write_text(json.dumps(evaluation([0.95] * 3)))
    sentence = verdict(read_results(SETTINGS, layout), SETTINGS)
    assert "41.7 points less, the higher Dice in 0 of 3 cases" in sentence


def test_order_of_the_trainers_does_not_change_what_they_are_compared_with(layout):
    results = read_results(SETTINGS, layout)
    assert verdict(results[::-1], SETTINGS) == verdict(results, SETTINGS)


def test_cases_of_largest_median_and_smallest_gain_are_shown(layout):
    assert chosen_cases(read_results(SETTINGS, layout)) == ["test_02", "test_01", "test_00"]


def test_report_is_one_file_with_its_pictures(layout, capsys):
    stages = Stages(layout.stages, dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed"), "x"))
    stages.environment["nnUNet_results"] = "x"
    stages.step("phantom", "Phantom", lambda: None)
    path = write_html_report(SETTINGS, layout, stages)
    text = path.read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]{0,30})', text)
    assert len(sources) == 6
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert CAVEAT in text
    in_order = ("points more", "<img", "<table>", "Data</h2>")
    assert sorted(in_order, key=text.index) == list(in_order)
    assert "semisup_codebook.png" in text
    assert "semisup_code_maps.png" not in text
    printed = capsys.readouterr().out
    for word in (
        SUPERVISED,
        PSEUDO,
        "HD95 (mm)",
        "s/step",
        f"{12 / SETTINGS.steps_per_epoch:.2f}",
        CAVEAT,
    ):
        assert word in printed
