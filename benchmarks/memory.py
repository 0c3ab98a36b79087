"""Compare the memory of a training step with nnUNetTrainer's at the same labeled batch.

    OMP_NUM_THREADS=1 python benchmarks/memory.py [--patch 64 64 64] [--trainers nnUNetTrainerBCP]

What PyTorch allocates for tensors, from the start of the trainer to the end of its second step, and
the most of it that is in use at once: the same numbers on each run, unlike the size of a process.
"""

from __future__ import annotations

import argparse
import gc

import step_cost
import torch
from torch.profiler import ProfilerActivity, profile


def peak(name: str, options: argparse.Namespace) -> float:
    """Return the MiB that PyTorch has in use at most, weights, optimizer and batch included."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=False) as found:
        trainer = step_cost.build(name, options)
        batch = step_cost.make_batch(trainer, options)
        for _ in range(2 * step_cost.period(trainer)):
            step_cost.step(trainer, batch)
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    used = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        used += event.nbytes()
        most = max(most, used)
    return most / 2**20

if __name__ == "__main__":
    import sys, os
    from step import options, setting
    from step_cost import most_memory
    o = options([int(x) for x in sys.argv[2].split(",")], [int(x) for x in sys.argv[3].split(",")], 1)
    base = None
    with setting(o):
        for n in sys.argv[1].split(";"):
            p = peak(n, o)
            base = base or p
            print(n, round(p,1), round(p/base,3), flush=True)
