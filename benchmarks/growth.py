"""Measure how the time of each part grows with its work, and fit the slope of both logarithms.

    OMP_NUM_THREADS=1 python benchmarks/growth.py [--calls 6] [--picture growth.png]

Processor time, the least of several calls. A slope of 1 is time in proportion to the work.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import loader
import numpy as np
import step_cost
import torch
from rows import Row, allowed, table
from torch import nn

from nnunet_semisup.evaluation.metrics import compute_metrics
from nnunet_semisup.losses.consistency import segmentation_loss
from nnunet_semisup.losses.targets import pseudo_label
from nnunet_semisup.networks.members import Members
from nnunet_semisup.networks.qpm import calibrate_temperature, perturb
from nnunet_semisup.networks.quantizer import look_up

ABOUT = """
The slope is that of a line through the logarithms of work and time, by least squares; 1 is time in
proportion to the work, and up to 1.2 is what caches make of it. A batch of patches takes as long
with many cases as with few. The limit of a call is one of seconds, for whatever processor measures.

![Time over work, both logarithmic](images/growth.png)
"""
CODE_DIM = 32
Points = list[tuple[float, float]]


def seconds(call: Callable[[], Any], calls: int) -> float:
    """Return the least processor time of some calls after one that is not counted."""
    times = []
    for number in range(calls + 1):
        start = time.process_time()
        call()
        if number > 0:
            times.append(time.process_time() - start)
    return min(times)


def in_turns(sizes: Sequence[int], make: Callable[[int], Any], calls: int) -> Points:
    """Return sizes and the least processor time of each; calls of all sizes take turns."""
    made = [make(size) for size in sizes]
    turns = [[seconds(call, 1) for call in made] for _ in range(calls)]
    least = np.min(turns, axis=0)
    return [(float(size), float(spent)) for size, spent in zip(sizes, least, strict=True)]


def slope(points: Points) -> float:
    """Return the exponent of the power of the work that fits the time best."""
    work, spent = np.log(np.asarray(points)).T
    return float(np.polyfit(work, spent, 1)[0])


def swaps(tokens: int, codes: int) -> Callable[[], Any]:
    """Return a call of the quantized perturbation."""
    codebook = torch.randn(codes, CODE_DIM)
    indices = torch.randint(0, codes, (tokens,))
    temperature = calibrate_temperature(codebook, 32.0)
    return lambda: perturb(indices, codebook, 0.7, temperature=temperature)


def nearest(tokens: int, codes: int) -> Callable[[], Any]:
    """Return a call of the quantizer's search for the nearest code."""
    table_of_codes, features = torch.randn(codes, CODE_DIM), torch.randn(1, tokens, CODE_DIM)
    return lambda: look_up(features, table_of_codes)


def loss(edge: int, classes: int) -> Callable[[], Any]:
    """Return a call of the loss of pseudo-labels, forth and back, in cubes of voxels."""
    logits = torch.randn(1, classes, edge, edge, edge, requires_grad=True)

    def run() -> None:
        label = pseudo_label(logits.detach(), False, 0.5)
        torch.autograd.grad(segmentation_loss(logits, label, False), logits)

    return run


def members(number: int) -> Callable[[], Any]:
    """Return a pass through that many networks, forth and back."""
    plans = step_cost.make_plans([32, 32, 32], [8, 16, 32], 2)
    kwargs = plans["configurations"][step_cost.CONFIGURATION]["architecture"]["arch_kwargs"]
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    types = {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}
    first = PlainConvUNet(1, num_classes=2, deep_supervision=False, **{**kwargs, **types})
    others = [copy.deepcopy(first) for _ in range(number - 1)]
    network = Members(first, others, shared_encoder=False)
    image = torch.randn(2, 1, 32, 32, 32)
    return lambda: sum(part.logits.sum() for part in network(image).parts).backward()


def metrics(edge: int) -> Callable[[], Any]:
    """Return the metrics of two balls in a cube of voxels."""
    axes = np.ogrid[:edge, :edge, :edge]
    one, other = (
        sum((axis - edge * (0.5 + shift)) ** 2 for axis in axes) < (edge * 0.3) ** 2
        for shift in (0.0, 0.02)
    )
    return lambda: compute_metrics(one, other, (1.0, 1.0, 1.0))


