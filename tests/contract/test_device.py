"""A training step queues work and never waits for the device, but in nnU-Net's gradient scaler."""

from __future__ import annotations

import traceback

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_semisup.losses import structures
from nnunet_semisup.registry import find_method
from nnunet_semisup.training.deferred import DeferredBool
from tests.contract.conftest import SEMI_SUPERVISED, each_pair, product

WAITING = {
    "_linalg_check_errors",
    "_linalg_eigh",
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}
"""Operators whose result, or its shape, must be known on the host."""


class Waits(TorchDispatchMode):
    """Collects where an operator was called for which a GPU would be waited for.

    ``on_host`` are tensors that live on the host even where the trainer is on a GPU.
    """

    def __init__(self, on_host=()):
        super().__init__()
        self.places = []
        self.allowed = False
        self.on_host = on_host

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        known = self.allowed or any(args and args[0] is tensor for tensor in self.on_host)
        if (name in WAITING or by_mask) and not known:
            stack = [f for f in traceback.extract_stack()[:-1] if "/torch/" not in f.filename]
            self.places.append(f"{name}: {stack[-1].filename}:{stack[-1].lineno}")
        return function(*args, **(kwargs or {}))


COPIES = {torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist}


class Copies(TorchFunctionMode):
    """Collects where a tensor is asked to come to the host; on the CPU no operator is called."""

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        to_host = function is torch.Tensor.to and "cpu" in (*args[1:], *kwargs.values())
        if (function in COPIES or to_host) and not self.waits.allowed:
            stack = [f for f in traceback.extract_stack()[:-1] if "/torch/" not in f.filename]
            self.waits.places.append(f"{function.__name__}: {stack[-1].filename}")
        return function(*args, **kwargs)


def allowed(waits, function):
    """Return a function in which the host may wait."""

    def wrapped(*args):
        waits.allowed = True
        try:
            return function(*args)
        finally:
            waits.allowed = False

    return wrapped


@each_pair(product(SEMI_SUPERVISED, ("labels3d", "regions2d")))
def test_a_step_does_not_wait(build, method, kind, monkeypatch):
    trainer = build(method, kind, num_iterations_per_epoch=4)
    trainer.current_epoch = 1
    trainer.train_step(next(trainer.dataloader_train))
    batch = next(trainer.dataloader_train)
    waits = Waits([trainer.teacher.n_averaged] if method.has_teacher else [])
    # What is read in the background, and what the host does by the method's nature (MATCH).
    monkeypatch.setattr(DeferredBool, "read", allowed(waits, DeferredBool.read))
    monkeypatch.setattr(structures, "levels_on_host", allowed(waits, structures.levels_on_host))
    with waits, Copies(waits):
        trainer.train_step(batch)
    assert waits.places == []
    trainer.grad_scaler = torch.amp.GradScaler("cpu")
    batch = next(trainer.dataloader_train)
    with waits, Copies(waits):
        trainer.train_step(batch)
    assert len(waits.places) <= 1, "nnU-Net's scaler reads whether a step overflowed"


@pytest.mark.parametrize(("epoch", "names"), [(0, {"_linalg_eigh"}), (30, set())])
def test_only_a_fit_of_the_codes_waits(build, epoch, names):
    method = find_method("nnUNetTrainerVQSeg")
    trainer = build(method, "labels3d", num_epochs=40, calibrate_every=1)
    trainer.current_epoch = epoch
    batch = next(trainer.dataloader_train)
    with Waits([trainer.teacher.n_averaged]) as waits:
        trainer.train_step(batch)
    assert {place.split(":")[0] for place in waits.places} == names


def test_the_host_compares_structures_now_and_then_and_waits_once_for_each_comparison(build):
    method = find_method("nnUNetTrainerMATCH")
    trainer = build(method, "labels2d", num_iterations_per_epoch=5, match_every=3)
    trainer.current_epoch = 1
    found = []
    for _ in range(4):
        batch = next(trainer.dataloader_train)
        waits = Waits([trainer.teacher.n_averaged])
        with waits, Copies(waits):
            trainer.train_step(batch)
        found.append([place.split(":")[0] for place in waits.places])
        trainer.iteration += 1
    assert found == [[], ["cpu", "numpy"] * 2, [], []], "step 6 of all"


class ReadInBackward(torch.autograd.Function):
    @staticmethod
    def forward(_, values):
        return values.clone()

    @staticmethod
    def backward(_, gradient):
        gradient.sum().item()
        return gradient


def test_waiting_is_noticed():
    values = torch.arange(4.0)
    weight = torch.ones(4, requires_grad=True)
    waits = Waits([weight])
    with waits, Copies(waits):
        weight.detach().cpu()
        values.tolist()
        values.to("cpu")
    assert [place.split(":")[0] for place in waits.places] == ["cpu", "tolist", "to"]
    with Waits([weight]) as waits:
        values[values > 1]
        torch.unique(values)
        ReadInBackward.apply(weight).sum().backward()
        bool(weight.detach().sum() > 1)
        values.sum().clamp(min=1.0)
        values[torch.tensor([0, 2])] = 1.0
    found = [place.split(":")[0] for place in waits.places]
    assert found == ["index", "_unique2", "_local_scalar_dense", "_local_scalar_dense"]
    assert all(__file__ in place for place in waits.places)
