"""What cannot be made is told before anything is written; and the settings of a training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_semisup.cli.rounds import main
from nnunet_semisup.errors import UserError
from nnunet_semisup.rounds.design import Layout, read_design
from nnunet_semisup.rounds.plan import plan_rounds, settings_of
from tests.helpers import nnunet_folders
from tests.unit.rounds.shared import make_design


@pytest.fixture
def design(tmp_path, monkeypatch):
    return make_design(tmp_path, nnunet_folders(tmp_path, monkeypatch))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rounds": 0}, "--rounds 0"),
        ({"drop": 1.0}, "--drop 1.0: give 0 to 0.9"),
        ({"labeled_share": 1.0}, "--labeled-share 1.0"),
        ({"size_limit": 0.5}, "--size-limit 0.5"),
        ({"confidence": 0.4}, "--confidence 0.4"),
        ({"steps": 300}, "--steps 300: give a multiple of 250"),
        ({"fine_tune": -1}, "--fine-tune -1"),
        ({"folds": (0, 2)}, "has no fold 2"),
        ({"plans": "Other"}, "has no Other.json"),
        ({"trainer": "nnUNetTrainerNone"}, "finds no such trainer"),
        ({"trainer": "nnUNetTrainer"}, "--steps and --settings are read by trainers of this"),
        ({"settings": "sed=1"}, "has no hyper-parameter sed"),
        ({"settings": "seed=one"}, "seed=one"),
        ({"trainer": "nnUNetTrainerVCLIPSeg", "fine_tune": 5}, "is not nnUNetTrainer's"),
        ({"model": "nowhere"}, "there is no model folder"),
        ({"checkpoint": "checkpoint_best.pth"}, "lacks fold_0"),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_is_written(design, tmp_path, changes, said):
    layout = Layout(tmp_path / "rounds")
    with pytest.raises(UserError) as error:
        plan_rounds(layout, replace(design, **changes))
    assert said in str(error.value)
    assert not layout.folder.exists()


def test_several_faults_come_at_once(design, tmp_path):
    with pytest.raises(UserError) as error:
        plan_rounds(Layout(tmp_path / "rounds"), replace(design, rounds=0, drop=2.0, folds=(7,)))
    assert all(text in str(error.value) for text in ("--rounds 0", "--drop 2.0", "no fold 7"))


def test_hidden_labels_are_refused_with_what_to_do(design, tmp_path):
    file = Path(design.preprocessed, design.dataset, "splits_final.json")
    splits = json.loads(file.read_text(encoding="utf-8"))
    splits[0]["unlabeled"] = ["lab_003"]
    file.write_text(json.dumps(splits), encoding="utf-8")
    with pytest.raises(UserError, match="move their images to imagesUn"):
        plan_rounds(Layout(tmp_path / "rounds"), design)


def test_a_labeled_case_among_the_unlabeled_scans_is_refused(design, tmp_path):
    """Its predicted label would stand in for its own, in training and in validation."""
    image = design.raw_folder / "imagesTr" / "lab_003_0000.nii.gz"
    shutil.copy(image, design.raw_folder / "imagesUn")
    with pytest.raises(UserError, match="has cases of imagesTr: lab_003; take them out"):
        plan_rounds(Layout(tmp_path / "rounds"), design)


def test_a_folder_in_use_is_left_alone(design, tmp_path):
    layout = Layout(tmp_path / "rounds")
    plan_rounds(layout, design)
    assert read_design(layout) == design
    with pytest.raises(UserError, match="is in use"):
        plan_rounds(layout, replace(design, rounds=5))
    assert read_design(layout) == design


def test_a_folder_without_a_design_is_told(tmp_path, capsys, monkeypatch):
    nnunet_folders(tmp_path, monkeypatch)
    for command in ("run", "status", "report"):
        with pytest.raises(SystemExit) as end:
            main([command, str(tmp_path)])
        assert end.value.code == 2
        assert "nnUNetv2_semisup_rounds plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("steps", "settings", "expected"),
    [
        (2000, "", "seed=0,num_epochs=8,num_iterations_per_epoch=250,"
         "num_val_iterations_per_epoch=50,save_every=1"),
        (100, "seed=3", "seed=3,num_epochs=1,num_iterations_per_epoch=100,"
         "num_val_iterations_per_epoch=20,save_every=1"),
        (250_000, "save_every=50", "seed=0,num_epochs=1000,num_iterations_per_epoch=250,"
         "num_val_iterations_per_epoch=50,save_every=50"),
        (None, "ema_decay=0.9", "seed=0,ema_decay=0.9"),
    ],
)  # fmt: skip
def test_steps_become_epochs_and_the_seed_is_fixed(steps, settings, expected):
    assert settings_of("nnUNetTrainerPseudoLabel", steps, settings) == expected


def test_a_stock_trainer_gets_no_settings():
    assert settings_of("nnUNetTrainer", None, "") == ""
