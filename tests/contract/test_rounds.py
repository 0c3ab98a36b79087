"""Rounds by the real commands, in this process; their data set without this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pytest
import torch
from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as stock
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.run.run_training import run_training_entry

from nnunet_semisup.cli import preprocess, rank
from nnunet_semisup.cli.rounds import main
from nnunet_semisup.rounds.commands import Steps
from nnunet_semisup.rounds.design import Layout, read_design
from nnunet_semisup.rounds.results import read_rounds
from tests.contract.conftest import KINDS
from tests.helpers import nnunet_in_process, validation_in_threads

ENTRIES = {
    "nnUNetv2_semisup_rank": rank.main,
    "nnUNetv2_preprocess": stock.preprocess_entry,
    "nnUNetv2_semisup_preprocess": preprocess.main,
    "nnUNetv2_train": run_training_entry,
}
# Training of two steps by nnU-Net alone, as if this package were not installed.
STOCK = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "nnunet_semisup":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
for name in [n for n in sys.modules if n.partition(".")[0] == "nnunet_semisup"]:
    del sys.modules[name]
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module
from nnunetv2.run import run_training

class Short(module.nnUNetTrainer):
    def on_train_start(self):
        super().on_train_start()
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1
    def get_tr_and_val_datasets(self):
        train, val = super().get_tr_and_val_datasets()
        print("drawn", list(train.identifiers))
        return train, val
    def perform_actual_validation(self, save_probabilities=False):
        pass

run_training.recursive_find_trainer_class_by_name = lambda *a, **k: Short
run_training.run_training_entry()
assert not [n for n in sys.modules if n.partition(".")[0] == "nnunet_semisup"]
"""


@pytest.fixture
def in_process(monkeypatch):
    """Commands of rounds as functions of this process, few processes of nnU-Net's."""
    called = []

    def call(self, name, words, variables):
        called.append(words)
        threads = torch.get_num_threads()
        with (
            mock.patch.dict(os.environ, {**variables, "nnUNet_n_proc_DA": "0"}),
            mock.patch.object(sys, "argv", list(words)),
            nnunet_in_process(),
            validation_in_threads(),
            suppress(SystemExit),
        ):
            ENTRIES[words[0]]()
        torch.set_num_threads(threads)

    monkeypatch.setattr(Steps, "_call", call)
    return called


@pytest.mark.parametrize(
    ("kind", "trainer"),
    [
        ("labels3d", "nnUNetTrainerSupervised"),
        ("regions2d", "nnUNetTrainerPseudoLabel"),
    ],
)
def test_two_rounds_and_nnunet_alone(model, in_process, tmp_path, kind, trainer):
    """Labeled, chosen, written, preprocessed and trained; fine-tuned; and once more."""
    folder, _ = model("nnUNetTrainerPseudoLabel", kind)
    dataset = f"Dataset{KINDS[kind].number}_{kind}"
    raw, preprocessed = (Path(str(root), dataset) for root in (nnUNet_raw, nnUNet_preprocessed))
    if not (preprocessed / "splits_final.json").exists():
        (preprocessed / "splits_final.json").write_bytes((raw / "splits_final.json").read_bytes())
    name = f"nnUNetTrainer__nnUNetPlans__{KINDS[kind].configuration}"
    place = tmp_path / "results" / dataset / name
    place.parent.mkdir(parents=True)
    folder.rename(place)
    rounds = tmp_path / "rounds"
    plan = ["plan", str(rounds), "-d", str(KINDS[kind].number), "-c", KINDS[kind].configuration]
    plan += ["-f", "0", "--rounds", "2", "--steps", "3", "--trainer", trainer, "-device", "cpu"]
    plan += ["--fine-tune", "2", "--size-limit", "0", "--converged", "0", "-np", "0"]
    plan += ["--settings", "seed=1"]
    with mock.patch.dict(os.environ, {"nnUNet_results": str(tmp_path / "results")}):
        for words in (plan, ["run", str(rounds)]):
            with pytest.raises(SystemExit) as end:
                main(words)
            assert end.value.code == 0
    design = read_design(Layout(rounds))
    found = read_rounds(Layout(rounds), design)
    assert [one.state for one in found] == ["given", "finished", "finished"]
    assert all(one.validation.mean is not None for one in found[1:])
    assert sum(words[0] == "nnUNetv2_train" for words in in_process) == 4
    round_ = Layout(rounds).round(design, 2)
    logs = [log.read_text() for log in Path(round_.roots["nnUNet_results"]).rglob("training_log*")]
    assert sum(f"({trainer}, " in log and "Start weights: fresh" in log for log in logs) == 1
    decisions = json.loads(round_.choice.read_text())["decisions"]
    kept = [one["case"] for one in decisions if one["kept"]]
    assert len(kept) == 2  # of three, the worst was dropped
    splits = json.loads((round_.preprocessed / "splits_final.json").read_text())
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(KINDS[kind].number), KINDS[kind].configuration, "0"]
        + ["-device", "cpu"],
        env={
            **os.environ,
            **round_.roots,
            "nnUNet_results": str(tmp_path / "stock"),
            "nnUNet_n_proc_DA": "0",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "stock").rglob("checkpoint_final.pth"))
    assert f"drawn {sorted([*splits[0]['train']])}" in done.stdout
