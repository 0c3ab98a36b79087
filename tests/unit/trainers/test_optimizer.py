"""Optimizers of a training, and what of them a run records and keeps."""

from __future__ import annotations

import pytest
import torch
from torch.optim import SGD, AdamW

from nnunet_semisup.errors import UserError
from nnunet_semisup.trainers import SemiSupervisedTrainer, nnUNetTrainerMeanTeacher
from nnunet_semisup.training.optimizers import ADAMW, WarmupPolyLR
from tests.unit.trainers.shared import save, step


class OfAnotherRate(nnUNetTrainerMeanTeacher):
    """A trainer whose class has a rate, as plain nnU-Net trainers do."""

    initial_lr = 0.5


def groups(trainer, name):
    return [group[name] for group in trainer.optimizer.param_groups]


def test_nnunets_own_is_the_default(build):
    trainer = build(nnUNetTrainerMeanTeacher)
    assert type(trainer.optimizer) is SGD
    assert (trainer.initial_lr, trainer.weight_decay) == (1e-2, 3e-5)


@pytest.mark.parametrize(
    ("cls", "given"),
    [
        (nnUNetTrainerMeanTeacher, {}),
        (nnUNetTrainerMeanTeacher, {"initial_lr": 0.002}),
        (nnUNetTrainerMeanTeacher, {"weight_decay": 0.0, "initial_lr": 0.002}),
        (OfAnotherRate, {}),
    ],
)
def test_adamw_has_a_rate_and_a_decay_of_its_own_unless_they_are_set(build, cls, given):
    trainer = build(cls, optimizer_name="adamw", **given)
    own = {"initial_lr": 0.5} if cls is OfAnotherRate else {}
    expected = {**ADAMW, **own, **given}
    recorded = trainer.hyperparameters()
    assert {name: recorded[name] for name in ADAMW} == expected
    assert type(trainer.optimizer) is AdamW
    assert type(trainer.lr_scheduler) is WarmupPolyLR
    trainer.current_epoch = 5
    trainer.on_train_epoch_start()
    rate = expected["initial_lr"] * 0.5**0.9
    assert groups(trainer, "lr") == pytest.approx([rate] * len(groups(trainer, "lr")))
    assert groups(trainer, "weight_decay") == [expected["weight_decay"]]


def test_a_run_with_adamw_goes_on_with_its_rates(build):
    trainer = build(nnUNetTrainerMeanTeacher, optimizer_name="adamw", num_epochs=100)
    for epoch in range(3):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        step(trainer)
    trainer.current_epoch, trainer.iteration = 3, 0
    file = save(trainer)
    again = build(nnUNetTrainerMeanTeacher, continues=True)
    again.load_checkpoint(file)
    assert (again.initial_lr, again.weight_decay) == (ADAMW["initial_lr"], ADAMW["weight_decay"])
    for one in (trainer, again):
        one.on_train_epoch_start()
    assert groups(again, "lr") == groups(trainer, "lr") != [ADAMW["initial_lr"]]
    assert step(again) == step(trainer)
    for own, other in zip(trainer.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize(("first", "then"), [("sgd", "adamw"), ("adamw", "sgd")])
def test_a_run_cannot_go_on_with_another_optimizer(build, first, then):
    """Torch loads the state and fails in the next step, or trains on without any momentum."""
    trainer = build(nnUNetTrainerMeanTeacher, optimizer_name=first)
    step(trainer)
    file = save(trainer)
    again = build(nnUNetTrainerMeanTeacher, continues=True, optimizer_name=then)
    with pytest.raises(UserError, match=f"with optimizer_name={first}.*start anew without --c"):
        again.load_checkpoint(file)


def test_what_is_trained_outside_is_optimized_and_saved(build):
    class Scaled(SemiSupervisedTrainer):
        """A method with one number beside its network."""

        def trained_outside(self):
            made = super().trained_outside()
            made["scale"] = torch.nn.Linear(1, 1, bias=False)
            return made

        def compute_losses(self, labeled, unlabeled):
            terms = self.labeled_terms(labeled)
            scale = self._outside["scale"].weight.squeeze()
            yield {"supervised": terms["supervised"], "scale": (scale - 3).square()}

    for name in ("sgd", "adamw"):
        trainer = build(Scaled, optimizer_name=name)
        before = trainer._outside["scale"].weight.item()
        step(trainer)
        after = trainer._outside["scale"].weight.item()
        assert abs(after - 3) < abs(before - 3)
        file = save(trainer)
        again = build(Scaled, continues=True)
        again.load_checkpoint(file)
        assert again._outside["scale"].weight.item() == after
