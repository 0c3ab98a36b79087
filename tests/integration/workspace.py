"""Runs nnU-Net's and this package's commands as processes, on tiny data sets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import validation_in_threads
from tests.integration.preloaded import run_preloaded

LABELS = {"background": 0, "first": 1, "second": 2}
VOLUMES, IMAGES = "Dataset901_Volumes", "Dataset902_Images"
DATASETS = {"3d_fullres": VOLUMES, "2d": IMAGES}
PATCH = {"3d_fullres": [16, 16, 16], "2d": [32, 32]}
FEATURES = [4, 8, 16, 16]
SCRIPTS = Path(sys.executable).parent
TIMEOUT = 600.0
"""Seconds after which a command counts as hanging; the machine may be busy."""

SHORT = {"num_epochs": 2, "num_iterations_per_epoch": 3, "num_val_iterations_per_epoch": 1}


def hyperparameters(**values: Any) -> dict[str, str]:
    """The variable that sets ``values``, on top of a short seeded run on one thread."""
    merged = {**SHORT, "seed": 7, "cpu_threads": 1, **values}
    return {"nnUNet_semisup_set": ",".join(f"{k}={v}" for k, v in merged.items())}


def base_environment(root: Path) -> dict[str, str]:
    """This process's environment with nnU-Net's folders below ``root`` and few processes."""
    ours = ("nnUNet_", "NNUNET_SEMISUP_")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return {
        **inherited,
        "nnUNet_raw": str(root / "raw"),
        "nnUNet_preprocessed": str(root / "preprocessed"),
        "nnUNet_results": str(root / "results"),
        "nnUNet_n_proc_DA": "0",
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


@dataclass(frozen=True)
class Run:
    """A finished command."""

    command: tuple[str, ...]
    code: int
    output: str

    def succeeded(self) -> Run:
        """Itself; fails the test with the output if the command failed."""
        assert self.code == 0, f"{' '.join(self.command)} ended with {self.code}:\n{self.output}"
        return self


@dataclass(frozen=True)
class Workspace:
    """nnU-Net's folders and the environment that points to them.

    Attributes:
        environment: what commands are started with.
        preloaded: whether ``run`` forks commands off a process with the libraries imported, which
            saves seconds each. They are then the commands still, but not started as users do.
    """

    environment: Mapping[str, str]
    preloaded: bool = False

    @property
    def raw(self) -> Path:
        """``nnUNet_raw``."""
        return Path(self.environment["nnUNet_raw"])

    @property
    def preprocessed(self) -> Path:
        """``nnUNet_preprocessed``."""
        return Path(self.environment["nnUNet_preprocessed"])

    @property
    def results(self) -> Path:
        """``nnUNet_results``."""
        return Path(self.environment["nnUNet_results"])

    def where(self, **variables: str | Path) -> Workspace:
        """The same with other values of environment variables."""
        new = {name: str(value) for name, value in variables.items()}
        return replace(self, environment={**self.environment, **new})

    def run(self, command: str, *arguments: str | Path) -> Run:
        """Runs one of the environment's console scripts to its end."""
        line = (str(SCRIPTS / command), *(str(a) for a in arguments))
        if not self.preloaded:
            return self.call(*line)
        with tempfile.NamedTemporaryFile("r", encoding="utf-8", errors="replace") as output:
            code = run_preloaded(line, self.environment, output.name, TIMEOUT)
            return Run(line, code, output.read())

    def call(self, *arguments: str | Path) -> Run:
        """Runs any program to its end, both of its output streams in one."""
        line = tuple(str(a) for a in arguments)
        done = subprocess.run(
            line,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
        return Run(line, done.returncode, done.stdout)

    def train(
        self, trainer: str, configuration: str = "3d_fullres", fold: int = 0, *more: str
    ) -> Run:
        """``nnUNetv2_train`` on the CPU."""
        return self.run("nnUNetv2_train", *train_arguments(trainer, configuration, fold), *more)

    def predict(
        self, trainer: str, configuration: str, output: Path, fold: int = 0, *more: str
    ) -> Run:
        """``nnUNetv2_predict`` on the test images, without background processes."""
        arguments = self.predict_arguments(trainer, configuration, output, fold)
        return self.run("nnUNetv2_predict", *arguments, *more)

    def predict_arguments(
        self, trainer: str, configuration: str, output: Path, fold: int = 0
    ) -> tuple[str, ...]:
        """Return arguments of ``nnUNetv2_predict``."""
        dataset = DATASETS[configuration]
        return (
            *("-i", str(self.raw / dataset / "imagesTs"), "-o", str(output)),
            *("-d", dataset, "-c", configuration, "-f", str(fold), "-tr", trainer),
            *("-device", "cpu", "-npp", "0", "-nps", "0", "--disable_tta"),
        )

    def model_folder(self, trainer: str, configuration: str = "3d_fullres") -> Path:
        """Folder of a trained model."""
        name = f"{trainer}__nnUNetPlans__{configuration}"
        return self.results / DATASETS[configuration] / name

    def fold_folder(self, trainer: str, configuration: str = "3d_fullres", fold: int = 0) -> Path:
        """Folder of one fold of a trained model."""
        return self.model_folder(trainer, configuration) / f"fold_{fold}"

    @contextmanager
    def start(self, command: str, *arguments: str, log: Path) -> Iterator[Running]:
        """A console script in a process group of its own, which is killed at the end."""
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [str(SCRIPTS / command), *arguments],
                env=dict(self.environment),
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(process, log)
        try:
            yield running
        finally:
            if running.group_is_alive():
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass(frozen=True)
class Running:
    """A command that runs."""

    process: subprocess.Popen
    log: Path

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str) -> None:
        """Returns when the output contains ``text``."""
        wait_until(lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output, f"{text!r} never came:\n{self.output}"

    def wait(self) -> int:
        """The exit code, once the command has ended; negative for a signal."""
        return self.process.wait(TIMEOUT)

    def group_is_alive(self) -> bool:
        """Whether the command or any process that it started is still there."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


def wait_until(condition: Callable[[], bool], seconds: float = TIMEOUT) -> bool:
    """Whether ``condition`` became true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def train_arguments(
    trainer: str, configuration: str = "3d_fullres", fold: int = 0
) -> tuple[str, ...]:
    """Arguments of ``nnUNetv2_train``."""
    return (DATASETS[configuration], configuration, str(fold), "-tr", trainer, "-device", "cpu")


def train_in_process(workspace: Workspace, trainer: str, configuration: str) -> None:
    """Do in this process what ``nnUNetv2_train`` does: train, then validate."""
    from nnunetv2.run.run_training import get_trainer_from_args

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, validation_in_threads():
        for name, value in workspace.environment.items():
            if name.startswith("nnUNet_"):
                patch.setenv(name, value)
        arguments = train_arguments(trainer, configuration)[:2]
        made = get_trainer_from_args(*arguments, 0, trainer, device=torch.device("cpu"))
        try:
            made.run_training()
            made.perform_actual_validation()
        finally:
            torch.set_num_threads(threads)


def shrink_plan(plans_file: Path, configuration: str) -> None:
    """Makes the network of a plan tiny; what was preprocessed under the plan stays valid."""
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    edited = plans["configurations"][configuration]
    edited["patch_size"] = PATCH[configuration]
    edited["batch_size"] = 2
    architecture = edited["architecture"]["arch_kwargs"]
    stages = len(FEATURES)
    architecture["n_stages"] = stages
    architecture["features_per_stage"] = FEATURES[:stages]
    for name in ("kernel_sizes", "strides", "n_conv_per_stage"):
        planned = architecture[name]
        architecture[name] = [*planned, *planned[-1:] * stages][:stages]
    architecture["n_conv_per_stage_decoder"] = [1] * (stages - 1)
    architecture["n_conv_per_stage"] = [1] * stages
    plans_file.write_text(json.dumps(plans, indent=4), encoding="utf-8")
