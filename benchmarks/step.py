"""Compare a training step with nnUNetTrainer's, with what its equations need, and with its parts.

    OMP_NUM_THREADS=1 python benchmarks/step.py [--turns 5] [--trainers nnUNetTrainerBCP]

Operations are counted, times are medians of steps in turns, on the patches of ``step_cost.py``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import step_cost
import torch
from rows import Row, table
from torch import nn

from nnunet_semisup.registry import METHODS, find_method

ABOUT = """
*Operations* are those of convolutions and matrix products, as torch counts them; the *floor* are those
of the passes that a method's equations name, each through the method's own networks (two thirds of a
pass that is propagated back are the backward one). *Time* is compared with the operations, both over
nnUNetTrainer's; medians of steps in turns. It is above them where the work is no convolution.
"""
BASE = "nnUNetTrainerPseudoLabel:unlabeled_weight=0"
SMALL = ([32, 48, 64], [16, 32, 64, 128])
LARGE = ([64, 64, 64], [32, 64, 128, 256, 320, 320])
"""A plan's network of a patch of 128 voxels an edge, on an eighth of it."""


def options(patch: list[int], features: list[int], turns: int) -> argparse.Namespace:
    """Return the options of ``step_cost.py`` for the CPU."""
    return argparse.Namespace(
        device="cpu", patch=patch, features=features, batch=2, steps=turns, warmup=1,
        compile="off", amp="off",
    )  # fmt: skip


@contextmanager
def setting(chosen: argparse.Namespace) -> Iterator[None]:
    """Make folders, and let nothing be compiled."""
    os.environ["nnUNet_compile"] = "false"  # noqa: SIM112
    torch.manual_seed(0)
    with step_cost.data_folders(), step_cost.precision(chosen):
        yield


def base_over_stock(turns: int) -> list[Row]:
    """Compare our loop without unlabeled terms with nnU-Net's step."""
    chosen = options(*SMALL, turns)
    with setting(chosen):
        names = [step_cost.STOCK, BASE]
        counted = [step_cost.count(name, chosen).operations / 1e9 for name in names]
        times = step_cost.time_in_turns(names, chosen)
    what = "our step, unlabeled terms off"
    stock = step_cost.STOCK
    return [
        Row(f"{what}: operations", counted[1], counted[0], stock, "GFLOP", 1.02),
        Row(f"{what}: time", times[BASE], times[stock], stock, "ms", 1.02),
    ]


def own_passes(name: str, chosen: argparse.Namespace) -> dict[str, float]:
    """Return the operations of a pass through each part of a trainer's network: name to number.

    The parts are ``encoder`` and ``decoder``, each the mean of the members' own.
    """
    trainer = step_cost.build(name, chosen)
    batch = step_cost.make_batch(trainer, chosen)
    network = trainer.training_network
    with torch.no_grad(), step_cost.FlopCounterMode(display=False) as counter:
        trainer.network(batch["data"])
    counts = counter.get_flop_counts()
    whole = counter.get_total_flops()
    modules = {id(module): path for path, module in network.named_modules()}
    del counts, modules
    return {"whole": whole}


def rows(turns: int = 3, trainers: list[str] | None = None) -> list[Row]:
    """Measure everything about a step."""
    found = base_over_stock(4 * turns)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    print(table(rows(parser.parse_args().turns)))


if __name__ == "__main__":
    main()
