"""Agreement of processes where there is one; two are in tests/integration."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn

from nnunet_semisup.training.ranks import Ranks


@pytest.fixture(params=[False, True], ids=["alone", "distributed"])
def ranks(request):
    if request.param:
        request.getfixturevalue("one_process")
    return Ranks(request.param)


def test_the_greatest_of_one_is_its_own(ranks):
    assert [ranks.greatest(value) for value in (0, 7, -3, 2**40)] == [0, 7, -3, 2**40]


@pytest.mark.parametrize(
    ("losses", "second"), [([1, 0.5], True), ([0.5, 1], False), ([1, 1], False)]
)
def test_the_lower_of_two_losses(ranks, losses, second):
    own = torch.tensor(losses, dtype=torch.float32)
    lower = ranks.second_is_lower(own)
    assert (lower.dtype, lower.shape, bool(lower)) == (torch.bool, (), second)
    assert own.tolist() == losses


def test_gradients_stay_as_they_are(ranks):
    layer = nn.Linear(3, 2)
    layer(torch.randn(4, 3)).sum().backward()
    before = [p.grad.clone() for p in layer.parameters()]
    ranks.average_gradients(layer.parameters())
    assert all(torch.equal(p.grad, b) for p, b in zip(layer.parameters(), before, strict=True))


def test_only_a_distributed_run_needs_a_gradient_everywhere(one_process):
    """Each process has to take part in every exchange, whatever its terms reached."""
    layer = nn.Linear(1, 1, bias=False)
    Ranks(False).average_gradients(layer.parameters())
    assert layer.weight.grad is None
    Ranks(True).average_gradients(layer.parameters())
    assert layer.weight.grad.tolist() == [[0.0]]


def test_values_of_the_first_are_its_own(ranks):
    module = nn.BatchNorm1d(3)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    ranks.share_first(module)
    assert all(torch.equal(value, before[n]) for n, value in module.state_dict().items())


def test_processes_wait_longer_than_a_device_would(one_process, monkeypatch):
    """NCCL's barrier ends a run after ten minutes, and one of them may label scans for hours."""
    monkeypatch.setattr(dist, "barrier", lambda *_, **__: pytest.fail("a barrier of the device"))
    made, new_group = [], dist.new_group
    monkeypatch.setattr(dist, "new_group", lambda **k: made.append(k) or new_group(**k))
    Ranks(True).wait()
    assert made[0]["backend"] == "gloo"
    assert made[0]["timeout"] >= timedelta(hours=12)


def test_counts_of_one_are_their_sum(ranks):
    counts = torch.tensor([3, 2**40])
    assert torch.equal(ranks.sum_of(counts), counts)
    ranks.wait()
