"""Results of a training-only network's pass."""

from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_semisup.networks.training_network import Outputs


class Guesting(nn.Module):
    """Logits of one layer, and a guest's tensor of another in the given kind of mapping."""

    def __init__(self, mapping):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.mapping = mapping

    def forward(self, x):
        """Return both layers' outputs."""
        return Outputs(self.first(x), guests=self.mapping({"text": self.second(x)}))


def step(mapping):
    network = DistributedDataParallel(Guesting(mapping), find_unused_parameters=True)
    output = network(torch.randn(3, 2))
    (output.logits.sum() + output.guests["text"].sum()).backward()
    return network.module.second.weight.grad


def test_guests_in_a_dict_take_part_in_distributed_training(one_process):
    assert step(dict).any()


def test_guests_in_another_mapping_do_not(one_process):
    """The reason for a dict, torch 2.14: its outputs are flattened by type."""
    with pytest.raises(RuntimeError, match="mark a variable ready only once"):
        step(MappingProxyType)


def test_outputs_without_further_parts():
    assert Outputs(1) == (1, None, {})
