"""A run that is stopped or killed continues as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_semisup.training.checkpoint import KEY
from tests.integration.conftest import LANES
from tests.integration.workspace import (
    Workspace,
    hyperparameters,
    train_arguments,
    wait_until,
)

LONG = {"num_epochs": 3, "num_iterations_per_epoch": 15, "num_val_iterations_per_epoch": 2}
MEAN_TEACHER, VQSEG = "nnUNetTrainerMeanTeacher", "nnUNetTrainerVQSeg"
STOPS = (
    (MEAN_TEACHER, signal.SIGTERM, 2, False),
    (VQSEG, signal.SIGINT, 2, True),
)
"""Trainer, signal, number of workers, whether the workers get the signal too."""
TORN = ("checkpoint_best", "checkpoint_final")
CHECKPOINTS = ("checkpoint_latest.pth", "checkpoint_best.pth", "checkpoint_final.pth")

# A trainer folder of the user's, searched before the package's own: the same trainers, but writing
# the checkpoint that DIE_IN names ends half way, with the process.
TORN_WRITES = """
import os, signal, torch
from nnunet_semisup.trainers.mean_teacher import nnUNetTrainerMeanTeacher

save = torch.save

def save_half(checkpoint, file):
    if os.path.basename(file).startswith("." + os.environ["DIE_IN"]):
        save(checkpoint, file)
        os.truncate(file, os.path.getsize(file) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    save(checkpoint, file)

torch.save = save_half
"""


@dataclass(frozen=True)
class Scenarios:
    """Commands of several tests, run at the same time because each is slow to start.

    Attributes:
        workspace: the shared data, with more steps a run, on one thread.
        straight: fold folders of the runs that nobody stopped, without workers.
        others: what the tests wait for, by the test's name.
    """

    workspace: Workspace
    root: Path
    straight: dict[str, Future[Path]]
    others: dict[Any, Future[None]]

    def here(self, name: str, workers: int = 0) -> Workspace:
        """The workspace with its own results, and a checkpoint after every epoch."""
        return self.workspace.where(
            **hyperparameters(**LONG, save_every=1),
            nnUNet_results=self.root / name,
            nnUNet_n_proc_DA=workers,
        )

    def train(self, trainer: str) -> Path:
        """A whole run."""
        here = self.workspace.where(nnUNet_results=self.root / "straight")
        here.train(trainer).succeeded()
        return here.fold_folder(trainer)

    def expect(self, folder: Path, trainer: str) -> None:
        """Fails unless ``folder`` has what the run without interruption has."""
        assert_clean(folder)
        assert_same_result(folder, self.straight[trainer].result())


@pytest.fixture(scope="module")
def scenarios(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scenarios]:
    """Everything below that runs commands, under way."""
    long_runs = workspace.where(**hyperparameters(**LONG))
    given = Scenarios(long_runs, tmp_path_factory.mktemp("scenarios"), {}, {})
    with ThreadPoolExecutor(LANES) as lanes:
        for trainer in (MEAN_TEACHER, VQSEG):
            given.straight[trainer] = lanes.submit(given.train, trainer)
        for stop in STOPS:
            given.others[stop] = lanes.submit(stop_and_continue, given, *stop)
        for target in TORN:
            given.others[target] = lanes.submit(die_while_writing, given, target)
        given.others["any moment"] = lanes.submit(die_at_any_moment, given)
        yield given
        lanes.shutdown(cancel_futures=True)


def load(path: Path) -> dict[str, Any]:
    """A whole checkpoint."""
    return torch.load(path, map_location="cpu", weights_only=False)


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Paths at which two nested structures differ, bit by bit."""
    if type(a) is not type(b):
        return [where]
    if isinstance(a, dict):
        if list(a) != list(b):
            return [f"{where} (keys)"]
        return [d for k in a for d in differences(a[k], b[k], f"{where}/{k}")]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [f"{where} (length)"]
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{where}/{i}")]
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, np.ndarray):
        return [] if np.array_equal(a, b) else [where]
    return [] if a == b or (a != a and b != b) else [where]


def assert_same_result(folder: Path, expected: Path) -> None:
    """Weights, optimizer, teacher, generators, logs and terms are equal, bit by bit."""
    for name in ("checkpoint_final.pth", "checkpoint_best.pth"):
        one, other = load(folder / name), load(expected / name)
        for checkpoint in (one, other):
            del checkpoint["init_args"], checkpoint[KEY]["configuration"]
            for key in ("epoch_start_timestamps", "epoch_end_timestamps"):
                del checkpoint["logging"][key]
        assert differences(one, other) == []
    terms = "semisup_terms.csv"
    assert (folder / terms).read_bytes() == (expected / terms).read_bytes()


