"""Measure a training step of each method against nnUNetTrainer's at the same labeled batch.

    python benchmarks/step_cost.py [--patch 32 48 64] [--features 16 32 64 128] [--steps 5]
    python benchmarks/step_cost.py --device cuda --compile on
    python benchmarks/step_cost.py --trainers nnUNetTrainerUAMT --patch 64 64

All trainers of the registry that train in the patch's dimensions, or those named, take turns, step
by step, on the same random batch, late enough in training for every loss term to have its full
weight; medians are shown, on the CPU of processor time. Peak memory is measured in a process of its
own for each trainer: what PyTorch allocated on the GPU, or how much the process grew on the CPU.
The floor is what the passes of the registry cost by themselves: stock's operations for each that is
propagated back, a third for one without gradient, decoders by their share. Plan and data are made
up in a temporary folder; batches are random, so data loading is not part of a step.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import trange

from nnunet_semisup.data.labeled_views import MAP, WEAK
from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.registry import METHODS, Method, find_method
from nnunet_semisup.training.scan_labels import ScanLabelTrainer
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer
from nnunet_semisup.training.settings import VARIABLE

stock_module = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")

STOCK = "nnUNetTrainer"
DATASET, PLANS, CONFIGURATION, FOLD = "Dataset900_StepCost", "nnUNetPlans", "3d_fullres", 0
DATASET_JSON = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "foreground": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
DEFAULTS = {
    "cpu": ([32, 48, 64], [16, 32, 64, 128]),
    "cuda": ([128, 128, 128], [32, 64, 128, 256, 320, 320]),
}


def make_plans(patch: list[int], features: list[int], batch: int) -> dict[str, Any]:
    """Return nnU-Net plans of a PlainConvUNet that halves every axis from stage to stage."""
    dims, stages = len(patch), len(features)
    conv, norm = f"torch.nn.modules.conv.Conv{dims}d", f"torch.nn.InstanceNorm{dims}d"
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": features,
            "conv_op": conv,
            "kernel_sizes": [[3] * dims] * stages,
            "strides": [[1] * dims] + [[2] * dims] * (stages - 1),
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": norm,
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
    }
    configuration = {
        "data_identifier": f"{PLANS}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": batch,
        "patch_size": patch,
        "spacing": [1.0] * dims,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "architecture": architecture,
        "batch_dice": False,
    }
    return {
        "dataset_name": DATASET,
        "plans_name": PLANS,
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "transpose_forward": list(range(dims)),
        "transpose_backward": list(range(dims)),
        "configurations": {CONFIGURATION: configuration},
        "continue_training": False,
    }


@contextmanager
def data_folders() -> Iterator[None]:
    """Make nnU-Net's folders with cases whose images and labels are never read."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "preprocessed", DATASET, f"{PLANS}_{CONFIGURATION}")
        folder.mkdir(parents=True)
        (folder.parent / "gt_segmentations").mkdir()
        (folder.parent / "gt_segmentations" / "validation.nii.gz").touch()
        for case in ("labeled", "validation", "unlabeled"):
            (folder / f"{case}.b2nd").touch()
            (folder / f"{case}_seg.b2nd").touch()
            places = pickle.dumps({"class_locations": {1: [[0, 0, 0, 0]]}})
            (folder / f"{case}.pkl").write_bytes(places)
        splits = [{"train": ["labeled"], "val": ["validation"], "unlabeled": ["unlabeled"]}]
        (folder.parent / "splits_final.json").write_text(json.dumps(splits))
        folders = ("raw", "preprocessed", "results")
        names = {f"nnUNet_{name}": str(Path(root, name)) for name in folders}
        with mock.patch.dict(os.environ, names):
            yield


def trainer_class(name: str) -> Any:
    """Return the stock trainer's class or one of the registry's."""
    if name == STOCK:
        return stock_module.nnUNetTrainer
    return getattr(import_module(f"nnunet_semisup.trainers.{find_method(name).module}"), name)


def build(row: str, options: argparse.Namespace) -> Any:
    """Return an initialized, silent trainer at 60 % of its training; texts are random."""
    name, _, settings = row.partition(":")
    with_text = name != STOCK and find_method(name).family == "text"
    given = ["seed=0", *(["text_model=random"] if with_text else []), *settings.split(",")]
    os.environ[VARIABLE] = ",".join(filter(None, given))
    plans = make_plans(options.patch, options.features, options.batch)
    arguments = plans, CONFIGURATION, FOLD, DATASET_JSON, torch.device(options.device)
    with open(os.devnull, "w", encoding="utf-8") as silence, redirect_stdout(silence):
        trainer = trainer_class(name)(*arguments)
        trainer.initialize()
        trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    trainer.current_epoch = int(0.6 * trainer.num_epochs)
    trainer.network.train()
    return trainer


