"""Trainers written outside of this package, as a user would."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch import nn

from nnunet_semisup.trainers import Labeled, SemiSupervisedTrainer, TeacherTrainer, Unlabeled
from nnunet_semisup.training.checkpoint import KEY
from nnunet_semisup.training.kinds import declared
from tests.project import ROOT


class OwnLoss(SemiSupervisedTrainer):
    """The plan's network, entropy minimisation on the unlabeled patches."""

    def compute_losses(self, labeled: Labeled, unlabeled: Unlabeled):
        yield {"supervised": self.supervised_loss(self.network(labeled.image), labeled.target)}
        logits = self.full_resolution(self.network(unlabeled.image))
        yield {"entropy": -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()}


class OwnTeacher(TeacherTrainer):
    """The same with a teacher, which predicts."""

    compute_losses = OwnLoss.compute_losses


class OwnNetwork(OwnLoss):
    """The same with dropout before the output layer, whose weights have other names then."""

    @classmethod
    def extend_network(cls, network, plan):
        network = super().extend_network(network, plan)
        layers = network.decoder.seg_layers
        layers[-1] = nn.Sequential(nn.Dropout3d(), layers[-1])
        return network


class VariantOfOwnNetwork(OwnNetwork):
    """A variant of a method with its own network."""

    unlabeled_weight: float = 0.5


class NetworkAsInStock(OwnLoss):
    """The same network by the function that trainers for nnU-Net override."""

    @staticmethod
    def build_network_architecture(
        plans_manager,
        configuration_manager,
        num_input_channels,
        num_output_channels,
        enable_deep_supervision=True,
    ):
        network = nnUNetTrainer.build_network_architecture(
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )
        layers = network.decoder.seg_layers
        layers[-1] = nn.Sequential(nn.Dropout3d(), layers[-1])
        return network


PREDICTS_AS = {
    OwnLoss: "nnUNetTrainer",
    OwnTeacher: "nnUNetTrainer",
    OwnNetwork: "OwnNetwork",
    VariantOfOwnNetwork: "VariantOfOwnNetwork",
    NetworkAsInStock: "NetworkAsInStock",
}
own = pytest.mark.parametrize("cls", PREDICTS_AS, ids=lambda cls: cls.__name__)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's folder of trainers."""
    made = tmp_path / "my_trainers"
    made.mkdir()
    monkeypatch.setenv("nnUNet_extTrainer", str(made))
    return made


@own
def test_a_checkpoint_names_the_trainer_that_builds_its_network(build, tmp_path, cls):
    trainer = build(cls, "labels3d")
    file = tmp_path / "checkpoint.pth"
    trainer.save_checkpoint(str(file))
    checkpoint = torch.load(file, weights_only=False)
    assert checkpoint["trainer_name"] == PREDICTS_AS[cls]
    assert checkpoint[KEY]["trainer"] == cls.__name__


@own
def test_nnunet_predicts_from_its_checkpoint(build, folder, cls):
    (folder / "own.py").write_text(f"from {__name__} import {cls.__name__}\n")
    trainer = build(cls, "labels3d")
    trainer.train_step(next(trainer.dataloader_train))
    results = Path(trainer.output_folder)
    trainer.save_checkpoint(str(results / "checkpoint_final.pth"))
    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu")
    )
    predictor.initialize_from_trained_model_folder(str(results.parent), (0,))
    image = next(trainer.dataloader_val)["data"][:1]
    predictor.network.eval()
    trainer.network.eval()
    with torch.no_grad(), trainer.predicting(deep_supervision=False):
        assert torch.equal(predictor.network(image), trainer.network(image))


@pytest.fixture
def documented(folder):
    """The class of the page about own methods, found as ``nnUNetv2_train`` finds it."""
    page = (ROOT / "docs" / "own_method.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (name,) = re.findall(r"nnUNetv2_train .* -tr (\w+)", page)
    assert 10 <= len(block.splitlines()) <= 20
    (folder / "mine.py").write_text(block, encoding="utf-8")
    return recursive_find_trainer_class_by_name(name)


@pytest.mark.parametrize("kind", ["labels3d", "regions2d"])
def test_the_documented_method_trains(build, documented, kind):
    trainer = build(documented, kind, confidence_threshold=0.0)
    assert trainer.confidence_threshold == 0.0
    before = [p.detach().clone() for p in trainer.student.parameters()]
    batch = next(trainer.dataloader_train)
    unlabeled = list(trainer.compute_losses(*trainer.to_device(batch)))[1]
    unlabeled["consistency"].backward()
    assert any(p.grad is not None and p.grad.any() for p in trainer.student.encoder.parameters())
    assert torch.isfinite(trainer.train_step(batch)["loss"])
    assert any(
        not torch.equal(p, q) for p, q in zip(trainer.student.parameters(), before, strict=True)
    )


OF_ONES_OWN = """
from __future__ import annotations

from typing import ClassVar, Optional

import torch
from torch import Tensor

from nnunet_semisup.trainers import {base}

Kind = int

class {name}({base}):
    flag: ClassVar[bool] = False
    steps: Kind = 5
    rate: Optional[float] = None
    num_epochs: int = 7
    initial_lr: float = 0.002
    weight_decay = 1e-4

    queue: Tensor | None = None

    @torch.no_grad()
    def method(self):
        return None

    def configure_optimizers(self):
        network = getattr(self, "training_network", self.network)
        self.seen = list(getattr(self, "student", network).parameters())
        return super().configure_optimizers()
"""


@pytest.mark.parametrize("base", ["SemiSupervisedTrainer", "nnUNetTrainerSupervised"])
def test_attributes_are_read_as_they_are_written(build, folder, monkeypatch, base):
    """nnU-Net's own among them, and with annotations that are not evaluated."""
    name = f"OfOnesOwn{base}"
    (folder / "written.py").write_text(OF_ONES_OWN.format(base=base, name=name), encoding="utf-8")
    cls = recursive_find_trainer_class_by_name(name)
    assert "written" not in sys.modules
    assert declared(cls)["steps"] is int
    assert "flag" not in declared(cls)
    trainer = build(cls, "labels3d", start=False)
    assert (trainer.num_epochs, trainer.initial_lr, trainer.weight_decay) == (2, 0.002, 1e-4)
    monkeypatch.setenv("nnUNet_semisup_set", "steps=9,rate=0.5,weight_decay=0.1")
    plans = {**trainer.plans_manager.plans, "continue_training": False}
    again = cls(plans, "3d_fullres", 0, trainer.dataset_json, torch.device("cpu"))
    assert (again.num_epochs, again.steps, again.rate, again.weight_decay) == (7, 9, 0.5, 0.1)
    trainer.initialize()
    assert {id(p) for p in trainer.seen} == {id(p) for p in trainer.network.parameters()}
