"""One training, measured on its evaluation cases, that goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.benchmark.design import Design, Layout, Run
from nnunet_semisup.benchmark.machine import processor
from nnunet_semisup.benchmark.prepare import environment, last_lines
from nnunet_semisup.benchmark.record import Record, read_record, write_record
from nnunet_semisup.demo.stages import find_command
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.evaluate import evaluate_folders
from nnunet_semisup.evaluation.report import report_dict
from nnunet_semisup.preparation.layout import FINGERPRINT_FILE, SPLITS_FILE
from nnunet_semisup.processes import inheritable_lock, wait_for
from nnunet_semisup.training.interruption import Interruption

PACKAGES = ("nnunetv2", "torch", "nnunet-semisup", "batchgeneratorsv2", "numpy")
_SAVE_EVERY = 2


@dataclass(frozen=True)
class Place:
    """Say where a run computes.

    Attributes:
        device: as nnU-Net's ``-device``: ``cpu``, ``cuda``, ``mps``.
        gpu: number of the GPU, ``None`` without.
        threads: of torch on the CPU, ``None``: one a core.
        workers: processes that make patches, ``None``: nnU-Net's number.
    """

    device: str = "cuda"
    gpu: int | None = None
    threads: int | None = None
    workers: int | None = None


def check_places(places: Sequence[Place]) -> None:
    """Refuse devices that this machine does not have.

    Raises:
        UserError: which, and which there are.
    """
    import torch

    gpus = torch.cuda.device_count()
    there = {"cpu": True, "cuda": gpus > 0, "mps": torch.backends.mps.is_available()}
    if absent := [place.device for place in places if not there[place.device]]:
        possible = ", ".join(name for name, found in there.items() if found)
        raise UserError(f"-device {absent[0]}: PyTorch finds none here. Possible: {possible}.")
    pinned = [place for place in places if place.gpu is not None]
    if others := [place.device for place in pinned if place.device != "cuda"]:
        raise UserError(f"--gpus goes with -device cuda, not with {others[0]}.")
    if wrong := [str(place.gpu) for place in pinned if (place.gpu or 0) >= gpus]:
        raise UserError(f"--gpus {' '.join(wrong)}: this machine has 0 to {gpus - 1}.")


def command_of(design: Design, run: Run, place: Place) -> list[str]:
    """Return the stock command of a run."""
    command = ["nnUNetv2_train", str(design.dataset_id), design.configuration, "0"]
    return [*command, "-tr", run.row.trainer, "-p", run.row.plans, "-device", place.device]


def settings_of(design: Design, run: Run, place: Place) -> str:
    """Return ``nnUNet_semisup_set`` of a run."""
    epochs = design.steps_of(run.row) // design.steps_per_epoch
    parts = {
        "num_epochs": epochs,
        "num_iterations_per_epoch": design.steps_per_epoch,
        "num_val_iterations_per_epoch": max(1, min(50, design.steps_per_epoch // 5)),
        "save_every": _SAVE_EVERY,
        "seed": run.seed,
    }
    if place.device == "cpu":
        parts |= {"cpu_bfloat16": design.bfloat16}
        parts |= {"cpu_threads": place.threads} if place.threads else {}
    own = [run.row.settings] if run.row.settings else []
    return ",".join([*(f"{name}={value}" for name, value in parts.items()), *own])


def run_one(layout: Layout, design: Design, run: Run, place: Place, stop: Interruption) -> Record:
    """Train, validate and measure a run, from where it stands, and return what is known of it.

    A training that was left alone, because the command that started it was killed, is waited for.
    After an interruption a run stays ``running`` and goes on at the next call.
    """
    folder = layout.run(run)
    folder.mkdir(parents=True, exist_ok=True)
    with inheritable_lock(folder, stop) as lock:
        before = read_record(layout, run)
        if lock is None or before.status == "finished":
            return before
        record = _begin(layout, design, run, place, before)
        write_record(layout, run, record)
        started = time.monotonic()

        def timed() -> Record:
            return replace(record, seconds=before.seconds + time.monotonic() - started)

        note = lambda: write_record(layout, run, timed())  # noqa: E731
        code, peak = _train(layout, design, run, place, record, stop, lock, note)
        record = replace(timed(), peak_mib=max(before.peak_mib, peak))
        if code == 0:
            record = _measure(layout, design, run, record)
        elif stop.signal_number is None:
            fault = f"code {code}; {folder / 'log.txt'} ends with\n{last_lines(folder / 'log.txt')}"
            record = replace(record, status="failed", fault=fault)
        write_record(layout, run, record)
        return record


def _begin(layout: Layout, design: Design, run: Run, place: Place, before: Record) -> Record:
    command = command_of(design, run, place)
    given = {"nnUNet_semisup_set": settings_of(design, run, place)}
    return Record(
        status="running",
        attempts=before.attempts + 1,
        seconds=before.seconds,
        peak_mib=before.peak_mib,
        commands=(shlex.join(command),),
        environment=given,
        versions={name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        hashes=_hashes(layout.preprocessed(design, run.budget), run.row.plans),
        machine=_machine(place),
    )


def _train(
    layout: Layout,
    design: Design,
    run: Run,
    place: Place,
    record: Record,
    stop: Interruption,
    lock: int,
    note: Callable[[], None],
) -> tuple[int, float]:
    """Run the training; return its exit code and its peak memory in MiB.

    ``note`` is called each minute, so that the time of a command that is killed counts, too.

    The process inherits the lock, so that it holds while the training lives, whatever becomes of
    this process.
    """
    folder, fold = layout.run(run), layout.fold(design, run)
    done = fold / "checkpoint_final.pth", fold / "validation" / "summary.json"
    if all(file.is_file() for file in done):
        return 0, 0.0
    env = environment(layout, run.budget, folder / "results") | record.environment
    if place.gpu is not None:
        env["CUDA_VISIBLE_DEVICES"] = visible_gpu(place.gpu)
    if place.workers is not None:
        env["nnUNet_n_proc_DA"] = str(place.workers)
    if place.threads is not None:
        env["OMP_NUM_THREADS"] = str(place.threads)
    command = shlex.split(record.commands[0])
    if list(fold.glob("checkpoint_*.pth")):
        command.append("--c")
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [find_command(command[0]), *command[1:]],
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
        )
        return wait_for(process, stop, note)


def visible_gpu(number: int) -> str:
    """Return ``CUDA_VISIBLE_DEVICES`` of one of the GPUs that this process sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[number].strip() if visible else str(number)


