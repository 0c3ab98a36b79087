"""LoMix's labeled loss from its equations, alone and in other methods; what a run keeps of it."""

from __future__ import annotations

from functools import partial
from typing import get_args

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semisup.errors import UserError
from nnunet_semisup.losses.lomix import Weights
from nnunet_semisup.registry import find_method
from nnunet_semisup.training.batches import labeled_part
from tests.contract import test_compile, test_device, test_half_precision
from tests.contract.references import lomix_maps
from tests.contract.steps import KINDS, ready, terms_of

LOMIX = find_method("nnUNetTrainerLoMix")
COMBINED = [
    *((name, "fixed") for name in ("UAMT", "CPS", "ABD", "TextSemiSeg", "URPC")),
    *((name, weights) for name in ("BCP", "PseudoLabel") for weights in get_args(Weights)),
]
"""Methods with weights; of learned ones, a method that mixes labels and one that does not."""


def disturb(trainer):
    """Give the mixtures' convolutions other weights than those of the mean."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer._outside["lomix"].convolutions.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=random)


def reference(trainer, outputs, target):
    """Return the loss as the equations have it, of nnU-Net's loss of each map."""
    maps = lomix_maps(outputs, trainer._outside["lomix"].convolutions)
    targets = [target[0], target[1], *[target[0]] * 3]
    pairs = zip(maps, targets, strict=True)
    return sum(weight * trainer.loss.loss(logits, one) for (weight, logits), one in pairs)


def lomix_state(trainer):
    return {name: value.clone() for name, value in trainer._outside["lomix"].state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_reference_step(build, kind):
    """The loss and the step that the optimizer makes, in nnU-Net's own loop."""
    trainer = build(LOMIX, kind)
    disturb(trainer)
    batch = next(trainer.dataloader_train)
    labeled = labeled_part(batch, trainer.device)
    expected = reference(trainer, trainer.network(labeled.image), labeled.target)
    parameters = [*trainer.network.parameters(), *trainer._outside.parameters()]
    gradients = torch.autograd.grad(expected, parameters, allow_unused=True)
    found = trainer.train_step(batch)["loss"]
    assert float(found) == pytest.approx(float(expected.detach()), rel=1e-5)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)
    assert sum(gradient is None for gradient in gradients) == 2, "of the coarsest output"


@pytest.mark.parametrize("name", ["PseudoLabel", "UAMT", "CPS"])
def test_labeled_terms_of_other_methods(build, name):
    """Each member has the loss, by the same convolutions."""
    method = find_method(f"nnUNetTrainer{name}")
    settings = {"labeled_loss": "lomix", **({"dropout": 0.0} if name == "UAMT" else {})}
    trainer, labeled, unlabeled = ready(build, method, "ignore3d", **settings)
    disturb(trainer)
    members = [trainer.student, *getattr(trainer.training_network, "others", ())]
    expected = [reference(trainer, one(labeled.image), labeled.target) for one in members]
    found = terms_of(trainer, labeled, unlabeled)
    terms = [value for term, value in found.items() if term.startswith("supervised")]
    assert terms == pytest.approx([float(one.detach()) for one in expected], rel=1e-5)


@pytest.mark.parametrize(("name", "weights"), COMBINED)
def test_steps_of_other_methods(build, name, weights, tmp_path):
    """Mixtures learn; validation has nnU-Net's loss; a checkpoint brings everything back."""
    settings = {"labeled_loss": "lomix", "lomix_weights": weights}
    trainer = build(find_method(f"nnUNetTrainer{name}"), "labels2d", **settings)
    before = lomix_state(trainer)
    trainer.current_epoch = 1
    batch = next(trainer.dataloader_train)
    assert trainer.train_step(batch)["loss"].isfinite()
    for key, value in lomix_state(trainer).items():
        assert not torch.equal(value, before[key]), key

    file = str(tmp_path / "checkpoint.pth")
    trainer.write_checkpoint(file, 1)
    again = build(find_method(f"nnUNetTrainer{name}"), "labels2d", start=False, **settings)
    again.load_checkpoint(file)
    for key, value in lomix_state(again).items():
        assert torch.equal(value, lomix_state(trainer)[key]), key
    again.on_train_start()
    again.on_train_epoch_start()
    losses = []
    for one in (trainer, again):
        torch.manual_seed(0)
        losses.append(float(one.train_step(batch)["loss"]))
    assert losses[0] == losses[1]

    validation = next(trainer.dataloader_val)
    with trainer.predicting(deep_supervision=True), torch.no_grad():
        loss = trainer.loss(trainer.network(validation["data"]), validation["target"])
        assert trainer.validation_step(validation)["loss"] == pytest.approx(float(loss))


@pytest.mark.parametrize("weights", ["fixed", "log"])
def test_a_run_goes_on_from_its_checkpoint_and_nnunet_predicts(build, weights, tmp_path):
    trainer = build(LOMIX, "labels3d", lomix_weights=weights)
    batch = next(trainer.dataloader_train)
    trainer.train_step(batch)
    file = str(tmp_path / "checkpoint_latest.pth")
    trainer.save_checkpoint(file)
    again = build(LOMIX, "labels3d", start=False, lomix_weights=weights)
    again.load_checkpoint(file)
    again.on_train_start()
    again.on_train_epoch_start()
    trainer.current_epoch = again.current_epoch
    trainer.on_train_epoch_start()
    assert trainer.train_step(batch)["loss"] == again.train_step(batch)["loss"]
    for key, value in lomix_state(trainer).items():
        assert torch.equal(lomix_state(again)[key], value), key

    checkpoint = torch.load(file, weights_only=False)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    arguments = trainer.configuration_manager, trainer.num_input_channels
    heads = trainer.label_manager.num_segmentation_heads
    stock = nnUNetTrainer.build_network_architecture(trainer.plans_manager, *arguments, heads)
    stock.load_state_dict(checkpoint["network_weights"])


def test_a_checkpoint_of_another_trainer_is_refused(build, tmp_path):
    other = build(find_method("nnUNetTrainerSupervised"), "labels3d")
    file = str(tmp_path / "checkpoint.pth")
    other.save_checkpoint(file)
    trainer = build(LOMIX, "labels3d", start=False)
    with pytest.raises(UserError, match="written by nnUNetTrainerSupervised"):
        trainer.load_checkpoint(file)


@pytest.fixture
def build_mixing(build):
    """The builder of trainers, with LoMix's loss and learned weights."""
    return partial(build, labeled_loss="lomix", lomix_weights="log")


def test_under_torch_compile(build_mixing):
    method = find_method("nnUNetTrainerPseudoLabel")
    test_compile.test_steps_under_torch_compile(build_mixing, method)


def test_in_float16(build_mixing, monkeypatch):
    method = find_method("nnUNetTrainerBCP")
    test_half_precision.test_a_step_in_float16(build_mixing, method, monkeypatch)


@pytest.mark.parametrize(("name", "kind"), [("PseudoLabel", "labels3d"), ("BCP", "regions2d")])
def test_a_step_does_not_wait_for_the_device(build_mixing, name, kind, monkeypatch):
    method = find_method(f"nnUNetTrainer{name}")
    test_device.test_a_step_does_not_wait(build_mixing, method, kind, monkeypatch)
