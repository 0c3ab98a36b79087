"""Runs that fail, that are stopped and killed, and the lock on the folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_semisup import processes
from nnunet_semisup.benchmark import execute
from nnunet_semisup.benchmark.cluster import executor_of, submit
from nnunet_semisup.benchmark.design import Layout, Row, Run, read_design, write_design
from nnunet_semisup.benchmark.execute import Place, command_of, settings_of
from nnunet_semisup.benchmark.lanes import run_lanes, to_do
from nnunet_semisup.benchmark.prepare import prepare
from nnunet_semisup.benchmark.progress import effort, epochs_done
from nnunet_semisup.benchmark.record import Record, read_record, write_record
from nnunet_semisup.cli.benchmark import main
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.lock import exclusive_lock
from tests.helpers import nnunet_folders
from tests.unit.benchmark.shared import commands_in_process, make_dataset, make_design

STAND_IN = str(Path(__file__).with_name("stand_in.py"))
ON_CPU = Place("cpu", threads=1, workers=0)
FAILING = Row("nnUNetTrainerUAMT", "fail=1")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A benchmark whose data are prepared."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        dataset = make_dataset(nnunet_folders(root, patch).raw)
        design, layout = make_design(dataset, seeds=(0, 1)), Layout(root / "benchmark")
        write_design(layout, design)
        with commands_in_process():
            prepare(layout, design, 2, 1)
    return layout


@pytest.fixture
def layout(prepared, monkeypatch):
    """It, without runs, and the stand-in for the training command."""
    for folder in prepared.budget(2).glob("nnUNetTrainer*"):
        subprocess.run(["rm", "-r", str(folder)], check=True)
    monkeypatch.setattr(execute, "find_command", lambda name: sys.executable)
    command = execute.command_of
    monkeypatch.setattr(
        execute,
        "command_of",
        lambda *given: ["python", STAND_IN, *command(*given)[1:]],
    )
    monkeypatch.setattr(processes, "POLL", 0.02)
    return prepared


def run_all(layout, design, runs, lanes=1):
    return run_lanes(layout, design, runs, [ON_CPU] * lanes, lambda: None)


def test_a_run_that_fails_stops_no_other_and_is_retried_on_request(layout):
    design = read_design(layout)
    failing = Run(FAILING, 2, 0)
    runs = [failing, *design.runs()]
    assert run_all(layout, design, runs, lanes=2)
    record = read_record(layout, failing)
    assert record.status == "failed"
    assert "this training fails" in record.fault
    for run in design.runs():
        record = read_record(layout, run)
        assert record.status == "finished"
        assert record.seconds > 0
        assert set(record.hashes) == {
            "splits_final.json",
            "dataset_fingerprint.json",
            "nnUNetPlans.json",
        }
        cases = json.loads(layout.evaluation(run).read_text())["cases"]
        assert list(cases) == ["lab_003", "lab_004"]
    assert to_do(layout, runs, retry=False) == []
    assert to_do(layout, runs, retry=True) == [failing]


def test_predictions_that_are_missing_are_a_failure(layout, monkeypatch):
    design = read_design(layout)
    (run, _) = design.runs()
    folder = layout.fold(design, run)
    (folder / "validation").mkdir(parents=True)
    (folder / "checkpoint_final.pth").touch()
    (folder / "validation" / "summary.json").touch()
    reference = layout.preprocessed(design, 2) / "gt_segmentations" / "lab_003.nii.gz"
    (folder / "validation" / "lab_003.nii.gz").write_bytes(reference.read_bytes())
    run_all(layout, design, [run])
    record = read_record(layout, run)
    assert (record.status, record.fault) == ("failed", "not predicted: lab_004")
    assert not layout.evaluation(run).exists()


def in_a_process(layout, body):
    """Run lines of Python in a process of its own, with the stand-in."""
    code = f"""
