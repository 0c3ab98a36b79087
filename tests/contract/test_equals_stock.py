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
from tests.contract.conftest import KINDS, SEMI_SUPERVISED

PLAIN = [m for m in SEMI_SUPERVISED if m.predicts_as == "nnUNetTrainer"]


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


def train_alike(ours, stock, network):
    """Two epochs of two steps on the same batches; ``network`` is what stock trains, in ours."""
    for epoch in range(2):
        for trainer in (ours, stock):
            trainer.current_epoch = epoch
            trainer.on_train_epoch_start()
        for _ in range(2):
            batch = next(ours.dataloader_train)
            loss = ours.train_step(copy.deepcopy(batch))["loss"]
            expected = stock.train_step({k: batch[k] for k in ("data", "target")})["loss"]
            assert float(loss) == float(expected)
            for name, weight in stock.network.state_dict().items():
                assert torch.equal(network.state_dict()[name], weight), name


@pytest.mark.parametrize("method", PLAIN, ids=lambda m: m.trainer)
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_losses_and_weights_equal_stock_step_by_step(
    build, datasets, method, kind, deep_supervision
):
    ours = build(method, kind, unlabeled_weight=0.0, enable_deep_supervision=deep_supervision)
    stock = stock_trainer(datasets, kind)
    if not deep_supervision:
        stock.enable_deep_supervision = False
        stock.loss = stock._build_loss()
        stock.set_deep_supervision_enabled(False)
    stock.network.load_state_dict(ours.student.state_dict())
    train_alike(ours, stock, ours.student)


def test_the_lower_bound_equals_stock_step_by_step(build, datasets):
    ours = build(next(m for m in METHODS if not m.uses_unlabeled), "labels3d")
    stock = stock_trainer(datasets, "labels3d")
    stock.network.load_state_dict(ours.network.state_dict())
    train_alike(ours, stock, ours.network)


def test_the_lower_bound_is_stock_with_a_budget(build):
    method = next(m for m in METHODS if not m.uses_unlabeled)
    trainer = build(method, "labels3d", start=False, num_epochs=7, initial_lr=0.005)
    assert trainer.num_epochs == 7
    assert trainer.initial_lr == 0.005
    changed = set(vars(type(trainer))) - set(vars(object)) - {"__annotations__"}
    assert not {"train_step", "run_training", "_build_loss"} & changed


@pytest.mark.parametrize("kind", list(KINDS))
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
