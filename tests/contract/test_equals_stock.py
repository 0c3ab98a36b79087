"""With the unlabeled terms weighted zero, training is nnUNetTrainer's, step by step."""

from __future__ import annotations

import copy
import json
import random

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semisup.registry import METHODS
from nnunet_semisup.training.monitor import Monitor
from tests.contract.conftest import (
    EVERYTHING,
    KINDS,
    SEMI_SUPERVISED,
    USUAL,
    each_once,
    product,
    trainer_class,
)

LIKE_STOCK = [m for m in SEMI_SUPERVISED if m.labels_alone and m.predicts_as == "nnUNetTrainer"]
"""Methods whose first member is the plan's network and learns from labels as nnUNetTrainer does."""

ADDED = ("dropout", "distance_weight", "displaced_weight")
"""Settings that are 0 where the network learns from labels nothing but what nnU-Net's does."""


def assert_same_batch(batch, other):
    """Fails unless images, targets and cases are equal bit by bit."""
    assert list(batch["keys"]) == list(other["keys"])
    assert torch.equal(batch["data"], other["data"])
    for target, expected in zip(batch["target"], other["target"], strict=True):
        assert torch.equal(target, expected)


def stock_trainer(datasets, kind):
    folder = datasets(kind)
    plans = json.loads((folder / "nnUNetPlans.json").read_text(encoding="utf-8"))
    trainer = nnUNetTrainer(
        {**plans, "continue_training": False},
        KINDS[kind].configuration,
        0,
        json.loads((folder / "dataset.json").read_text(encoding="utf-8")),
        torch.device("cpu"),
    )
    trainer.num_epochs = 2
    trainer.initialize()
    return trainer


def step_of(trainer, batch):
    """Make a step; return the loss of the first, or only, member on labeled patches."""
    trainer.monitor = Monitor()
    loss = float(trainer.train_step(copy.deepcopy(batch))["loss"])
    terms = {name: float(value) for name, value in trainer.monitor._sums.items()}
    assert loss == pytest.approx(
        sum(value for name, value in terms.items() if name.startswith("supervised"))
    )
    return terms["supervised_1" if "supervised_1" in terms else "supervised"]


def train_alike(ours, stock, network, step, same_steps=True):
    """Train two epochs of two steps on the same batches.

    Args:
        ours, stock: the trainers.
        network: what stock trains, in ours.
        step: makes a step of ours and gives its loss.
        same_steps: the network's steps are stock's, too; otherwise only its loss is, at the same
            weights.
    """
    for epoch in range(2):
        for trainer in (ours, stock):
            trainer.current_epoch = epoch
            trainer.on_train_epoch_start()
        for _ in range(2):
            batch = next(ours.dataloader_train)
            if not same_steps:
                network.load_state_dict(stock.network.state_dict())
            loss = step(ours, batch)
            expected = stock.train_step({k: batch[k] for k in ("data", "target")})["loss"]
            assert loss == float(expected)
            for name, weight in stock.network.state_dict().items() if same_steps else ():
                assert torch.equal(network.state_dict()[name], weight), name


SINGLE = [m for m in LIKE_STOCK if m.without_deep_supervision]
WITHOUT_DEEP_SUPERVISION = product(
    *((SINGLE,) if EVERYTHING else (SINGLE[:1], ("labels3d", "regions2d")))
)


@pytest.mark.parametrize(
    ("method", "kind", "deep_supervision"),
    [
        *((*pair, True) for pair in each_once(LIKE_STOCK, USUAL[::-1])),
        *((*pair, False) for pair in WITHOUT_DEEP_SUPERVISION),
    ],
    ids=lambda value: getattr(value, "trainer", value),
)
def test_losses_and_weights_equal_stock_step_by_step(
    build, datasets, method, kind, deep_supervision
):
    """Without what the method adds to the network in training, dropout among it."""
    plain = {name: 0.0 for name in ADDED if hasattr(trainer_class(method), name)}
    settings = {"unlabeled_weight": 0.0, "enable_deep_supervision": deep_supervision, **plain}
    ours = build(method, kind, **settings)
    stock = stock_trainer(datasets, kind)
    if not deep_supervision:
        stock.enable_deep_supervision = False
        stock.loss = stock._build_loss()
        stock.set_deep_supervision_enabled(False)
    stock.network.load_state_dict(ours.student.state_dict())
    shared = getattr(ours.training_network, "shared_encoder", False)
    train_alike(ours, stock, ours.student, step_of, same_steps=not shared)


def test_the_lower_bound_equals_stock_step_by_step(build, datasets):
    ours = build(next(m for m in METHODS if not m.uses_unlabeled), "labels3d")
    stock = stock_trainer(datasets, "labels3d")
    stock.network.load_state_dict(ours.network.state_dict())
    train_alike(ours, stock, ours.network, lambda t, batch: float(t.train_step(batch)["loss"]))


def test_the_lower_bound_is_stock_with_a_budget(build, monkeypatch):
    method = next(m for m in METHODS if not m.uses_unlabeled)
    trainer = build(method, "labels3d", start=False, num_epochs=7, initial_lr=0.005)
    assert trainer.num_epochs == 7
    assert trainer.initial_lr == 0.005
    changed = set(vars(type(trainer))) - set(vars(object)) - {"__annotations__"}
    assert not {"run_training", "_build_loss"} & changed
    steps = []
    monkeypatch.setattr(nnUNetTrainer, "train_step", lambda *given: steps.append(given))
    batch = {"data": None}
    trainer.train_step(batch)
    assert steps == [(trainer, batch)], "the step is nnU-Net's where no label lacks a class"


@pytest.mark.parametrize("kind", USUAL)
def test_on_request_the_lower_bound_has_stocks_own_loader(build, datasets, kind):
    method = next(m for m in METHODS if not m.uses_unlabeled)
    ours, stock = build(method, kind, stock_loader=True), stock_trainer(datasets, kind)
    for of_ours, of_stock in zip(ours.get_dataloaders(), stock.get_dataloaders(), strict=True):
        assert type(of_ours) is type(of_stock)
        assert type(of_ours.data_loader) is type(of_stock.data_loader) is nnUNetDataLoader
        batches = []
        for loader in (of_ours, of_stock):
            random.seed(1)
            np.random.seed(1)
            torch.manual_seed(1)
            batches.append(next(loader))
        assert_same_batch(*batches)
