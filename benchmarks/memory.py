"""Compare the memory of a training step with nnUNetTrainer's at the same labeled batch.

    OMP_NUM_THREADS=1 python benchmarks/memory.py [--trainers nnUNetTrainerBCP]

What PyTorch allocates for tensors, from the start of the trainer to the end of its second step, and
the most of it that is in use at once: the same numbers on each run, unlike the size of a process.
Beside each stands the estimate by which ``--fit`` chooses settings for a GPU.
"""

from __future__ import annotations

import argparse
import gc

import step_cost
from rows import Row, table
from step import SMALL, STOCK, options, setting
from torch.profiler import ProfilerActivity, profile

from nnunet_semisup.registry import find_method
from nnunet_semisup.training.memory import Step

AGAIN = "recompute_activations=True"
LIMITS = {"nnUNetTrainerPseudoLabel": 1.15, "nnUNetTrainerBCP": 1.2, "nnUNetTrainerMCNet": 1.3}
ABOUT = f"""
What PyTorch has in use at most: weights, gradients, momentum, teacher, batch and activations, in
float32. The passes of a step are propagated back one after the other, so that a second stream adds
the teacher and its batch. MC-Net's two decoders have to be in memory together, since each is
compared with the other. It is within its limit with `{AGAIN}`, which keeps the inputs
of stages alone and computes the rest again, at the cost in the lines of operations. The estimate is
the one by which `nnUNetv2_semisup_plans --fit` chooses.
"""


def peak(name: str, chosen: argparse.Namespace) -> float:
    """Return the MiB that PyTorch has in use at most, weights, optimizer and batch included."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        trainer = step_cost.build(name, chosen)
        batch = step_cost.make_batch(trainer, chosen)
        for _ in range(2 * step_cost.period(trainer)):
            step_cost.step(trainer, batch)
    results = found.profiler
    assert results is not None
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    used = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        used += event.nbytes()
        most = max(most, used)
    return most / 2**20


def estimate(name: str, chosen: argparse.Namespace) -> float:
    """Return the MiB that a step is expected to take, without taking one."""
    trainer = step_cost.build(name, chosen)
    sizes = tuple(chosen.patch), chosen.batch, chosen.batch
    again, mixed = trainer.recompute_activations, False
    return Step(type(trainer), trainer.planned_network, *sizes, again, mixed).bytes() / 2**20


def rows(trainers: list[str] | None = None) -> list[Row]:
    """Measure memory, what recomputing costs, and the estimate, of trainers with a limit."""
    chosen, found = options(*SMALL, 1), []
    with setting(chosen):
        stock = peak(STOCK, chosen)
        for name in trainers or list(LIMITS):
            short, limit = name.removeprefix("nnUNetTrainer"), LIMITS.get(name)
            peaks = [peak(row, chosen) for row in (name, f"{name}:{AGAIN}")]
            for what, most in zip((short, f"{short}, {AGAIN}"), peaks, strict=True):
                found.append(Row(f"memory of {what}", most, stock, STOCK, "MiB", limit))
            counts = [step_cost.count(row, chosen).operations for row in (f"{name}:{AGAIN}", name)]
            more = [number / 1e9 for number in counts]
            what = f"operations of {short}, {AGAIN}"
            found.append(Row(what, *more, "without", "GFLOP", None))
            if find_method(name).unlabeled_at_once:
                expected = estimate(name, chosen)
                what = f"estimate of {short}"
                found.append(Row(what, expected, peaks[0], "measured", "MiB", None))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainers", nargs="+", metavar="TRAINER", help="default: with a limit")
    print(table(rows(parser.parse_args().trainers)))


if __name__ == "__main__":
    main()
