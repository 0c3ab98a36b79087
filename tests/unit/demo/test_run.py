"""Settings, the folder's owner, the cut of the plan, and what the commands are given."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nnunet_semisup import trainers
from nnunet_semisup.demo import run
from nnunet_semisup.demo.dataset import Counts
from nnunet_semisup.demo.settings import Layout, Settings, claim
from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import METHODS
from nnunet_semisup.trainers.vqseg import nnUNetTrainerVQSeg
from nnunet_semisup.training.settings import Settings as OfTraining


def test_channels_and_batch_of_the_plan_are_set_and_nothing_else(tmp_path):
    def plan(features, batch_size):
        network = {"n_stages": 7, "features_per_stage": features}
        configuration = {"batch_size": batch_size, "architecture": {"arch_kwargs": network}}
        return {"configurations": {"2d": configuration}}

    path = tmp_path / "plans.json"
    path.write_text(json.dumps(plan([32, 64, 128, 256, 512, 512, 512], 2)))
    run.shrink_plan(path)
    expected = plan([8, 16, 32, 64, 64, 64, 64], run.BATCH_SIZE)
    assert json.loads(path.read_text(encoding="utf-8")) == expected
    assert [p.name for p in tmp_path.iterdir()] == ["plans.json"]


def test_all_bad_settings_are_listed(tmp_path):
    bad = Settings(
        trainers=("nnUNetTrainerNone",),
        steps=30,
        counts=Counts(0, 1, 1),
        overrides=(("nnUNetTrainerVQSeg", "ema_decay=0.9"),),
    )
    with pytest.raises(UserError) as error:
        run.run_demo(tmp_path / "demo", bad)
    words = ("nnUNetTrainerNone", "30 steps", "labeled=0", "--set nnUNetTrainerVQSeg")
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "demo").exists()


def test_folder_belongs_to_one_set_of_settings(tmp_path):
    output = tmp_path / "demo"
    claim(output, Settings())
    claim(output, Settings())
    with pytest.raises(UserError, match="seed 0, not 1"):
        claim(output, replace(Settings(), seed=1))


def test_a_trainer_can_be_added_to_a_run(tmp_path):
    output = tmp_path / "demo"
    claim(output, Settings())
    more = Settings(trainers=(*Settings().trainers, "nnUNetTrainerVQSeg"))
    claim(output, more)
    claim(output, Settings())


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
    values = OfTraining.of(nnUNetTrainerVQSeg, run.training_settings(settings, name)).given
    assert values["ema_decay"] == 0.5
    assert "ema_decay" not in run.training_settings(settings, "nnUNetTrainerSupervised")
    assert values["num_epochs"] * values["num_iterations_per_epoch"] == 60
    assert values["seed"] == 5


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.trainer)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_trainer_takes_what_the_demo_sets(method, device):
    """Budget, seed and, on a CPU, speed: the method's own values stay its defaults."""
    text = run.training_settings(Settings(device=device), method.trainer)
    values = OfTraining.of(getattr(trainers, method.trainer), text).given
    budget = {
        "num_epochs",
        "num_iterations_per_epoch",
        "num_val_iterations_per_epoch",
        "save_every",
        "seed",
    }
    assert set(values) - {"cpu_threads", "channels_last"} == budget


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
