"""With the unlabeled terms weighted zero, training is nnUNetTrainer's, step by step."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semisup.registry import METHODS
from tests.contract.conftest import KINDS, SEMI_SUPERVISED

PLAIN = [m for m in SEMI_SUPERVISED if m.predicts_as == "nnUNetTrainer"]


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
    assert not {"train_step", "run_training", "get_dataloaders", "_build_loss"} & changed