import sys
from pathlib import Path
from nnunet_semisup import processes
from nnunet_semisup.benchmark import execute
from nnunet_semisup.benchmark.design import Layout, read_design
from nnunet_semisup.benchmark.lanes import run_lanes
execute.find_command = lambda name: sys.executable
command = execute.command_of
execute.command_of = lambda *given: ["python", {STAND_IN!r}, *command(*given)[1:]]
processes.POLL, processes.NOTE_EVERY = 0.02, 0.02
layout = Layout(Path({str(layout.folder)!r}))
design = read_design(layout)
{body}
"""
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)


ALL = "run_lanes(layout, design, design.runs(), [execute.Place('cpu')], lambda: None)"


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("whole_group", [True, False], ids=["all killed", "training left alone"])
def test_a_killed_command_goes_on_where_it_was(layout, whole_group):
    """No epoch is trained twice but the one that was cut off, and no two trainings at a time."""
    design = read_design(layout)
    first, second = design.runs()
    trained = layout.fold(design, first) / "epochs.txt"
    process = in_a_process(layout, ALL)
    wait_for(lambda: trained.exists())
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    assert read_record(layout, first).status == "running"
    assert read_record(layout, first).seconds > 0, "its time counts"
    assert in_a_process(layout, ALL).wait() == 0
    epochs = [int(line) for line in trained.read_text().split()]
    assert epochs == [0, 1, 2, 3]
    assert [read_record(layout, run).status for run in (first, second)] == ["finished"] * 2
    assert read_record(layout, first).attempts == 2


def test_after_an_interruption_the_training_saves_and_the_run_is_open(layout):
    design = read_design(layout)
    (run, other) = design.runs()
    trained = layout.fold(design, run) / "epochs.txt"
    process = in_a_process(layout, f"sys.exit(not {ALL})")
    wait_for(lambda: trained.exists())
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 1
    assert read_record(layout, run).status == "running"
    assert read_record(layout, other).status == "waiting"
    assert to_do(layout, design.runs(), retry=False) == design.runs()


def test_jobs_of_a_cluster(layout, monkeypatch):
    """Submitit's local executor runs each as a process, which imports this package anew."""
    pytest.importorskip("submitit")
    told = []
    monkeypatch.setattr("nnunet_semisup.benchmark.cluster._POLL", 0.1)
    failing = Run(FAILING, 2, 0)
    executor = executor_of(layout, "local", {"timeout_min": 5})
    submit(layout, [failing], ON_CPU, executor, lambda: told.append(1))
    assert told == [1]
    record = read_record(layout, failing)
    assert record.status == "failed"
    assert "fail" in record.fault
    with pytest.raises(UserError, match="submitit refuses cluster local"):
        executor_of(layout, "local", {"no_such_parameter": 5})


def test_a_second_run_in_the_folder_is_refused(layout, capsys):
    with exclusive_lock(layout.folder), pytest.raises(SystemExit) as ended:
        main(["run", str(layout.folder), "-device", "cpu"])
    assert ended.value.code == 2
    assert f"Another command is writing to {layout.folder}" in capsys.readouterr().err


def test_commands_and_settings_are_stock_and_equal_for_all_rows(layout):
    design = read_design(layout)
    run = Run(Row("nnUNetTrainerUAMT", "ema_decay=0.9", ("nsda",)), 2, 1)
    assert command_of(design, run, ON_CPU) == [
        *("nnUNetv2_train", "950", "3d_fullres", "0", "-tr", "nnUNetTrainerUAMT"),
        *("-p", "nnUNetPlans-nsda", "-device", "cpu"),
    ]
    assert settings_of(design, run, ON_CPU) == (
        "num_epochs=4,num_iterations_per_epoch=2,num_val_iterations_per_epoch=1,save_every=2,"
        "seed=1,cpu_bfloat16=False,cpu_threads=1,ema_decay=0.9"
    )
    assert "cpu" not in settings_of(design, run, Place("cuda"))
    supervised = Row("nnUNetTrainerSupervised")
    assert effort(design, supervised) == 8
    assert effort(design, Row("nnUNetTrainerPseudoLabel")) == pytest.approx(8 * 2.3)


def test_a_record_is_read_as_it_was_written(layout):
    (run, _) = read_design(layout).runs()
    assert read_record(layout, run) == Record()
    record = Record("failed", 2, 3.5, 4.5, ("a b",), {"c": "d"}, "e", {"f": "1"}, {"g": "2"}, "h")
    write_record(layout, run, record)
    assert read_record(layout, run) == record


def test_epochs_are_counted_from_the_last_log(tmp_path):
    assert epochs_done(tmp_path) == 0
    (tmp_path / "training_log_1.txt").write_text("x: Epoch 0 \nx: Epoch 1 \n")
    assert epochs_done(tmp_path) == 1
    (tmp_path / "checkpoint_final.pth").touch()
    assert epochs_done(tmp_path) == sys.maxsize


def test_broken_data_are_told_and_skipped(layout, tmp_path, monkeypatch, capsys):
    pytest.importorskip("nnunet_semisup.benchmark.report")
    design = read_design(layout)
    broken = Layout(tmp_path / "broken")
    write_design(broken, design)
    monkeypatch.setattr(
        "nnunet_semisup.benchmark.prepare.plan",
        lambda *_: (_ for _ in ()).throw(UserError("an image is missing")),
    )
    with pytest.raises(SystemExit) as ended:
        main(["run", str(broken.folder), "-device", "cpu"])
    assert ended.value.code == 1
    assert "2 labels: not prepared, its runs are skipped. an image is missing" in (
        capsys.readouterr().out
    )
