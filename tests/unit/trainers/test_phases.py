"""Phases of a training that have begun stay begun."""

from __future__ import annotations

import pytest

from nnunet_semisup.trainers import (
    SemiSupervisedTrainer,
    nnUNetTrainerBCP,
    nnUNetTrainerTextSemiSeg,
)
from tests.unit.trainers.shared import save, step

PHASED = {
    nnUNetTrainerBCP: ({"largest_component": False}, "mixed_out"),
    nnUNetTrainerTextSemiSeg: ({"text_model": "none"}, "mixed"),
}


def at(trainer, epoch):
    trainer.current_epoch, trainer.iteration = epoch, 0
    trainer.on_train_epoch_start()
    return trainer


@pytest.mark.parametrize("cls", PHASED, ids=lambda cls: cls.__name__)
def test_a_run_that_gets_more_epochs_keeps_its_phase(build, cls):
    """Three of ten epochs are past a fifth of the training, three of a hundred are not."""
    settings, term = PHASED[cls]
    settings = {**settings, "mix_start": 0.2}
    trainer = build(cls, **settings)
    assert term not in step(at(trainer, 1))
    assert term in step(at(trainer, 2))
    file = save(at(trainer, 3))

    again = build(cls, continues=True, num_epochs=100)
    again.load_checkpoint(file)
    assert again.num_epochs == 100
    assert again.progress == 0.03
    assert term in step(again)

    fresh = build(cls, num_epochs=100, **settings)
    assert term not in step(at(fresh, 3))


@pytest.mark.parametrize("cls", PHASED, ids=lambda cls: cls.__name__)
def test_a_phase_that_has_not_begun_moves_with_the_end(build, cls):
    settings, term = PHASED[cls]
    trainer = build(cls, mix_start=0.2, **settings)
    step(at(trainer, 1))
    file = save(trainer)
    again = build(cls, continues=True, num_epochs=100)
    again.load_checkpoint(file)
    assert term not in step(at(again, 3))
    assert term in step(at(again, 20))


def test_each_fraction_is_remembered_by_itself(build):
    trainer = build(SemiSupervisedTrainer)
    trainer.current_epoch = 5
    assert trainer.passed(0.5)
    assert trainer.passed(0.0)
    assert not trainer.passed(0.6)
    trainer.num_epochs = 100
    assert trainer.passed(0.5)
    assert not trainer.passed(0.4), "never asked for while it was so"
    assert not trainer.passed(0.6)
