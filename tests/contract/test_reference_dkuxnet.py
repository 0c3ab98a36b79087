"""DKUXNet's terms from its equations, written with softmax and one-hot labels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nnunet_semisup.architectures import kmax
from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.decode import decode, encode
from nnunet_semisup.networks.kmax_decoder import KMaxDecoder
from nnunet_semisup.trainers import nnUNetTrainerDKUXNet
from nnunet_semisup.training import batches
from tests.contract.steps import KINDS, chances, full, ready, terms_of


def strong(image, probability=0.8):
    return 1.2 * image - 0.1


@pytest.fixture(autouse=True)
def known_view(monkeypatch):
    monkeypatch.setattr(batches, "strong_view", strong)


def seen_by(network, image):
    """Return logits and masks ``(B, N, *spatial)`` of a network, in float64."""
    decoded = decode(network.decoder, encode(network, image))
    return full(decoded.logits), [each.detach().double() for each in decoded.masks]


def grouped(masks, sizes):
    """Return the shares of groups of queries by a loop over the queries."""
    shares = masks.softmax(1)
    owner = [group for group, size in enumerate(sizes) for _ in range(size)]
    found = torch.zeros_like(shares[:, : len(sizes)])
    for query, group in enumerate(owner):
        found[:, group] += shares[:, query]
    return found


def group_of(trainer, labeled):
    """Return each voxel's group ``(B, *spatial)``, -1 where it does not count."""
    target = labeled.target[0]
    if trainer.regions:
        result = torch.zeros(target[:, 0].shape, dtype=torch.long)
        for number, region in enumerate(target.movedim(1, 0), 1):
            result[region > 0] = number
        return result
    return torch.where(target == trainer.label_manager.ignore_label, -1, target)[:, 0].long()


def at(values, spatial):
    """Return the voxels that nnU-Net's targets of a lower resolution have."""
    return F.interpolate(values[:, None].float(), tuple(spatial), mode="nearest-exact")[:, 0]


def distance(one, other, valid=None):
    """Return twice the mean squared difference: each view is drawn to the other one."""
    square = (one - other).square().mean(1)
    return 2 * float(square.mean() if valid is None else square[valid].mean())


def expected_terms(trainer, labeled, unlabeled, sizes):
    networks = trainer.training_network.networks()
    first, second = networks if len(networks) == 2 else networks * 2
    both = [seen_by(first, labeled.image), seen_by(second, labeled.weak)]
    group = group_of(trainer, labeled)
    terms = {
        "supervised_1": float(trainer.loss(first(labeled.image), labeled.target)),
        "supervised_2": float(trainer.loss(second(labeled.weak), labeled.target)),
    }
    for number, (_, layers) in enumerate(both, 1):
        means = []
        for masks in layers:
            truth = at(group, masks.shape[2:]).long()
            share = grouped(masks, sizes).gather(1, truth.clamp_min(0)[:, None])[:, 0]
            means.append(-share[truth >= 0].log().mean())
        terms[f"queries_{number}"] = 0.5 * float(torch.stack(means).mean())

    def distances(views, valid=None):
        both = [chances(logits, trainer.regions) for logits, _ in views]
        probs = [one[:, :, 1] if trainer.regions else one[:, 0] for one in both]
        shares = [grouped(layers[-1], sizes) for _, layers in views]
        lower = None if valid is None else at(valid, shares[0].shape[2:]) > 0
        return distance(*probs, valid), distance(*shares, lower)

    half = 0.1 * 0.5  # As many unlabeled patches as labeled ones.
    one, other = distances(both)
    terms |= {"agreement_labeled": half * one, "agreement_labeled_queries": half * other}
    views = [seen_by(first, strong(unlabeled.image)), seen_by(second, unlabeled.image)]
    one, other = distances(views, unlabeled.valid[:, 0])
    return {**terms, "consistency": half * one, "consistency_queries": half * other}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_terms(build, kind, shared):
    trainer, labeled, unlabeled = ready(
        build, nnUNetTrainerDKUXNet, kind, rampup_length=0.0, shared=shared
    )
    assert len(trainer.training_network.networks()) == (1 if shared else 2)
    # Three classes, or two regions and what is outside of them.
    with torch.no_grad():
        expected = expected_terms(trainer, labeled, unlabeled, [16, 8, 8])
    assert terms_of(trainer, labeled, unlabeled) == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_equal_views_agree(build, monkeypatch):
    monkeypatch.setattr(batches, "strong_view", lambda image, probability: image)
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerDKUXNet, "labels2d")
    terms = terms_of(trainer, labeled._replace(weak=labeled.image), unlabeled)
    names = [name for name in terms if name.startswith(("agreement", "consistency"))]
    assert len(names) == 4
    assert all(terms[name] == pytest.approx(0.0, abs=1e-10) for name in names)


def test_the_agreement_draws_each_view_and_passes_no_gradient_to_its_target(build, monkeypatch):
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerDKUXNet, "labels2d", shared=False)
    *_, last = trainer.compute_losses(labeled, unlabeled)
    loss = last["consistency"]
    networks = trainer.training_network.networks()
    weights = [one.decoder.seg_layers[-1].predictor.classes.weight for one in networks]
    found = torch.autograd.grad(loss, weights)
    views = strong(unlabeled.image), unlabeled.image
    scale = 0.5 * trainer.current_unlabeled_weight
    for own, weight in enumerate(weights):
        probs = [full_logits(n, v).softmax(1) for n, v in zip(networks, views, strict=True)]
        square = (probs[own] - probs[1 - own].detach()).square().mean(1, keepdim=True)
        (expected,) = torch.autograd.grad(scale * square[unlabeled.valid].mean(), [weight])
        torch.testing.assert_close(found[own], expected, rtol=1e-3, atol=1e-8)


def full_logits(network, image):
    return network(image)[0]


def test_plans_that_have_the_queries_are_taken_as_they_are(build, monkeypatch):
    trainer = build(nnUNetTrainerDKUXNet, "labels2d", start=False)
    trainer.initialize()
    assert isinstance(trainer.student.decoder, KMaxDecoder)
    monkeypatch.setattr(kmax, "install", lambda *_, **__: pytest.fail("put in twice"))
    plan = trainer.planned_network
    again = nnUNetTrainerDKUXNet.extend_network(trainer.student, plan)
    assert again is trainer.student


def test_plans_that_the_queries_do_not_go_into_are_refused(build, monkeypatch):
    monkeypatch.setattr(kmax, "FEWEST_STAGES", 4)
    with pytest.raises(UserError, match="nnUNetTrainerDKUXNet, 2d: kmax needs a network of 4 sta"):
        build(nnUNetTrainerDKUXNet, "labels2d", start=False)
