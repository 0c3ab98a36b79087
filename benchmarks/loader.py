"""Measure the workers' cost of a batch: both streams against nnU-Net's own loader of one.

    OMP_NUM_THREADS=1 python benchmarks/loader.py --patch 128 128 128 [--batches 4] [--turns 5]
    OMP_NUM_THREADS=1 python benchmarks/loader.py --patch 32 48 64 --batches 40

Each side is a process of its own that makes batches as a worker does and puts them on a queue, as
nnU-Net's workers do; sides take turns. The labeled patches and what is drawn for them are the same
on all sides. Ratios are those of the sums over all turns, with the least and the greatest one of a
turn. Cases are made up in a temporary folder. What ``augment_on_device`` moves from the workers to
the device is measured on this process's CPU, one thread.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import step_cost
import torch
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from rows import Row
from scipy.ndimage import zoom
from tqdm import trange

from nnunet_semisup.data.two_stream import LABELED, NumberedLoader, seeded
from nnunet_semisup.evaluation.tables import format_table

ON_DEVICE = "augment_on_device=True"
SIDES = {
    "nnU-Net, labeled stream": step_cost.STOCK,
    "both streams": "nnUNetTrainerPseudoLabel",
    "both streams, weak labeled view": "nnUNetTrainerBCP",
    f"both streams, {ON_DEVICE}": f"nnUNetTrainerPseudoLabel:{ON_DEVICE}",
}
FIRST = next(iter(SIDES))
LIMITS = {"both streams": 1.15, f"both streams, {ON_DEVICE}": 0.5}
ABOUT = """
What the workers' processes spend on a batch of 2 + 2 patches, against nnU-Net's own loader and
transforms for the 2 labeled ones alone, in turns; the labeled patches and what is drawn for them
are the same on all sides. Cases are made up, half as large again as a patch in each axis. What
`augment_on_device` moves to the device is in [benchmarks.md](benchmarks.md#loading).
"""


def make_case(folder: Path, name: str, shape: list[int], patch: list[int], seed: int) -> None:
    """Write a preprocessed case: a smooth image with noise, blobs of three classes, nothing else.

    Args:
        folder: of the preprocessed cases.
        name: of the case.
        shape: voxels.
        patch: of the plans, for the blocks in which the file is stored.
        seed: of the case.
    """
    random = np.random.default_rng(seed)
    coarse = random.normal(size=[max(2, n // 16) for n in shape])
    smooth = zoom(coarse, [n / c for n, c in zip(shape, coarse.shape, strict=True)], order=1)
    image = (smooth + 0.2 * random.normal(size=shape)).astype(np.float32)[None]
    label = np.digitize(smooth, [0.5, 1.0, 1.5]).astype(np.int8)[None]
    locations = {
        k: np.argwhere(label == k)[:: max(1, (label == k).sum() // 10000)] for k in (1, 2, 3)
    }
    blocks, chunks = comp_blosc2_params(image.shape, tuple(patch), 4)
    blocks_seg, chunks_seg = comp_blosc2_params(image.shape, tuple(patch), 1)
    nnUNetDatasetBlosc2.save_case(
        *(image, label, {"class_locations": locations}, str(folder / name)),
        *(chunks, blocks, chunks_seg, blocks_seg),
    )


@contextmanager
def cases(patch: list[int]) -> Iterator[None]:
    """Make nnU-Net's folders with two labeled, one validation and two unlabeled cases."""
    with step_cost.data_folders():
        preprocessed = os.environ["nnUNet_preprocessed"]  # noqa: SIM112
        folder = Path(preprocessed, step_cost.DATASET)
        stored = folder / f"{step_cost.PLANS}_{step_cost.CONFIGURATION}"
        for path in stored.iterdir():
            path.unlink()
        names = ["labeled", "labeled2", "validation", "unlabeled", "unlabeled2"]
        for seed, name in enumerate(names):
            make_case(stored, name, [round(1.5 * n) for n in patch], patch, seed)
        splits = [{"train": names[:2], "val": names[2:3], "unlabeled": names[3:]}]
        (folder / "splits_final.json").write_text(json.dumps(splits))
        yield


def make_trainer(row: str, options: argparse.Namespace) -> Any:
    """Return a trainer with a tiny network; its loaders are made in this process."""
    with mock.patch.dict(os.environ, nnUNet_n_proc_DA="0"):
        return step_cost.build(row, options)


class Worker:
    """Make a side's batches in this process, as one of nnU-Net's workers."""

    def __init__(self, row: str, options: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        with open(os.devnull, "w", encoding="utf-8") as silence, redirect_stdout(silence):
            trainer = make_trainer(row, options)
            with mock.patch.dict(os.environ, nnUNet_n_proc_DA="0"):
                batches, _ = trainer.get_dataloaders()
        self.loader = batches.data_loader
        self.finish = getattr(batches, "finish", None)

    def make(self, number: int) -> Any:
        """Return batch ``number``."""
        if isinstance(self.loader, NumberedLoader):
            self.loader.next_number = number
            return next(self.loader)
        with seeded(0, number, LABELED):
            return next(self.loader)


def work(row: str, options: argparse.Namespace, orders: Any, results: Any, queue: Any) -> None:
    """Make the batches that are ordered; give CPU and wall seconds and the greatest memory."""
    worker = Worker(row, options)
    for numbers in iter(orders.get, None):
        cpu, wall = time.process_time(), time.perf_counter()
        for number in numbers:
            queue.put(worker.make(number))
        queue.put(None)
        orders.get()  # The queue was emptied, so its thread has written everything.
        used = time.process_time() - cpu, time.perf_counter() - wall
        results.put((*used, step_cost.most_memory()))


def measure(
    options: argparse.Namespace, chosen: dict[str, str]
) -> dict[str, list[tuple[float, float, float]]]:
    """Return CPU seconds, wall seconds and MiB at most of each chosen side's turns."""
    context = multiprocessing.get_context("spawn")
    sides = {}
    for name, row in chosen.items():
        queues = context.Queue(), context.Queue(), context.Queue(2)
        process = context.Process(target=work, args=(row, options, *queues), daemon=True)
        process.start()
        sides[name] = (process, *queues)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in chosen}
    for turn in trange(options.turns + 1, desc="turns", file=sys.stderr):
        numbers = [turn * options.batches + i for i in range(options.batches)]
        for name, (_, orders, results, queue) in sides.items():
            orders.put(numbers)
            while queue.get() is not None:
                pass
            orders.put(True)
            result = results.get()
            if turn > 0:
                found[name].append(result)
    for process, orders, *_ in sides.values():
        orders.put(None)
        process.join()
    return found


def device_part(options: argparse.Namespace) -> list[float]:
    """Return the CPU seconds of each turn's batches that the setting moves to the device."""
    worker = Worker(SIDES[f"both streams, {ON_DEVICE}"], options)
    seconds = [0.0] * (options.turns + 1)
    for turn in range(options.turns + 1):
        for number in range(turn * options.batches, (turn + 1) * options.batches):
            sent = worker.make(number)
            start = time.process_time()
            worker.finish(sent)
            seconds[turn] += time.process_time() - start
    return seconds[1:]


def ratio(own: list[float], stock: list[float]) -> str:
    """Return the ratio of two sums, and the least and greatest one of the turns."""
    each = [a / b for a, b in zip(own, stock, strict=True)]
    return f"{sum(own) / sum(stock):.2f} ({min(each):.2f}-{max(each):.2f})"


def rows() -> list[Row]:
    """Measure the sides that have a limit, at two sizes of patches."""
    found = []
    for patch, batches in (([32, 48, 64], 20), ([128, 128, 128], 6)):
        options = argparse.Namespace(
            patch=patch, batch=2, batches=batches, turns=4, device="cpu", features=[2, 4, 4, 4]
        )
        with cases(patch):
            turns = measure(options, {name: SIDES[name] for name in (FIRST, *LIMITS)})
        spent = {
            name: 1e3 * sum(turn[0] for turn in side) / len(side) / batches
            for name, side in turns.items()
        }
        size = "x".join(map(str, patch))
        found += [
            Row(f"workers at {size}: {name}", spent[name], spent[FIRST], FIRST, "ms", limit)
            for name, limit in LIMITS.items()
        ]
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--patch", type=int, nargs="+", default=[32, 48, 64], help="voxels")
    parser.add_argument("--batch", type=int, default=2, help="labeled patches, and unlabeled ones")
    parser.add_argument("--batches", type=int, default=20, help="in a turn")
    parser.add_argument("--turns", type=int, default=5, help="of each side, after one to warm up")
    options = parser.parse_args()
    options.device, options.features = "cpu", [2, 4, 4, 4]
    with cases(options.patch):
        found = measure(options, SIDES)
        on_device = device_part(options)
    rows = []
    stock = found[FIRST]
    for name, turns in found.items():
        cpu, wall, memory = zip(*turns, strict=True)
        milliseconds = [1e3 * sum(x) / len(x) / options.batches for x in (cpu, wall)]
        row = [name, f"{milliseconds[0]:.1f}", ratio(cpu, [turn[0] for turn in stock])]
        row += [f"{milliseconds[1]:.1f}", ratio(wall, [turn[1] for turn in stock])]
        row += [f"{max(memory):.0f}", f"{max(memory) / max(turn[2] for turn in stock):.2f}"]
        rows.append(row)
    moved = 1e3 * sum(on_device) / len(on_device) / options.batches
    times = [f"{moved:.1f}", ratio(on_device, [turn[0] for turn in stock])]
    rows.append(["its other part, on this CPU", *times, "-", "-", "-", "-"])
    header = ["workers", "CPU (ms a batch)", "ratio", "wall (ms)", "ratio", "peak (MiB)", "ratio"]
    print(format_table(header, rows, markdown=True))


if __name__ == "__main__":
    main()
