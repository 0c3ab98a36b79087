"""Settings, the folder's owner, the cut of the plan, and what the commands are given."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nnunet_semisup import trainers
from nnunet_semisup.demo import run
from nnunet_semisup.demo.phantom import Counts
from nnunet_semisup.demo.settings import Layout, Settings, claim
from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import METHODS
from nnunet_semisup.trainers.hyperparameters import read_overrides
from nnunet_semisup.trainers.vqseg import nnUNetTrainerVQSeg


def plan(strides, patch):
    stages = len(strides)
    return {
        "configurations": {
            "3d_fullres": {
                "patch_size": patch,
                "batch_size": 12,
                "architecture": {
                    "arch_kwargs": {
                        "n_stages": stages,
                        "strides": strides,
                        "features_per_stage": [32 * 2**i for i in range(stages)],
                    }
                },
            },
            "2d": {
                "patch_size": [48, 56],
                "batch_size": 3,
                "architecture": {
                    "arch_kwargs": {
                        "n_stages": 2,
                        "strides": [[1, 1], [2, 2]],
                        "features_per_stage": [32, 64],
                    }
                },
            },
        }
    }


@pytest.mark.parametrize(
    ("strides", "planned", "wanted"),
    [
        ([[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]], [40, 48, 48], [32, 40, 40]),
        ([[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]], [40, 64, 64], [32, 32, 32]),
        ([[1, 1, 1], [2, 2, 2]], [12, 14, 16], [12, 14, 16]),
    ],
)
def test_cut_patch_fits_the_strides(tmp_path, strides, planned, wanted):
    path = tmp_path / "plans.json"
    content = plan(strides, planned)
    path.write_text(json.dumps(content))
    run.shrink_plan(path, Settings(max_patch=(32, 40, 40), features=(8, 16, 32), max_batch=8))
    cut = json.loads(path.read_text(encoding="utf-8"))
    configuration = cut["configurations"]["3d_fullres"]
    assert configuration["patch_size"] == wanted
    assert configuration["batch_size"] == 8
    features = configuration["architecture"]["arch_kwargs"]["features_per_stage"]
    assert features == [8, 16, 32, 32, 32][: len(strides)]
    assert cut["configurations"]["2d"] == content["configurations"]["2d"]
    assert [p.name for p in tmp_path.iterdir()] == ["plans.json"]


def test_patch_of_a_2d_plan_is_cut_to_the_last_two_axes(tmp_path):
    path = tmp_path / "plans.json"
    content = plan([[1, 1, 1], [2, 2, 2]], [12, 14, 16])
    path.write_text(json.dumps(content))
    run.shrink_plan(path, Settings(configuration="2d", max_patch=(8, 40, 64), features=(4,)))
    cut = json.loads(path.read_text(encoding="utf-8"))["configurations"]
    assert cut["2d"]["patch_size"] == [40, 56]
    assert cut["2d"]["batch_size"] == 3
    assert cut["2d"]["architecture"]["arch_kwargs"]["features_per_stage"] == [4, 4]
    assert cut["3d_fullres"] == content["configurations"]["3d_fullres"]


def test_all_bad_settings_are_listed(tmp_path):
    bad = Settings(
        trainers=("nnUNetTrainerNone",),
        steps=30,
        shape=(4, 4, 4),
        counts=Counts(0, 1, 1),
        overrides=(("nnUNetTrainerVQSeg", "ema_decay=0.9"),),
    )
    with pytest.raises(UserError) as error:
        run.run_demo(tmp_path / "demo", bad)
    words = ("nnUNetTrainerNone", "30 steps", "(4, 4, 4)", "labeled=0", "--set nnUNetTrainerVQSeg")
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "demo").exists()


def test_folder_belongs_to_one_set_of_settings(tmp_path):
    output = tmp_path / "demo"
    claim(output, Settings())
    claim(output, Settings())
    with pytest.raises(UserError, match="seed 0, not 1"):
        claim(output, replace(Settings(), seed=1))


def test_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="no demo's folder"):
        claim(tmp_path, Settings())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_users_own_nnunet_folders_and_settings_are_not_used(tmp_path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, "/precious")
    monkeypatch.setenv("nnUNet_semisup_set", "num_epochs=1000")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    variables = run.environment(Layout(tmp_path))
    assert "/precious" not in variables.values()
    assert "nnUNet_semisup_set" not in variables
    assert "nnUNet_n_proc_DA" not in variables


def test_trainers_accept_the_budget():
    name = "nnUNetTrainerVQSeg"
    overrides = (run.assignments(f"{name}:ema_decay=0.5"), ("nnUNetTrainerOther", "wrong=1"))
    settings = Settings(steps=60, steps_per_epoch=20, seed=5, overrides=overrides)
    values = read_overrides(nnUNetTrainerVQSeg, run.training_settings(settings, name))
    assert values["ema_decay"] == 0.5
    usual = run.training_settings(replace(settings, overrides=()), name)
    assert read_overrides(nnUNetTrainerVQSeg, usual)["ema_decay"] == pytest.approx(
        1 - 10 / 60, abs=1e-3
    )
    assert "ema_decay" not in run.training_settings(settings, "nnUNetTrainerSupervised")
    assert values["num_epochs"] * values["num_iterations_per_epoch"] == 60
    assert values["seed"] == 5


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.trainer)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_trainer_takes_what_the_demo_sets(method, device):
    text = run.training_settings(Settings(device=device), method.trainer)
    values = read_overrides(getattr(trainers, method.trainer), text)
    assert ("ema_decay" in values) is method.has_teacher
    teaches = getattr(getattr(trainers, method.trainer), "use_teacher", False)
    assert teaches is method.has_teacher


@pytest.mark.parametrize("text", ["", "ema_decay=0.5", "nnUNetTrainerVQSeg:", ":a=1"])
def test_assignments_name_their_trainer(text, capsys):
    with pytest.raises(SystemExit) as error:
        run.build_parser().parse_args(["--set", text])
    assert error.value.code == 2
    assert "TRAINER:NAME=VALUE" in capsys.readouterr().err


def test_exit_code_of_bad_arguments(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        run.main(["--output", str(tmp_path / "demo"), "--steps", "7", "--device", "cpu"])
    assert error.value.code == 2
    assert "7 steps" in capsys.readouterr().err