def assert_clean(folder: Path) -> None:
    """No temporary file is left."""
    assert not [f.name for f in folder.iterdir() if f.suffix == ".tmp" or f.name[0] == "."]


def loadable(folder: Path) -> list[str]:
    """Names of the checkpoints there are, each of which must be complete."""
    names = [name for name in CHECKPOINTS if (folder / name).exists()]
    for name in names:
        assert load(folder / name)["network_weights"]
    return names


def stop_and_continue(
    given: Scenarios, trainer: str, number: signal.Signals, workers: int, whole_group: bool
) -> None:
    """Stops a run in its second epoch, continues it and compares."""
    here = given.here(f"{trainer}_{number.name}_{workers}", workers)
    log = given.root / f"{trainer}_{number.name}_{workers}.log"
    with here.start("nnUNetv2_train", *train_arguments(trainer), log=log) as running:
        running.wait_for("Epoch 1\n")
        send = os.killpg if whole_group else os.kill
        send(running.process.pid, number)
        assert running.wait() == 128 + number, running.output
        assert f"{number.name}: saving after this step" in running.output
        assert "Stopped and saved; continue with --c" in running.output
        assert wait_until(lambda: not running.group_is_alive(), 30)

    folder = here.fold_folder(trainer)
    assert_clean(folder)
    assert not (folder / "checkpoint_final.pth").exists()
    assert load(folder / "checkpoint_latest.pth")["current_epoch"] == 1

    here.train(trainer, "3d_fullres", 0, "--c").succeeded()
    assert not (folder / "checkpoint_latest.pth").exists()
    given.expect(folder, trainer)


@pytest.mark.parametrize("stop", STOPS, ids=lambda s: f"{s[0]}-{s[1].name}-{s[2]}")
def test_a_stopped_run_continues_bit_by_bit(scenarios: Scenarios, stop: Any) -> None:
    """Ctrl-C and batch schedulers signal every process of the group at once."""
    scenarios.others[stop].result()


def die_while_writing(given: Scenarios, target: str) -> None:
    """Kills a run half way through a checkpoint, and continues it."""
    here = given.here(f"torn_{target}")
    ext = given.root / f"ext_{target}"
    ext.mkdir()
    (ext / "torn_writes.py").write_text(TORN_WRITES)
    dying = here.where(nnUNet_extTrainer=ext, DIE_IN=target)
    assert dying.train(MEAN_TEACHER).code == -signal.SIGKILL
    folder = here.fold_folder(MEAN_TEACHER)
    assert list(folder.glob(f".{target}_*.pth"))
    present = loadable(folder)
    assert "checkpoint_latest.pth" in present
    assert f"{target}.pth" not in present

    here.train(MEAN_TEACHER, "3d_fullres", 0, "--c").succeeded()
    given.expect(folder, MEAN_TEACHER)


@pytest.mark.parametrize("target", TORN)
def test_death_while_writing_leaves_the_checkpoint_before(
    scenarios: Scenarios, target: str
) -> None:
    scenarios.others[target].result()


def die_at_any_moment(given: Scenarios) -> None:
    """Kills a run with workers again and again, and continues it."""
    here = given.here("killed", workers=2)
    folder = here.fold_folder(MEAN_TEACHER)
    rng = random.Random(0)
    for attempt in range(2):
        log = given.root / f"killed{attempt}.log"
        arguments = (*train_arguments(MEAN_TEACHER), "--c")
        with here.start("nnUNetv2_train", *arguments, log=log) as running:
            running.wait_for("Current learning rate")
            wait_until(lambda running=running: running.process.poll() is not None, rng.random())
            os.kill(running.process.pid, signal.SIGKILL)
            running.wait()
            assert wait_until(lambda running=running: not running.group_is_alive(), 30)
        loadable(folder)
    here.train(MEAN_TEACHER, "3d_fullres", 0, "--c").succeeded()
    assert loadable(folder) == ["checkpoint_best.pth", "checkpoint_final.pth"]
    given.expect(folder, MEAN_TEACHER)


def test_death_at_any_moment(scenarios: Scenarios) -> None:
    """The run gets on from what it had saved; its workers end with it."""
    scenarios.others["any moment"].result()