def batches(cases: int, calls: int) -> float:
    """Return the seconds of a batch of both streams that many cases of each are drawn from."""
    patch = [32, 32, 32]
    options = argparse.Namespace(patch=patch, batch=2, device="cpu", features=[2, 4, 4])
    with loader.cases(patch):
        folder = Path(os.environ["nnUNet_preprocessed"], step_cost.DATASET)  # noqa: SIM112
        stored = folder / f"{step_cost.PLANS}_{step_cost.CONFIGURATION}"
        names = [f"{kind}_{n}" for kind in ("labeled", "unlabeled") for n in range(cases)]
        for name, ending in product(names, (".b2nd", "_seg.b2nd", ".pkl")):
            os.link(stored / f"labeled2{ending}", stored / f"{name}{ending}")
        splits = [{"train": names[:cases], "val": ["validation"], "unlabeled": names[cases:]}]
        (folder / "splits_final.json").write_text(json.dumps(splits))
        worker = loader.Worker("nnUNetTrainerPseudoLabel", options)
        return seconds(lambda: [worker.make(number) for number in range(16)], calls) / 16


WORK: dict[str, tuple[Sequence[int], Callable[[int], Callable[[], Any]]]] = {
    "swaps of codes, by tokens": ((2048, 4096, 8192, 16384), lambda n: swaps(n, 2048)),
    "swaps of codes, by codes": ((2048, 4096, 8192, 16384), lambda n: swaps(2048, n)),
    "nearest code, by tokens": ((2048, 4096, 8192, 16384), lambda n: nearest(n, 2048)),
    "nearest code, by codes": ((2048, 4096, 8192, 16384), lambda n: nearest(2048, n)),
    "loss of pseudo-labels, by classes": ((2, 4, 8, 16), lambda n: loss(40, n)),
    "loss of pseudo-labels, by voxels": ((32**3, 48**3, 64**3, 96**3), lambda n: loss(_edge(n), 3)),
    "pass of networks, by members": ((1, 2, 4, 8), members),
    "metrics of a case, by voxels": ((48**3, 64**3, 96**3, 128**3), lambda n: metrics(_edge(n))),
}
"""What grows: the sizes of the work, and what makes a call of one size."""


def _edge(voxels: int) -> int:
    return round(voxels ** (1 / 3))


def rows(calls: int = 6) -> list[Row]:
    """Measure all slopes, and a call of the quantized perturbation at its usual size."""
    torch.manual_seed(0)
    os.environ["nnUNet_compile"] = "false"  # noqa: SIM112
    once = seconds(swaps(2048, 16384), max(5, calls))
    found = [allowed("swaps of codes, a call at 2,048 tokens and 16,384 codes", once, 0.15, "s")]
    for what, (sizes, make) in WORK.items():
        points = in_turns(sizes, make, calls)
        found.append(Row(f"slope: {what}", slope(points), 1.0, "linear", "", 1.2, "", points))
    points = [(float(cases), batches(cases, calls)) for cases in (4, 16, 64)]
    what = "slope: a batch of patches, by cases"
    found.append(Row(what, slope(points), 0.1, "allowed", "", 1.0, "", points))
    return found


def draw(measured: Sequence[Row], path: Path) -> None:
    """Draw time over work of the rows that have points, one panel each, both logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, NullLocator

    from nnunet_semisup.figures import small_png

    shown = [row for row in measured if row.points]
    lines = math.ceil(len(shown) / 3)
    figure = Figure(figsize=(9, 2.4 * lines), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    for number, row in enumerate(shown, 1):
        axis = figure.add_subplot(lines, 3, number)
        work, spent = zip(*row.points, strict=True)
        first = spent[0] / work[0]
        axis.loglog(work, [first * w for w in work], ":", color="gray")
        axis.loglog(work, spent, "o-")
        axis.set_xticks(work, [f"{w:,.0f}" for w in work])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_minor_formatter(NullFormatter())
        what, _, by = row.what.removeprefix("slope: ").partition(", by ")
        axis.set_title(f"{what}: {row.ours:.2f}", fontsize=9)
        axis.set_xlabel(by, fontsize=8)
        axis.set_ylabel("s", fontsize=8)
        axis.tick_params(labelsize=7, which="both")
    path.write_bytes(small_png(figure))


def main() -> None:
    """Print the table, and draw the picture if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=6)
    parser.add_argument("--picture", type=Path, help="file for the picture")
    options = parser.parse_args()
    measured = rows(options.calls)
    print(table(measured))
    if options.picture:
        draw(measured, options.picture)


if __name__ == "__main__":
    main()