def _measure(layout: Layout, design: Design, run: Run, record: Record) -> Record:
    """Measure the predictions of the final weights on the evaluation cases."""
    preprocessed = layout.preprocessed(design, run.budget)
    try:
        evaluation = evaluate_folders(
            preprocessed / "gt_segmentations",
            layout.fold(design, run) / "validation",
            dataset_json=preprocessed / "dataset.json",
            allow_missing=True,
        )
    except ValueError as error:
        return replace(record, status="failed", fault=str(error))
    measured = {case.name for case in evaluation.cases}
    if missing := sorted(set(design.evaluation) - measured):
        return replace(record, status="failed", fault=f"not predicted: {', '.join(missing)}")
    content = report_dict(evaluation)
    with atomic_path(layout.evaluation(run)) as temporary:
        temporary.write_text(json.dumps(content, allow_nan=False, indent=1), encoding="utf-8")
    return replace(record, status="finished")


def _hashes(preprocessed: Path, plans: str) -> dict[str, str]:
    names = (SPLITS_FILE, FINGERPRINT_FILE, f"{plans}.json")
    return {
        name: hashlib.sha256((preprocessed / name).read_bytes()).hexdigest()
        for name in names
        if (preprocessed / name).is_file()
    }


def _machine(place: Place) -> str:
    if place.device == "cuda":
        import torch

        return torch.cuda.get_device_name(0 if place.gpu is None else place.gpu)
    return f"{processor()}, {place.threads or os.cpu_count()} thread(s)"
