"""FixMatch's terms, from its equations."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.trainers import nnUNetTrainerFixMatch
from tests.contract.steps import KINDS, chances, full, ready, terms_of


@pytest.mark.parametrize("kind", KINDS)
def test_terms(build, kind):
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerFixMatch, kind, unlabeled_weight=0.5)
    weak = chances(full(trainer.student(unlabeled.image)), trainer.regions)
    best, chosen = weak.max(2)
    there = unlabeled.valid.expand_as(best)
    trainer.confidence_threshold = tau = float(best[there].median())

    torch.manual_seed(0)
    strong = chances(full(trainer.student(unlabeled.strong_view(0.8))), trainer.regions)
    surprise = -strong.gather(2, chosen[:, :, None])[:, :, 0].log()
    used = (best >= tau) & there
    assert 0.4 < used.sum() / there.sum() < 0.6
    expected = 0.5 * surprise[used].sum() / there.sum()

    terms = terms_of(trainer, labeled, unlabeled)
    assert terms["consistency"] == pytest.approx(float(expected), rel=1e-5)
    assert terms["_confident"] == pytest.approx(float(used.double().mean()))
    loss = trainer.loss(trainer.network(labeled.image), labeled.target)
    assert terms["supervised"] == pytest.approx(float(loss.detach()), rel=1e-5)


def test_labels_come_from_a_pass_in_evaluation_mode_without_gradient(build):
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerFixMatch, "regions2d")
    modes = []
    trainer.student.register_forward_hook(
        lambda module, *_: modes.append((module.training, torch.is_grad_enabled()))
    )
    terms_of(trainer, labeled, unlabeled)
    assert modes == [(True, True), (False, False), (True, True)]
    assert all(module.training for module in trainer.network.modules())
    assert trainer.student.decoder.deep_supervision
