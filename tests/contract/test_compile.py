"""Under torch.compile, nnU-Net's default on a GPU, every network is one graph that is kept."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from tests.contract.conftest import SEMI_SUPERVISED, each_method
from tests.contract.steps import compiled

STEPS = ((0, 0), (1, 1), (1, 2))
"""Epoch and number: in the first epoch ramps are near zero, in the second every term counts."""


def losses_and_graphs(trainer):
    """Return the loss of each step and the number of graphs that were compiled until then."""
    result = []
    for epoch, number in STEPS:
        trainer.current_epoch = epoch
        batch = next(trainer.dataloader_train)
        torch.manual_seed(number)
        result.append(
            (float(trainer.train_step(batch)["loss"]), counters["stats"]["unique_graphs"])
        )
    return tuple(zip(*result, strict=True))


@each_method(SEMI_SUPERVISED)
def test_steps_under_torch_compile(build, method):
    """Whether graphs break and are kept is Dynamo's, which is the same with every backend."""
    run = {"num_epochs": 3, "num_iterations_per_epoch": len(STEPS)}
    expected, _ = losses_and_graphs(build(method, "labels2d", **run))
    with compiled():
        losses, graphs = losses_and_graphs(build(method, "labels2d", **run))
    assert losses == pytest.approx(expected, rel=1e-3)
    assert sum(counters["graph_break"].values()) == 0
    assert graphs[0] > 0
    assert graphs[1] == graphs[2]
