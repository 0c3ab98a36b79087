"""Plans with inserts: every trainer trains with them, and nnU-Net predicts from the result."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.architectures.insert import INSERTS, find_insert
from nnunet_semisup.registry import find_method
from tests.contract.conftest import SEMI_SUPERVISED, each_method, fitting
from tests.contract.course import Course
from tests.contract.predicting import contents, make_model, run, stock

COMBINED = ("nnUNetTrainerUAMT", "nnUNetTrainerMCNet", "nnUNetTrainerCPS")
PAIRS = [
    *((name, trainer) for name in INSERTS for trainer in COMBINED),
    ("kmax", "nnUNetTrainerARCO"),
]


@each_method(SEMI_SUPERVISED)
def test_every_trainer_trains_with_nsda(inserted, method):
    kind = fitting(method, "labels3d")
    trainer = inserted("nsda", kind)(method, kind)
    before = [p.detach().clone() for p in trainer.network_that_predicts.parameters()]
    loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
    assert loss.isfinite()
    after = trainer.network_that_predicts.parameters()
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    hooked = [m for m in trainer.training_network.modules() if m._forward_hooks]
    stages = list(trainer.student.encoder.stages)
    assert {id(stage) for stage in stages} <= {id(module) for module in hooked}


@pytest.mark.parametrize(("name", "trainer"), PAIRS)
def test_every_insert_trains_with_a_teacher_decoders_and_networks(inserted, name, trainer):
    kind = "labels3d" if 3 in find_insert(name).dims else "labels2d"
    made = inserted(name, kind)(find_method(trainer), kind)
    assert made.train_step(next(made.dataloader_train))["loss"].isfinite()


@pytest.mark.parametrize("name", INSERTS)
def test_nnunet_predicts_from_plans_with_an_insert(inserted, datasets, tmp_path, name):
    kind = "labels3d" if 3 in find_insert(name).dims else "labels2d"
    method = find_method("nnUNetTrainerPseudoLabel")
    course = Course(inserted(name, kind), method, kind, tmp_path)
    folder, images = make_model(course, datasets(kind).name, tmp_path)
    ours = contents(run(folder, images, tmp_path / "ours"))
    theirs = contents(stock(folder, images, tmp_path / "theirs"))
    assert ours
    assert {k: v for k, v in ours.items() if not k.endswith("_args.json")} == {
        k: v for k, v in theirs.items() if not k.endswith("_args.json")
    }
    assert course.trainer.plans_manager.plans_name == f"nnUNetPlans-{name}"
