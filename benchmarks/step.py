"""Compare a training step with nnUNetTrainer's, with what its equations need, and with its parts.

    OMP_NUM_THREADS=1 python benchmarks/step.py [--turns 2] [--trainers nnUNetTrainerBCP]

Operations are counted; times are medians of steps in turns, on the patches of ``step_cost.py``.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import step_cost
import torch
from rows import Row, table

from nnunet_semisup.networks.members import Members
from nnunet_semisup.registry import METHODS, find_method
from nnunet_semisup.training.optimizers import CLIP_NORM
from nnunet_semisup.training.semi_supervised import SemiSupervisedTrainer

ABOUT = """
*Operations* are those of convolutions and matrix products, as torch counts them. The floor under
them are the passes that a method's equations name, each through the method's own encoders and
decoders; two thirds of a pass that is propagated back are the backward one. *Time* is compared with
the operations, both over nnUNetTrainer's, as the median of steps in turns.

Operations beyond the limit: the queries of DKUXNet attend to the features of four batches, and the
texts of Text-SemiSeg and VCLIPSeg to those of each voxel; their floors, of the plan's networks,
leave that out as they do the interpolation of their decoders. SSNet's adversarial noise needs the
gradient of the image alone, so that it is below its floor.

Time beyond the limit is work that is no convolution: NSDA's box means and DKUXNet's depthwise
convolutions, which a CPU does slowly, GaussianField's Gaussians, drawn in each voxel, MATCH's host,
which compares structures, ARCO's contrast of voxels, and the comparison of several outputs of a
patch, voxel by voxel, of BSNet, MLRP and MCNetPlus. Lines near the limit are beyond it on one
processor and within it on another.
"""
STOCK = step_cost.STOCK
BASE = "nnUNetTrainerPseudoLabel:unlabeled_weight=0"
SMALL = ([32, 48, 64], [16, 32, 64, 128])
TINY = ([16, 16, 16], [8, 16, 32])
FLAT = ([128, 128], [16, 32, 64, 128])
LARGE = ([64, 64, 64], [32, 64, 128, 256, 320, 320])
"""The network that nnU-Net plans for 128 voxels an edge, on an eighth of such a patch."""


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


def base_rows(turns: int) -> list[Row]:
    """Compare our loop without unlabeled terms with nnU-Net's step."""
    chosen = options(*SMALL, turns)
    with setting(chosen):
        counted = [step_cost.count(name, chosen).operations / 1e9 for name in (STOCK, BASE)]
        times = step_cost.time_in_turns([STOCK, BASE], chosen)
    what = "our step, unlabeled terms off"
    return [
        Row(f"{what}: operations", counted[1], counted[0], STOCK, "GFLOP", 1.02),
        Row(f"{what}: time", times[BASE], times[STOCK], STOCK, "ms", 1.02),
    ]


def one_pass_rows(turns: int) -> list[Row]:
    """Compare both kinds of patches in one pass with one pass each."""
    apart, at_once = "nnUNetTrainerDTC", "nnUNetTrainerDTC:one_pass=True"
    rows = []
    for size in (SMALL, TINY):
        chosen = options(*size, turns)
        with setting(chosen):
            times = step_cost.time_in_turns([apart, at_once], chosen)
        what = f"DTC at {'x'.join(map(str, chosen.patch))}, one_pass=True: time"
        rows.append(Row(what, times[at_once], times[apart], "two passes", "ms", None))
    return rows


def forward(trainer: Any, chosen: argparse.Namespace) -> tuple[int, int]:
    """Return the operations of a pass through a trainer's networks, and those of its decoder."""
    image, how = step_cost.make_batch(trainer, chosen)["data"], getattr(trainer, "how_to_pass", {})
    with step_cost.FlopCounterMode(display=False) as counter:
        if isinstance(trainer, SemiSupervisedTrainer):
            trainer.student_pass(image, "labeled", **how)
        else:
            trainer.network(image)
    decoders = (c for name, c in counter.get_flop_counts().items() if name.endswith(".decoder"))
    return counter.get_total_flops(), sum(sum(counts.values()) for counts in decoders)