class InProcess:
    """Trainings in this process, which can be stopped at an exact point."""

    def __init__(self, workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in workspace.environment.items():
            if name.startswith("nnUNet_"):
                monkeypatch.setenv(name, value)
        self.root = root
        self.monkeypatch = monkeypatch

    def trainer(self, name: str, results: str, resume: bool = False) -> Any:
        """The trainer that ``nnUNetv2_train`` would make."""
        from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

        self.monkeypatch.setenv("nnUNet_results", str(self.root / results))
        trainer = get_trainer_from_args(
            *train_arguments(name)[:2], 0, name, device=torch.device("cpu")
        )
        maybe_load_checkpoint(trainer, resume, False, None)
        return trainer


@pytest.fixture
def in_process(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InProcess]:
    here = workspace.where(
        **hyperparameters(num_epochs=2, num_iterations_per_epoch=2, num_val_iterations_per_epoch=1)
    )
    threads = torch.get_num_threads()
    yield InProcess(here, tmp_path, monkeypatch)
    torch.set_num_threads(threads)


def stop_at(trainer: Any, point: int) -> None:
    """Makes the signal arrive just before the given training or validation step."""
    count = 0
    train_step, validation_step = trainer.train_step, trainer.validation_step

    def counted(step: Any) -> Any:
        def wrapped(batch: Any) -> Any:
            nonlocal count
            if count == point:
                trainer.interruption.signal_number = signal.SIGTERM
            count += 1
            return step(batch)

        return wrapped

    trainer.train_step, trainer.validation_step = counted(train_step), counted(validation_step)


@pytest.mark.parametrize(("trainer", "points"), [(MEAN_TEACHER, range(6)), (VQSEG, (1, 2, 5))])
def test_every_point_of_a_run_is_one_to_continue_from(
    in_process: InProcess, trainer: str, points: Sequence[int]
) -> None:
    """Points are the two training steps and the validation step of two epochs."""
    whole = in_process.trainer(trainer, "whole")
    whole.run_training()
    expected = Path(whole.output_folder)
    for point in points:
        stopped = in_process.trainer(trainer, "parts")
        stop_at(stopped, point)
        with pytest.raises(SystemExit) as exit_info:
            stopped.run_training()
        assert exit_info.value.code == 128 + signal.SIGTERM
        folder = Path(stopped.output_folder)
        assert not (folder / "checkpoint_final.pth").exists()
        in_process.trainer(trainer, "parts", resume=True).run_training()
        assert_same_result(folder, expected)
        shutil.rmtree(folder)


def test_a_signal_after_the_last_step_ends_the_run_before_the_final_validation(
    in_process: InProcess,
) -> None:
    trainer = in_process.trainer(MEAN_TEACHER, "results")
    end = trainer.on_train_end

    def signal_first() -> None:
        trainer.interruption.signal_number = signal.SIGTERM
        end()

    trainer.on_train_end = signal_first
    with pytest.raises(SystemExit) as exit_info:
        trainer.run_training()
    assert exit_info.value.code == 128 + signal.SIGTERM
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").exists()


def test_an_error_ends_the_workers(in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    trainer = in_process.trainer(MEAN_TEACHER, "results")
    workers = []

    def fail(batch: Any) -> Any:
        workers.extend(trainer.dataloader_train._processes)
        raise RuntimeError("out of memory")

    trainer.train_step = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.run_training()
    assert workers
    assert trainer.dataloader_train._processes == []
    assert not any(p.is_alive() for p in workers if not p._closed)


def test_batches_do_not_depend_on_the_number_of_workers(
    in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

    seen = []
    for workers, first in ((0, 0), (1, 0), (3, 0), (2, 4)):
        monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
        monkeypatch.setattr(os, "cpu_count", lambda: 4)
        trainer = in_process.trainer(MEAN_TEACHER, "batches")
        trainer.initialize()
        trainer.current_epoch, trainer.iteration = divmod(first, 2)
        trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
        assert isinstance(trainer.dataloader_train, MultiThreadedAugmenter) == (workers > 0)
        batches = [next(trainer.dataloader_train) for _ in range(7 - first)]
        trainer.stop_workers()
        seen.append([None] * first + batches)
    for batches in seen[1:]:
        for batch, expected in zip(batches, seen[0], strict=True):
            assert batch is None or differences(dict(batch), dict(expected)) == []
    for one, other in zip(seen[0], seen[0][1:], strict=False):
        assert not torch.equal(one["data"], other["data"])
        assert not torch.equal(one["unlabeled"], other["unlabeled"])
