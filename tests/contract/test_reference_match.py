"""MATCH's terms from its equations: pixels added one by one, a linear program, links followed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from scipy.optimize import linprog

from nnunet_semisup.errors import UserError
from nnunet_semisup.losses import structures as losses
from nnunet_semisup.registry import find_method
from nnunet_semisup.topology import structures
from nnunet_semisup.trainers import nnUNetTrainerMATCH
from tests.contract.conftest import kinds_of
from tests.contract.steps import chances, full, ready, terms_of

METHOD = find_method("nnUNetTrainerMATCH")
EDGE = 12
FINE = 2**24
"""Steps of a probability in which no two pixels are alike; among such, any may be named."""


def structures_of(p):
    """Return (birth, death, persistence, mask) of each structure, pixels as pairs, by union."""
    shape, owner, found = p.shape, {}, []
    places = sorted(np.ndindex(*shape), key=lambda place: -p[place])
    for y, x in places:
        met = {owner[n] for n in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)) if n in owner}
        peak = max(met, key=lambda place: p[place], default=(y, x))
        for other in met - {peak}:
            found.append((other, (y, x)))
            owner = {place: peak if one == other else one for place, one in owner.items()}
        owner[y, x] = peak
    found.append((owner[places[0]], min(np.ndindex(*shape), key=lambda place: p[place])))
    result = []
    for birth, death in found:
        if p[birth] > p[death]:
            parts = label(p > max(p[death], p[birth] // 2))[0]
            result.append((birth, death, int(p[birth] - p[death]), parts == parts[birth]))
    return result


def matches(one, other):
    """Return pairs of numbers: the vertex of the assignment polytope with the greatest score."""
    if not one or not other:
        return []
    greatest = [max(s[2] for s in side) for side in (one, other)]
    size = one[0][3].shape
    score = np.zeros((len(one), len(other)))
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            overlap = (a[3] & b[3]).sum() / (a[3] | b[3]).sum()
            apart = np.hypot(a[0][0] - b[0][0], a[0][1] - b[0][1])
            near = 1 - apart / np.hypot(size[0] - 1, size[1] - 1)
            score[i, j] = a[2] / greatest[0] * b[2] / greatest[1] * overlap * near
    rows = np.kron(np.eye(len(one)), np.ones(len(other)))
    columns = np.kron(np.ones(len(one)), np.eye(len(other)))
    sums = np.concatenate((rows, columns))
    chosen = linprog(-score.ravel(), A_ub=sums, b_ub=np.ones(len(sums)), method="highs-ds").x
    taken = (chosen.reshape(score.shape) > 0.5) & (score > 0)
    return list(zip(*np.nonzero(taken), strict=True))


def topological(maps, least, carriers):
    """Return the loss of facets ``(F, C, h, w)``."""
    losses = []
    for p in maps.unbind(1):
        facets = [structures_of((one * FINE).round().long().numpy()) for one in p]
        links = {}
        for t in range(len(facets) - 1):
            for i, j in matches(facets[t], facets[t + 1]):
                links.setdefault((t, i), set()).add((t + 1, j))
                links.setdefault((t + 1, j), set()).add((t, i))
        costs = []
        for t in carriers:
            for i, (birth, death, *_) in enumerate(facets[t]):
                reached = {(t, i)}
                while more := {n for node in reached for n in links.get(node, ())} - reached:
                    reached |= more
                b, d = p[(t, *birth)], p[(t, *death)]
                found_again = len(reached) >= least
                costs.append((1 - b) ** 2 + d**2 if found_again else (b - d) ** 2)
        losses.append(float(sum(costs) / len(costs)) if costs else 0.0)
    return sum(losses) / len(losses)


def middle(logits, valid, regions):
    """Return float64 probabilities of the foreground in the middle of a patch of 16."""
    probs = chances(full(logits), regions)
    probs = probs[:, :, 1] if regions else probs[:, 0, 1:]
    return (probs * valid)[:, :, 2:14, 2:14]


@pytest.mark.parametrize("kind", kinds_of(METHOD))
def test_terms(build, kind, monkeypatch):
    settings = {"unlabeled_weight": 0.5, "intra_weight": 0.3, "rampup_length": 0.0}
    settings |= {"match_crop": EDGE, "snapshot_interval": 1}
    trainer, labeled, unlabeled = ready(build, METHOD, kind, **settings)
    for epoch in range(1, 4):
        trainer.current_epoch = epoch
        trainer.train_step(next(trainer.dataloader_train))
    passes, student_pass = {}, trainer.student_pass

    def recorded(image, name, *rest):
        result = student_pass(image, name, *rest)
        passes[name] = image, result.logits
        return result

    monkeypatch.setattr(trainer, "student_pass", recorded)
    monkeypatch.setattr(structures, "STEPS", FINE)
    monkeypatch.setattr(losses, "levels_on_host", lambda p: (p * FINE).round().long().numpy())
    terms = terms_of(trainer, labeled, unlabeled)

    valid = unlabeled.valid
    target = chances(full(trainer.teacher.module(unlabeled.image)), trainer.regions)
    student = chances(full(passes["unlabeled"][1]), trainer.regions)
    square = (target - student).square()
    square = square[:, :, 1] if trainer.regions else square[:, 0]
    expected = 0.5 * float(square.mean(1, keepdim=True)[valid].mean())
    assert terms["consistency"] == pytest.approx(expected, rel=1e-4)

    image, logits = passes["intra"]
    assert torch.equal(image, unlabeled.image[:1].repeat(4, 1, 1, 1))
    maps = middle(logits, valid[:1], trainer.regions)
    assert not torch.equal(maps[0], maps[1]), "each pass has dropout of its own"
    expected = 0.5 * 0.3 * topological(maps, 3, range(4))
    assert terms["consistency_intra"] == pytest.approx(expected, rel=1e-4)

    image, logits = passes["temporal"]
    assert torch.equal(image, unlabeled.image[:1])
    with torch.no_grad():
        facets = []
        for _, state in trainer.snapshots._taken:
            trainer.snapshots.module.load_state_dict(state)
            facets.append(middle(trainer.snapshots.module(image), valid[:1], trainer.regions))
        trainer.snapshots.module.load_state_dict(trainer.student.state_dict())
        now = middle(trainer.snapshots.module(image), valid[:1], trainer.regions)
    torch.testing.assert_close(now, middle(logits, valid[:1], trainer.regions))  # No dropout.
    maps = torch.cat([*facets, now])
    assert len(maps) == 4
    assert all(not torch.equal(maps[number], maps[3]) for number in range(2))
    expected = 0.5 * 0.1 * topological(maps, 3, [3])
    assert terms["consistency_temporal"] == pytest.approx(expected, rel=1e-4)
    assert terms["_intra_structures"] > 0
    assert trainer.training_network.training


def test_structures_are_compared_after_a_part_of_training_and_now_and_then(build):
    settings = {"num_epochs": 10, "num_iterations_per_epoch": 10, "rampup_length": 0.0}
    trainer = build(METHOD, "labels2d", match_start=0.3, match_every=4, **settings)
    batch = trainer.to_device(next(trainer.dataloader_train))
    compared = []
    for trainer.current_epoch in (2, 3):
        for trainer.iteration in range(10):
            names = [name for terms in trainer.compute_losses(*batch) for name in terms]
            if "consistency_intra" in names:
                assert "consistency_temporal" in names
                compared.append(trainer.step_number)
    assert compared == [32, 36]


@pytest.mark.parametrize("off", ["intra", "temporal"])
def test_each_facet_can_be_switched_off(build, off):
    trainer, *batch = ready(build, METHOD, "labels2d", **{f"{off}_weight": 0.0})
    names = {name for name in terms_of(trainer, *batch) if name.startswith("consistency")}
    assert names == {"consistency", "consistency_intra", "consistency_temporal"} - {
        f"consistency_{off}"
    }


def test_what_cannot_be_trained_is_refused_before_anything_is_written(build, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"consistent_facets=3 of facets=2: .* from 2 to 2"):
        build(METHOD, "labels2d", start=False, facets=2)
    with pytest.raises(UserError, match=r"MATCH trains in 2D, .* 3d_fullres have 3 dimensions"):
        build(nnUNetTrainerMATCH, "labels3d", start=False)
    monkeypatch.setattr(structures, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"nnUNetTrainerMATCH .*gudhi.*: pip install gudhi"):
        build(METHOD, "labels2d", start=False)
    assert not list(tmp_path.glob("results*"))
