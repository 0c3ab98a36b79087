"""Measure a training step of each method against nnUNetTrainer's at the same labeled batch.

    python benchmarks/step_cost.py [--patch 32 48 64] [--features 16 32 64 128] [--steps 5]
    python benchmarks/step_cost.py --device cuda --compile on

All trainers of the registry take turns, step by step, on the same random batch, late enough in
training for every loss term to have its full weight; medians are shown, on the CPU of processor
time. Peak memory is measured in a process of its own for each trainer: what PyTorch allocated on
the GPU, or how much the process grew on the CPU. Then the step of VQ-Seg is taken apart. Plan and
data are made up in a temporary folder; batches are random, so data loading is not part of a step.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import trange

from nnunet_semisup.data.labeled_views import WEAK
from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.networks import quantizer as quantizer_module
from nnunet_semisup.networks.vq_unet import ReconstructionDecoder
from nnunet_semisup.registry import METHODS, find_method
from nnunet_semisup.trainers import pseudo_label as pseudo_label_module
from nnunet_semisup.trainers import vqseg as vqseg_module
from nnunet_semisup.training import batches as batches_module
from nnunet_semisup.training import semi_supervised as semi_supervised_module
from nnunet_semisup.training.ema import EMATeacher
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer
from nnunet_semisup.training.settings import VARIABLE

stock_module = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")

STOCK, TAKEN_APART = "nnUNetTrainer", "nnUNetTrainerVQSeg"
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


def build(name: str, options: argparse.Namespace) -> Any:
    """Return an initialized, silent trainer at 60 % of its training; texts are random."""
    with_text = name != STOCK and find_method(name).family == "text"
    os.environ[VARIABLE] = "seed=0,text_model=random" if with_text else "seed=0"
    plans = make_plans(options.patch, options.features, options.batch)
    given = plans, CONFIGURATION, FOLD, DATASET_JSON, torch.device(options.device)
    with open(os.devnull, "w", encoding="utf-8") as silence, redirect_stdout(silence):
        trainer = trainer_class(name)(*given)
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
    batch = {"data": image, "target": targets, "unlabeled": other, "unlabeled_valid": valid}
    return {**batch, WEAK: image} if getattr(trainer, "labeled_weak", False) else batch


def step(trainer: Any, batch: dict[str, Any]) -> float:
    """Do one training step; return its time in milliseconds."""
    if isinstance(trainer, SemiSupervisedTrainer):
        trainer.iteration += 1
    synchronize(trainer.device)
    start = now(trainer.device)
    trainer.train_step(batch)
    synchronize(trainer.device)
    return now(trainer.device) - start


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
    """Return the median milliseconds a step of each trainer, all of them taking turns."""
    trainers = {name: build(name, options) for name in names}
    batches = {name: make_batch(trainer, options) for name, trainer in trainers.items()}
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in trange(options.warmup + options.steps, desc="turns", file=sys.stderr):
        for name, trainer in trainers.items():
            elapsed = step(trainer, batches[name])
            if turn >= options.warmup:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def operations(name: str, options: argparse.Namespace) -> int:
    """Count the floating-point operations of a step's convolutions and matrix products."""
    with mock.patch.dict(os.environ, nnUNet_compile="false"):
        trainer = build(name, options)
    batch = make_batch(trainer, options)
    with FlopCounterMode(display=False) as counter:
        step(trainer, batch)
    return counter.get_total_flops()


def peak_memory(name: str, options: argparse.Namespace) -> float:
    """Return the MiB that a trainer takes at most in two steps, beyond what the libraries take."""
    before = most_memory()
    trainer = build(name, options)
    batch = make_batch(trainer, options)
    for _ in range(2):
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


class Stopwatch:
    """Sum milliseconds by part; of nested parts only the innermost runs."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.totals: defaultdict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    def _switch(self) -> None:
        synchronize(self.device)
        time_now = now(self.device)
        if self._running:
            self.totals[self._running[-1]] += time_now - self._since
        self._since = time_now

    def timed(
        self, function: Callable[..., Any], part: str | Callable[..., str]
    ) -> Callable[..., Any]:
        """Return ``function`` counted to ``part``, which may depend on the arguments."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self._running.append(part if isinstance(part, str) else part(*args))
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._running.pop()

        return wrapped


def take_apart(options: argparse.Namespace) -> dict[str, float]:
    """Return the milliseconds of each part of a step of VQ-Seg, without torch.compile."""
    with mock.patch.dict(os.environ, nnUNet_compile="false"):
        trainer = build(TAKEN_APART, options)
    watch = Stopwatch(trainer.device)
    passes = ["labeled pass"]

    def of_pass(_: Any, image: Any, name: str, *rest: Any) -> str:
        passes.append("labeled pass" if name == "labeled" else "student pass")
        return passes[-1]

    parts: list[tuple[Any, str, str | Callable[..., str]]] = [
        (SemiSupervisedTrainer, "student_pass", of_pass),
        (torch.Tensor, "backward", lambda *_: passes[-1]),
        (trainer, "supervised_loss", "labeled pass"),
        (trainer, "pseudo_label_loss", "student pass"),
        (trainer, "teacher_logits", "teacher pass"),
        (vqseg_module, "usage_entropy", "usage loss (forward)"),
        (semi_supervised_module, "clip_and_step", "optimizer"),
        (EMATeacher, "update_parameters", "EMA"),
        (ReconstructionDecoder, "forward", "reconstruction (forward)"),
        (quantizer_module.VectorQuantizer, "forward", "quantizer (forward, teacher's too)"),
        (quantizer_module, "perturb", "QPM"),
        (batches_module, "strong_view", "strong view and mixing"),
        (pseudo_label_module, "sample_boxes", "strong view and mixing"),
        (pseudo_label_module, "exchange_with_previous", "strong view and mixing"),
    ]
    batch = make_batch(trainer, options)
    for _ in range(options.warmup):
        step(trainer, batch)
    with ExitStack() as patches:
        for owner, attribute, part in parts:
            timed = watch.timed(getattr(owner, attribute), part)
            patches.enter_context(mock.patch.object(owner, attribute, timed))
        whole = watch.timed(trainer.train_step, "rest")
        for _ in range(options.steps):
            trainer.iteration += 1
            whole(batch)
    result = {part: total / options.steps for part, total in watch.totals.items()}
    watch.timed(lambda: [q.calibrate(32.0) for q in trainer.student.quantizers], "c")()
    result["QPM calibration, per step"] = watch.totals["c"] / trainer.calibrate_every
    return result


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
    names = [STOCK, *(m.trainer for m in METHODS)]
    counted = {name: operations(name, options) for name in names}
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
            f"{counted[name] / counted[STOCK]:.2f}",
            f"{memory[name]:.0f}",
            f"{memory[name] / memory[STOCK]:.2f}",
        )
        for name in names
    ]
    header = ("trainer", "step (ms)", "ratio", "operations, ratio", "peak (MiB)", "ratio")
    print(format_table(header, rows), end="\n\n")
    parts = sorted(take_apart(options).items(), key=lambda item: -item[1])
    total = sum(ms for _, ms in parts)
    rows = [(part, f"{ms:.1f}", f"{ms / total:.1%}") for part, ms in parts]
    print(f"{TAKEN_APART}, one step taken apart (passes with their backward):")
    print(format_table(("part", "ms", "share"), rows))


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
