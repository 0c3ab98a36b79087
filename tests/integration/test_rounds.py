"""Rounds by real commands: what is killed ends with the labels of what was left alone."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_semisup.rounds.design import Layout, read_design
from tests.helpers import make_raw_dataset, nnunet_folders

KILLS = 5
NUMBER, TRAINER = 951, "nnUNetTrainerSupervised"
SETTINGS = "num_iterations_per_epoch=4,num_val_iterations_per_epoch=1,seed=1"


def ended(words: list[str]) -> int:
    return start(words, Path(os.devnull)).wait()


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name(words[0])
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(program), *words[1:]], stdout=output, stderr=output, start_new_session=True
        )


def trained(raw: Path, preprocessed: Path) -> None:
    """Leave a data set with a small plan and a model of some steps."""
    dataset = make_raw_dataset(raw, NUMBER, "Killed", (20, 20, 20), num_labeled=4, num_unlabeled=3)
    splits = [{"train": list(dataset.labeled[:2]), "val": list(dataset.labeled[2:])}]
    (dataset.folder / "splits_final.json").write_text(json.dumps(splits))
    number = str(NUMBER)
    assert ended(["nnUNetv2_semisup_plan_and_preprocess", "-d", number, "--no_pp"]) == 0
    plans_file = preprocessed / dataset.name / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    kwargs = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    kwargs["features_per_stage"] = [4, 8, 8, 8, 8, 8][: kwargs["n_stages"]]
    plans_file.write_text(json.dumps(plans))
    both = ["-d", number, "-c", "3d_fullres", "-np", "1"]
    assert ended(["nnUNetv2_preprocess", *both]) == 0
    assert ended(["nnUNetv2_semisup_preprocess", *both]) == 0
    train = ["nnUNetv2_train", number, "3d_fullres", "0", "-tr", TRAINER, "-device", "cpu"]
    assert ended(train) == 0


def labels(layout: Layout) -> dict[str, str]:
    """Return the hash of every label and choice of every round."""
    design = read_design(layout)
    files = [
        file
        for number in range(1, design.rounds + 1)
        for folder in [layout.round(design, number)]
        for file in [folder.choice, *sorted((folder.raw / "labelsTr").iterdir())]
    ]
    return {
        str(file.relative_to(layout.folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


@pytest.mark.skipif(
    not os.environ.get("NNUNET_SEMISUP_TEST_ALL"), reason="part of make test-all: several minutes"
)
def test_killed_at_five_random_moments_they_end_with_the_same_labels(tmp_path, monkeypatch):
    folders = nnunet_folders(tmp_path, monkeypatch)
    for name, value in {"nnUNet_n_proc_DA": "0", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_semisup_set", f"num_epochs=2,{SETTINGS}")
    trained(folders.raw, folders.preprocessed)
    monkeypatch.delenv("nnUNet_semisup_set")
    plan = ["-d", str(NUMBER), "-c", "3d_fullres", "-tr", TRAINER, "-f", "0", "-device", "cpu"]
    plan += ["-np", "1", "--rounds", "2", "--steps", "8", "--converged", "0", "--size-limit", "0"]
    whole, killed = (tmp_path / name for name in ("whole", "killed"))
    command = "nnUNetv2_semisup_rounds"
    for folder in (whole, killed):
        assert ended([command, "plan", str(folder), *plan, "--settings", SETTINGS]) == 0
    began = time.monotonic()
    assert ended([command, "run", str(whole)]) == 0
    length = time.monotonic() - began
    moments = random.Random(0)
    for number in range(KILLS):
        process = start([command, "run", str(killed)], killed / "output.txt")
        time.sleep(moments.uniform(0.1, 0.4) * length)
        assert process.poll() is None, "it ended before it was killed"
        (os.killpg if number % 2 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    assert ended([command, "run", str(killed)]) == 0
    assert labels(Layout(killed)) == labels(Layout(whole))
    assert len(labels(Layout(whole))) > 2 * KILLS
