"""Time and disk that a benchmark takes, before it is run."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnunet_semisup.benchmark.design import STOCK_PLANS, Design, Layout, Run
from nnunet_semisup.benchmark.execute import Place
from nnunet_semisup.benchmark.progress import effort
from nnunet_semisup.benchmark.record import read_record
from nnunet_semisup.preparation.raw import num_channels
from nnunet_semisup.registry import find_method

_CHANNELS, _EDGE, _LEAST_SECONDS = 32, 32, 1.0


@dataclass(frozen=True)
class Estimate:
    """Hold what a benchmark takes.

    Attributes:
        seconds_per_step: of nnUNetTrainer.
        measured: whether that comes from finished runs; else from the operations of a step and the
            speed of a convolution on this machine, which leaves out what a step waits for.
        gib_per_budget: preprocessed cases, uncompressed, at most.
        parameters: of the plan's network.
    """

    seconds_per_step: float
    measured: bool
    gib_per_budget: dict[int, float]
    parameters: int

    def seconds(self, design: Design, run: Run) -> float:
        """Return the time of a run."""
        return self.seconds_per_step * effort(design, run.row)

    def gib(self, run: Run) -> float:
        """Return the disk that a run's two checkpoints take: weights, momentum, what is kept."""
        trained, kept = (float(share) for share in find_method(run.row.trainer).parameters)
        return 2 * 4 * self.parameters * (2 * trained + kept) / 2**30


def estimate(layout: Layout, design: Design, place: Place) -> Estimate:
    """Estimate a benchmark whose first budget is planned.

    Args:
        layout: of the benchmark.
        design: what is compared.
        place: where the runs compute.
    """
    folder = layout.preprocessed(design, design.budgets[0])
    plans = PlansManager(str(folder / f"{STOCK_PLANS}.json"))
    dataset_json = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    network = _network(plans, design, dataset_json)
    voxels = _voxels_per_case(folder, plans, design)
    channels = num_channels(dataset_json)
    others = len(design.pool) + len(design.unlabeled) + _images_unlabeled(layout, design)
    bytes_per_case = voxels * (4 * channels + 1)
    cases = others + len(design.evaluation)
    known = _measured(layout, design)
    operations = _operations(network, plans, design, channels)
    speed = _speed(place, design, len(plans_patch(plans, design)))
    return Estimate(
        seconds_per_step=known or operations / speed,
        measured=known is not None,
        gib_per_budget=dict.fromkeys(design.budgets, cases * bytes_per_case / 2**30),
        parameters=sum(p.numel() for p in network.parameters()),
    )


def plans_patch(plans: PlansManager, design: Design) -> list[int]:
    """Return the patch of the configuration."""
    return list(plans.get_configuration(design.configuration).patch_size)


def _network(plans: PlansManager, design: Design, dataset_json: dict[str, Any]) -> nn.Module:
    """Return the plan's network without memory for its weights."""
    heads = plans.get_label_manager(dataset_json).num_segmentation_heads
    configuration = plans.get_configuration(design.configuration)
    with torch.device("meta"):
        return nnUNetTrainer.build_network_architecture(
            plans, configuration, num_channels(dataset_json), heads, True
        )


def _operations(network: nn.Module, plans: PlansManager, design: Design, channels: int) -> float:
    """Return the floating-point operations of nnUNetTrainer's step."""
    batch = plans.get_configuration(design.configuration).batch_size
    image = torch.empty(batch, channels, *plans_patch(plans, design), device="meta")
    with FlopCounterMode(display=False) as counter:
        sum(output.sum() for output in network(image)).backward()
    return float(counter.get_total_flops())


def _speed(place: Place, design: Design, dims: int) -> float:
    """Return the operations a second of convolutions on the device, forward and backward.

    In the precision of the trainings: nnU-Net's is mixed on a GPU.
    """
    device = torch.device(place.device)
    mixed = device.type == "cuda" or (device.type == "cpu" and design.bfloat16)
    number = torch.float16 if device.type == "cuda" else torch.bfloat16
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims](_CHANNELS, _CHANNELS, 3, padding=1).to(device)
    image = torch.randn(2, _CHANNELS, *[_EDGE if dims == 3 else 8 * _EDGE] * dims, device=device)

    def step() -> float:
        started = time.perf_counter()
        with torch.autocast(device.type, number, enabled=mixed):
            total = conv(image).sum()
        total.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    before = torch.get_num_threads()
    if place.threads is not None and device.type == "cpu":
        torch.set_num_threads(place.threads)
    try:
        with FlopCounterMode(display=False) as counter:
            step()
        times = [step()]
        while sum(times) < _LEAST_SECONDS:
            times.append(step())
    finally:
        torch.set_num_threads(before)
    return float(counter.get_total_flops()) / statistics.median(times)


def _voxels_per_case(folder: Any, plans: PlansManager, design: Design) -> float:
    """Return the mean number of voxels of a preprocessed labeled case."""
    fingerprint = json.loads((folder / "dataset_fingerprint.json").read_text(encoding="utf-8"))
    spacing = np.array(plans.get_configuration(design.configuration).spacing)
    shapes = np.array(fingerprint["shapes_after_crop"], dtype=float)
    spacings = np.array(fingerprint["spacings"], dtype=float)
    axes = slice(shapes.shape[1] - len(spacing), None)
    resampled = shapes.copy()
    order = list(plans.transpose_forward)
    resampled = resampled[:, order]
    resampled[:, axes] *= spacings[:, order][:, axes] / spacing
    return float(resampled.prod(axis=1).mean())


def _images_unlabeled(layout: Layout, design: Design) -> int:
    raw = layout.budget(design.budgets[0]) / "raw" / design.dataset
    hidden = len(design.pool) + len(design.unlabeled) - design.budgets[0]
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    files = list((raw / "imagesUn").glob(f"*_0000{content['file_ending']}"))
    return len(files) - hidden


def _measured(layout: Layout, design: Design) -> float | None:
    """Return the median seconds of a step of nnUNetTrainer that finished runs took."""
    records = {run: read_record(layout, run) for run in design.runs()}
    found = [
        record.seconds / effort(design, run.row)
        for run, record in records.items()
        if record.status == "finished" and record.seconds > 0
    ]
    return statistics.median(found) if found else None