def floor(name: str, chosen: argparse.Namespace, plan: tuple[int, int], spared: int) -> float:
    """Return the operations that the passes of a method's equations need through its own networks.

    Args:
        name: of the trainer.
        chosen: options.
        plan: operations of a pass through the plan's network, and those of its decoder.
        spared: operations of the backward pass that the image needs no gradient for.
    """
    trainer, method = step_cost.build(name, chosen), find_method(name)
    if method.family == "text":  # What texts add to a pass is counted in the step alone.
        stock = 3 * plan[0] - spared
        return stock * step_cost.floor(method, (3 * plan[1]) / stock)
    network, whole = trainer.training_network, forward(trainer, chosen)[0]
    further = len(network.others) if isinstance(network, Members) else 0
    encoder: float = plan[0] - plan[1]
    if further and not network.shared_encoder:
        encoder *= whole / (1 + further) / plan[0]
        decoder = whole / (1 + further) - encoder
    else:
        decoder = (whole - encoder) / (1 + further)
    back, alone = method.forwards
    decoders_back, decoders_alone = method.decoder_forwards or method.forwards
    of_encoders = back * (3 * encoder - spared) + alone * encoder
    return of_encoders + (3 * decoders_back + decoders_alone) * decoder


def method_rows(names: list[str], chosen: argparse.Namespace) -> list[Row]:
    """Compare operations of methods with their floor, and times with operations."""
    with setting(chosen):
        counted = {name: step_cost.count(name, chosen) for name in (STOCK, *names)}
        stock = counted[STOCK].operations
        plan = forward(step_cost.build(STOCK, chosen), chosen)
        floors = {name: floor(name, chosen, plan, 3 * plan[0] - stock) for name in names}
        times = step_cost.time_in_turns([STOCK, *names], chosen)
    rows = []
    for name in names:
        operations, short = counted[name].operations, name.removeprefix("nnUNetTrainer")
        slower, more = times[name] / times[STOCK], operations / stock
        needed = floors[name] / 1e9
        rows += [
            Row(f"{short}: operations", operations / 1e9, needed, "its equations", "GFLOP", 1.1),
            Row(f"{short}: time, over nnU-Net's", slower, more, "its operations", "", 1.1),
        ]
    return rows


def beside(trainer: Any, terms: dict[str, Any]) -> None:
    """Do what a step does beside its passes: clip, follow, log."""
    for parameters in trainer.clipped_apart():
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
    trainer.follow()
    trainer.monitor.add(terms)


def beside_rows(size: tuple[list[int], list[int]], turns: int, limit: float | None) -> Row:
    """Compare the teacher's update, clipping and logging with a whole step."""
    chosen = options(*size, turns)
    with setting(chosen):
        trainer = step_cost.build("nnUNetTrainerPseudoLabel", chosen)
        batch = step_cost.make_batch(trainer, chosen)
        whole = statistics.median(step_cost.step(trainer, batch) for _ in range(turns))
        for parameter in trainer.network.parameters():
            parameter.grad = torch.ones_like(parameter)
        terms = {name: torch.zeros(()) for name in ("loss", "supervised", "consistency")}
        times = []
        for _ in range(5):
            start = step_cost.now(trainer.device)
            beside(trainer, terms)
            times.append(step_cost.now(trainer.device) - start)
    patch = "x".join(map(str, chosen.patch))
    features = "-".join(map(str, chosen.features))
    what = f"teacher, clipping and log, of a step at {patch}, features {features}"
    return Row(what, statistics.median(times), whole, "the step", "ms", limit)


def rows(turns: int = 2, trainers: list[str] | None = None) -> list[Row]:
    """Measure everything about a step."""
    found = base_rows(5 * turns)
    found += [beside_rows(SMALL, turns, None), beside_rows(LARGE, 1, 0.01)]
    found += one_pass_rows(3 * turns)
    named = trainers or [method.trainer for method in METHODS]
    solid = [name for name in named if 3 in find_method(name).dims]
    flat = [name for name in named if name not in solid]
    for names, size in ((solid, SMALL), (flat, FLAT)):
        if names:
            chosen = options(*size, turns)
            chosen.warmup = 0  # Counting was a step of each already.
            found += method_rows(names, chosen)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=2, help="timed steps of each trainer")
    parser.add_argument("--trainers", nargs="+", metavar="TRAINER", help="default: all")
    given = parser.parse_args()
    print(table(rows(given.turns, given.trainers)))


if __name__ == "__main__":
    main()
