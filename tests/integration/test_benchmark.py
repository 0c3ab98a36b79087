"""A benchmark by real commands: what is killed ends as what was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nnunet_semisup.benchmark.design import Design, Layout, Row, write_design
from nnunet_semisup.benchmark.prepare import prepare
from nnunet_semisup.benchmark.record import read_record
from tests.helpers import nnunet_folders
from tests.unit.benchmark.shared import commands_in_process, make_dataset, make_design

KILLS = 3
COMMAND = [sys.executable, "-m", "nnunet_semisup.cli.benchmark", "run"]
OPTIONS = ["-device", "cpu", "--threads", "1", "--workers", "0"]
ENVIRONMENT = {"nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def prepared(folder: Path, design: Design) -> Layout:
    layout = Layout(folder)
    write_design(layout, design)
    with commands_in_process():
        prepare(layout, design, design.budgets[0], 1)
    return layout


def start(layout: Layout) -> subprocess.Popen[bytes]:
    command = [*COMMAND, str(layout.folder), *OPTIONS]
    log = (layout.folder / "output.txt").open("ab")
    return subprocess.Popen(
        command, env={**os.environ, **ENVIRONMENT}, stdout=log, stderr=log, start_new_session=True
    )


def weights(layout: Layout, design: Design, run: object) -> dict[str, torch.Tensor]:
    path = layout.fold(design, run) / "checkpoint_final.pth"  # type: ignore[arg-type]
    content: dict[str, torch.Tensor] = torch.load(path, weights_only=False)["network_weights"]
    return content


@pytest.mark.skipif(
    not os.environ.get("NNUNET_SEMISUP_TEST_ALL"), reason="part of make test-all: several minutes"
)
def test_killed_three_times_it_ends_with_the_same_results(tmp_path, monkeypatch):
    dataset = make_dataset(nnunet_folders(tmp_path, monkeypatch).raw)
    design = make_design(dataset, Row("nnUNetTrainerPseudoLabel"), steps=16)
    undisturbed, killed = (prepared(tmp_path / name, design) for name in ("whole", "killed"))
    assert start(undisturbed).wait() == 0
    moments = random.Random(0)
    for _ in range(KILLS):
        process = start(killed)
        time.sleep(moments.uniform(8, 30))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(killed).wait() == 0
    for run in design.runs():
        assert read_record(killed, run).status == "finished"
        expected, found = (weights(each, design, run) for each in (undisturbed, killed))
        assert all(torch.equal(expected[name], found[name]) for name in expected), run.title
    assert sum(read_record(killed, run).attempts for run in design.runs()) > len(design.rows)
