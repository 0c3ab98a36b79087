"""Activations that are computed again cost time and change nothing else."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from nnunet_semisup.networks.recomputed import recompute_stages
from nnunet_semisup.registry import find_method
from tests.contract.conftest import EVERYTHING, SEMI_SUPERVISED, each_method
from tests.contract.steps import compiled

NAMES = ("nnUNetTrainerPseudoLabel", "nnUNetTrainerBCP", "nnUNetTrainerMCNet", "nnUNetTrainerUAMT")
CHOSEN = [m for m in SEMI_SUPERVISED if EVERYTHING or m.trainer in NAMES]
WITH_DECODERS = find_method("nnUNetTrainerMCNet")


def losses(trainer):
    """Return the losses of two steps in the second epoch."""
    trainer.current_epoch = 1
    found = []
    for number in range(2):
        batch = next(trainer.dataloader_train)
        torch.manual_seed(number)
        found.append(float(trainer.train_step(batch)["loss"]))
    return found


@each_method(CHOSEN)
def test_a_step_is_the_same(build, method):
    usual, again = (build(method, "labels3d", recompute_activations=on) for on in (False, True))
    assert losses(again) == losses(usual)
    weights = usual.training_network.state_dict()
    for name, weight in again.training_network.state_dict().items():
        assert torch.equal(weight, weights[name]), name


def bytes_kept(trainer, image):
    found = {}

    def keep(tensor):
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.student_pass(image, "labeled")
    return sum(storage.nbytes() for storage in found.values())


def test_less_is_kept(build):
    trainer = build(WITH_DECODERS, "labels3d")
    image = next(trainer.dataloader_train)["data"]
    usual = bytes_kept(trainer, image)
    recompute_stages(trainer.training_network)
    assert bytes_kept(trainer, image) < 0.7 * usual


def test_under_torch_compile(build):
    expected = losses(build(WITH_DECODERS, "labels2d"))
    with compiled():
        found = losses(build(WITH_DECODERS, "labels2d", recompute_activations=True))
        assert counters["stats"]["unique_graphs"] > 0
    assert found == pytest.approx(expected, rel=1e-3)
    assert sum(counters["graph_break"].values()) == 0