def make_batch(trainer: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Make images, half of their voxels foreground, and targets: the same for each trainer."""
    shape = (options.batch, 1, *options.patch)
    scales = trainer._get_deep_supervision_scales()
    sizes = [[round(n * s) for n, s in zip(options.patch, scale, strict=True)] for scale in scales]
    random = torch.Generator().manual_seed(0)
    image, other = (torch.randn(shape, generator=random) for _ in range(2))
    targets = [torch.rand(options.batch, 1, *s, generator=random).round() for s in sizes]
    valid = torch.ones(shape, dtype=torch.bool)
    batch: dict[str, Any] = {"data": image, "target": targets}
    batch |= {"unlabeled": other, "unlabeled_valid": valid}
    if isinstance(trainer, ScanLabelTrainer):
        batch["unlabeled_label"] = targets[0]
    if getattr(trainer, "labeled_weak", False):
        batch[WEAK] = image
    for name, make in getattr(trainer, "labeled_maps", {}).items():
        made = [make(target, trainer.label_manager) for target in targets[0]]
        batch[MAP + name] = torch.stack(made)
    return batch


def step(trainer: Any, batch: dict[str, Any]) -> float:
    """Do one training step; return its time in milliseconds."""
    if isinstance(trainer, SemiSupervisedTrainer):
        trainer.iteration += 1
    synchronize(trainer.device)
    start = now(trainer.device)
    trainer.train_step(batch)
    synchronize(trainer.device)
    return now(trainer.device) - start


def period(trainer: Any) -> int:
    """Return the steps over which to average; the stock trainer's are all alike."""
    return int(getattr(trainer, "period", 1))


def now(device: torch.device) -> float:
    """Return milliseconds: on the CPU processor time (less disturbed by others), else time."""
    return 1e3 * (time.process_time() if device.type == "cpu" else time.perf_counter())


def synchronize(device: torch.device) -> None:
    """Wait for the GPU, if it is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def precision(options: argparse.Namespace) -> Iterator[None]:
    """Switch mixed precision off where ``--amp off``; on the CPU there is none anyway."""
    if options.amp == "on":
        yield
        return
    off = nullcontext()
    with (
        mock.patch.object(stock_module, "autocast", return_value=off),
        mock.patch.object(SemiSupervisedTrainer, "_autocast", return_value=off),
    ):
        yield


def time_in_turns(names: list[str], options: argparse.Namespace) -> dict[str, float]:
    """Return the milliseconds a step of each trainer, all of them taking turns.

    The first one's are the median; the others' are that times the median ratio within a turn.
    """
    trainers = {name: build(name, options) for name in names}
    batches = {name: make_batch(trainer, options) for name, trainer in trainers.items()}
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in trange(options.warmup + options.steps, desc="turns", file=sys.stderr):
        for name, trainer in trainers.items():
            elapsed = [step(trainer, batches[name]) for _ in range(period(trainer))]
            if turn >= options.warmup:
                times[name].append(statistics.mean(elapsed))
    first = next(iter(times))
    reference = statistics.median(times[first])
    return {
        name: reference
        * statistics.median(own / other for own, other in zip(values, times[first], strict=True))
        for name, values in times.items()
    }


@dataclass(frozen=True)
class Counted:
    """Hold the operations of a step, those of its decoder's passes, and the parameters."""

    operations: int
    of_decoder: int
    trained: int
    kept: int


def count(name: str, options: argparse.Namespace) -> Counted:
    """Count the operations of a step's convolutions and matrix products, and the parameters."""
    with mock.patch.dict(os.environ, nnUNet_compile="false"):
        trainer = build(name, options)
    batch = make_batch(trainer, options)
    with FlopCounterMode(display=False) as counter:
        for _ in range(period(trainer)):
            step(trainer, batch)
    decoders = (c for module, c in counter.get_flop_counts().items() if module.endswith(".decoder"))
    of_decoder = sum(sum(counts.values()) for counts in decoders)
    optimized = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    teacher = getattr(trainer, "teacher", None)
    kept = sum(p.numel() for p in teacher.module.parameters()) if teacher is not None else 0
    snapshots = getattr(trainer, "snapshots", None)
    kept += snapshots.parameters if snapshots is not None else 0
    trained = sum(p.numel() for p in optimized if p.requires_grad)
    operations = (counter.get_total_flops(), of_decoder)
    return Counted(*(number // period(trainer) for number in operations), trained, kept)


def floor(method: Method, decoder_share: float) -> float:
    """Return the operations of the registry's passes alone, the stock trainer's step being 1."""
    encoder = method.forwards
    decoder = method.decoder_forwards or encoder
    cost = [back + alone / 3 for back, alone in (encoder, decoder)]
    return cost[0] * (1 - decoder_share) + cost[1] * decoder_share


def peak_memory(name: str, options: argparse.Namespace) -> float:
    """Return the MiB that a trainer takes at most in its steps, beyond what the libraries take."""
    before = most_memory()
    trainer = build(name, options)
    batch = make_batch(trainer, options)
    for _ in range(max(2, period(trainer))):
        step(trainer, batch)
    if options.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return most_memory() - before


def most_memory() -> float:
    """Return the MiB that this process has taken at most; Linux's getrusage counts the parent's."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def peak_memory_elsewhere(name: str) -> float:
    """Return :func:`peak_memory` as a new process with this command's options measures it."""
    command = [sys.executable, *sys.argv, "--memory-of", name]
    return float(subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout)


def parse_options() -> argparse.Namespace:
    """Parse the command line, with defaults that depend on the device."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    available = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=available)
    parser.add_argument("--patch", type=int, nargs="+", help="voxels; two numbers for 2D")
    parser.add_argument("--features", type=int, nargs="+", help="channels of each stage")
    parser.add_argument("--batch", type=int, default=2, help="labeled patches, and unlabeled ones")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each trainer")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--compile", choices=("on", "off"), default="off", help="on the GPU only")
    parser.add_argument("--amp", choices=("on", "off"), default="on", help="on the GPU only")
    parser.add_argument(
        "--trainers",
        nargs="+",
        metavar="TRAINER[:NAME=VALUE,...]",
        help="rows beside nnUNetTrainer's, with hyper-parameters; default: all trainers",
    )
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    patch, features = DEFAULTS[options.device]
    options.patch = options.patch or patch
    options.features = options.features or features
    smallest = 2 ** (len(options.features) - 1)
    if any(n % smallest for n in options.patch):
        parser.error(f"--patch must be divisible by {smallest} for {len(options.features)} stages")
    return options


def print_tables(options: argparse.Namespace) -> None:
    """Measure and print everything."""
    fitting = [m.trainer for m in METHODS if len(options.patch) in m.dims]
    names = [STOCK, *(options.trainers or fitting)]
    counted = {name: count(name, options) for name in names}
    stock = counted[STOCK]
    share = stock.of_decoder / stock.operations
    floors = {n: floor(find_method(n.partition(":")[0]), share) for n in names[1:]} | {STOCK: 1.0}
    memory = {name: peak_memory_elsewhere(name) for name in names}
    times = time_in_turns(names, options)
    details = f"torch.compile {options.compile}, mixed precision {options.amp}"
    print(
        f"patch {options.patch}, features {options.features}, {options.batch} labeled and "
        f"{options.batch} unlabeled patches, {options.steps} steps in turns, "
        + (f"{torch.get_num_threads()} CPU thread(s)" if options.device == "cpu" else details)
    )
    rows = [
        (
            name,
            f"{times[name]:.0f}",
            f"{times[name] / times[STOCK]:.2f}",
            f"{counted[name].operations / stock.operations:.2f}",
            f"{counted[name].operations / stock.operations / floors[name]:.2f}",
            f"{memory[name]:.0f}",
            f"{memory[name] / memory[STOCK]:.2f}",
            f"{counted[name].trained / stock.trained:.2f}",
            f"{counted[name].kept / stock.trained:.2f}",
        )
        for name in names
    ]
    times_of = ("step (ms)", "ratio", "operations, ratio", "over floor")
    header = ("trainer", *times_of, "peak (MiB)", "ratio", "trained", "kept")
    print(format_table(header, rows))


def main() -> None:
    """Run the benchmark, or in a child process measure the memory of one trainer."""
    options = parse_options()
    torch.manual_seed(0)
    os.environ.update(nnUNet_compile="true" if options.compile == "on" else "false")
    with data_folders(), precision(options):
        if options.memory_of:
            print(peak_memory(options.memory_of, options))
        else:
            print_tables(options)


if __name__ == "__main__":
    main()
