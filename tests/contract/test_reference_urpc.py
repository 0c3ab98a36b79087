"""URPC's terms, from its equations, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_semisup.errors import UserError
from nnunet_semisup.trainers import nnUNetTrainerURPC
from tests.contract.steps import KINDS, chances, full, ready, terms_of


@pytest.mark.parametrize("kind", KINDS)
def test_terms(build, kind):
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerURPC, kind, rampup_length=0.0)
    linear = "trilinear" if kind.endswith("3d") else "bilinear"
    outputs = trainer.student(unlabeled.image)
    maps = [
        chances(nn.Upsample(unlabeled.image.shape[2:], mode=linear)(full([one])), trainer.regions)
        for one in outputs
    ]
    assert len(maps) == 2
    mean = sum(maps) / 2
    there = unlabeled.valid.expand(-1, maps[0].shape[1], *unlabeled.image.shape[2:])
    expected = 0.0
    for one in maps:
        divergence = (mean * (mean / one).log()).sum(2)[there]
        square = (mean - one).square().mean(2)[there]
        trust = (-divergence).exp()
        expected += ((square * trust).mean() / (trust.mean() + 1e-8) + divergence.mean()) / 2
    terms = terms_of(trainer, labeled, unlabeled)
    assert terms["consistency"] == pytest.approx(0.1 * float(expected), rel=1e-5)

    outputs = trainer.student(labeled.image)
    weighted = zip((1, 0.5), outputs, labeled.target, strict=True)
    losses = [weight * float(trainer.loss.loss(one, y).detach()) for weight, one, y in weighted]
    assert [terms["supervised"], terms["supervised_lowest"]] == pytest.approx(losses, rel=1e-5)


def test_four_outputs_are_compared_of_which_nnunet_weighs_all(build, monkeypatch):
    """Five outputs, as of a plan with six stages: the lowest is not among those compared."""
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerURPC, "regions2d")
    torch.manual_seed(0)
    outputs = [torch.randn(2, 2, 16 // n, 16 // n, requires_grad=True) for n in (1, 2, 4, 8, 16)]
    seen = trainer.student_pass(labeled.image, "labeled")._replace(logits=outputs)
    assert trainer.lowest_terms(seen, labeled) == {}
    supervised = {"supervised": torch.zeros((), requires_grad=True)}
    monkeypatch.setattr(trainer, "student_pass", lambda *_: seen)
    monkeypatch.setattr(trainer, "supervised_terms", lambda *_: dict(supervised))
    _, last = trainer.compute_losses(labeled, unlabeled)
    last["consistency"].backward()
    assert [one.grad is not None for one in outputs] == [True] * 4 + [False]


def test_without_deep_supervision_is_refused_before_anything_is_written(build, tmp_path):
    with pytest.raises(UserError, match=r"enable_deep_supervision=False .* Leave"):
        build(nnUNetTrainerURPC, "labels2d", start=False, enable_deep_supervision=False)
    assert not list(tmp_path.glob("results*"))
