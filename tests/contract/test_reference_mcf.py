"""MCF's terms, from its equations, its roles and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

from nnunet_semisup.errors import UserError
from nnunet_semisup.trainers import nnUNetTrainerMCF
from tests.contract.steps import KINDS, chances, dice_loss, full, ready, terms_of, truth_of


def reached(network):
    """Tell whether any parameter of a network has a gradient."""
    gradients = [parameter.grad for parameter in network.parameters()]
    return any(gradient is not None and bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("better", [0, 1])
def test_terms(build, kind, better):
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerMCF, kind, rampup_length=0.0)
    networks = trainer.training_network.networks()
    assert [type(one) for one in networks] == [PlainConvUNet, ResidualEncoderUNet]
    nothing = torch.tensor([-8.0] if trainer.regions else [8.0, 0.0, 0.0])
    for layer in networks[1 - better].decoder.seg_layers:
        layer.weight.data.zero_()  # Hardly any foreground: the worst Dice that there is.
        layer.bias.data.copy_(nothing.expand_as(layer.bias))
    truth, known = truth_of(trainer, labeled)
    probs = [chances(full(one(labeled.image)), trainer.regions) for one in networks]
    assert (dice_loss(probs[1], truth, known) < dice_loss(probs[0], truth, known)) == better
    differ = (probs[0].argmax(2) != probs[1].argmax(2)) & known
    assert 0.05 < differ.double().mean() < 0.98
    squares = [(one - truth).square().mean(2)[differ].mean() for one in probs]
    losses = [trainer.loss(one(labeled.image), labeled.target).detach() for one in networks]
    expected = {
        "supervised_1": losses[0],
        "supervised_2": losses[1],
        "rectified_1": 0.5 * squares[0],
        "rectified_2": 0.5 * squares[1],
        "_second_better": better,
    }
    answers = [chances(full(one(unlabeled.image)), trainer.regions) for one in networks]
    power = answers[better] ** 10
    sharp = power / power.sum(2, keepdim=True)
    square = (answers[1 - better] - sharp).square().mean(2)
    there = unlabeled.valid.expand_as(square)
    expected["consistency"] = 0.1 * square[there].mean()

    terms = terms_of(trainer, labeled, unlabeled)
    assert terms == pytest.approx({n: float(v) for n, v in expected.items()}, rel=1e-4)


@pytest.mark.parametrize("better", [0, 1])
def test_the_worse_network_alone_learns_from_unlabeled_patches(build, monkeypatch, better):
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerMCF, "regions2d")
    monkeypatch.setattr(trainer, "second_is_better", lambda *_: torch.tensor(bool(better)))
    networks = trainer.training_network.networks()
    groups = trainer.compute_losses(labeled, unlabeled)
    first = next(groups)
    sum(term for name, term in first.items() if name[0] != "_").backward()
    assert [reached(one) for one in networks] == [True, True]
    trainer.optimizer.zero_grad(set_to_none=True)
    next(groups)["consistency"].backward()
    assert [reached(one) for one in networks] == [better == 1, better == 0]


def test_plans_with_another_network_are_refused_before_anything_is_written(
    build, datasets, tmp_path
):
    path = datasets("labels2d") / "nnUNetPlans.json"
    before = path.read_text(encoding="utf-8")
    plans = json.loads(before)
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = "somewhere.OtherUNet"
    path.write_text(json.dumps(plans), encoding="utf-8")
    try:
        with pytest.raises(UserError, match=r"somewhere\.OtherUNet, and a partner .* Plan with"):
            build(nnUNetTrainerMCF, "labels2d", start=False)
    finally:
        path.write_text(before, encoding="utf-8")
    assert not list(tmp_path.glob("results*"))
