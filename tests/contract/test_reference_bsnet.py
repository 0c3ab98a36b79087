"""BS-Net's terms and averages from its reconstruction's equations."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from nnunet_semisup.trainers import nnUNetTrainerBSNet
from tests.contract.steps import KINDS, chances, full, ready, terms_of


def judgement(trainer, outputs, valid=None):
    """Return how surprised the discriminator is by where maps come from, convolution by hand."""
    maps = torch.cat([one.sigmoid() if trainer.regions else one.softmax(1) for one in outputs])
    layers = [m for m in trainer._outside["discriminator"] if hasattr(m, "weight")]
    convolve = F.conv2d if maps.ndim == 4 else F.conv3d
    for number, layer in enumerate(layers, 1):
        last = number == len(layers)
        stride = 1 if last else 2
        maps = convolve(maps, layer.weight.double(), layer.bias.double(), stride=stride, padding=1)
        maps = maps if last else torch.maximum(maps, 0.2 * maps)
    if valid is None:
        return float(-maps.sigmoid().log().mean())
    losses = -(1 - maps.sigmoid()).log()
    # Cell k of n along an axis of s voxels is of those from floor(k s / n) to ceil((k + 1) s / n).
    total = weights = 0.0
    for place in torch.cartesian_prod(*[torch.arange(n) for n in losses.shape]).tolist():
        image, _, *cell = place
        box = tuple(
            slice(k * s // n, -(-(k + 1) * s // n))
            for k, n, s in zip(cell, losses.shape[2:], valid.shape[2:], strict=True)
        )
        share = float(valid[image % len(valid), 0][box].double().mean())
        total, weights = total + share * float(losses[tuple(place)]), weights + share
    return total / weights


@pytest.mark.parametrize("kind", KINDS)
def test_terms(build, kind):
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerBSNet, kind, rampup_length=0.0)
    networks = trainer.training_network.networks()
    with torch.no_grad():
        seen = [full(one(labeled.image)) for one in networks]
        outputs = [full(one(unlabeled.image)) for one in networks]
        losses = [trainer.loss(one(labeled.image), labeled.target) for one in networks]
        expected = {
            "supervised_1": losses[0],
            "supervised_2": losses[1],
            "judged_labeled": judgement(trainer, seen),
            "judged_unlabeled": judgement(trainer, outputs, unlabeled.valid),
        }
        for number in range(2):
            own, other = (chances(outputs[i], trainer.regions) for i in (number, 1 - number))
            surprise = -own.gather(2, other.argmax(2, keepdim=True))[:, :, 0].log()
            mean = surprise[unlabeled.valid.expand_as(surprise)].mean()
            expected[f"consistency_{number + 1}"] = 0.1 * mean
    terms = terms_of(trainer, labeled, unlabeled)
    assert terms == pytest.approx({n: float(v) for n, v in expected.items()}, rel=1e-4)


@pytest.mark.parametrize("weight", [0.1, 0.0])
def test_weights_are_averaged_after_the_step(build, monkeypatch, weight):
    trainer = build(nnUNetTrainerBSNet, "labels2d", unlabeled_weight=weight, bilateral_decay=0.75)
    batch = next(trainer.dataloader_train)
    twin = copy.deepcopy(trainer.training_network.networks())

    def kept():
        twin[:] = copy.deepcopy(trainer.training_network.networks())

    monkeypatch.setattr(trainer, "follow", kept)  # Called between the optimizer and the average.
    trainer.train_step(batch)
    before = [list(one.parameters()) for one in twin]
    after = [list(one.parameters()) for one in trainer.training_network.networks()]
    share = 0.75 if weight else 1.0
    for a, b, first, second in zip(*before, *after, strict=True):
        assert torch.allclose(first, share * a + (1 - share) * b, atol=1e-6)
        assert torch.allclose(second, share * b + (1 - share) * a, atol=1e-6)


def test_networks_get_the_reverse_of_what_teaches_the_discriminator(build):
    trainer, labeled, unlabeled = ready(
        build, nnUNetTrainerBSNet, "labels2d", rampup_length=1.0, adversarial_weight=5.0
    )
    weight_now = 0.1 * math.exp(-5 * (1 - trainer.progress) ** 2)
    terms = {}
    for group in trainer.compute_losses(labeled, unlabeled):
        terms |= group
    weight = trainer.student.decoder.seg_layers[-1].weight
    (reverse,) = torch.autograd.grad(terms["judged_unlabeled"], [weight])
    outputs = [one(unlabeled.image)[0].softmax(1) for one in trainer.training_network.networks()]
    maps = torch.cat(outputs)
    valid = torch.cat([unlabeled.valid] * 2)
    maps = torch.where(valid, maps, maps.detach())
    logits = trainer._outside["discriminator"](maps)
    share = F.adaptive_avg_pool2d(valid.float(), logits.shape[2:])
    loss = (F.softplus(logits) * share).sum() / share.sum()
    (straight,) = torch.autograd.grad(loss, [weight])
    assert straight.abs().max() > 0
    assert torch.allclose(reverse, -5 * weight_now * straight, rtol=1e-3, atol=1e-8)
    assert not torch.autograd.grad(
        terms["judged_labeled"], [weight], allow_unused=True, materialize_grads=True
    )[0].any()
