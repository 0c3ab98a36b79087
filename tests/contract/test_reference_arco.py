"""ARCO's terms from its equations: voxel by voxel, cell by cell, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from nnunet_semisup.data.views import strong_view
from nnunet_semisup.networks import class_contrast
from nnunet_semisup.trainers import nnUNetTrainerARCO
from nnunet_semisup.training.batches import Unlabeled
from tests.contract.steps import KINDS, chances, full, ready, terms_of
from tests.contract.test_device import Copies, Waits

THRESHOLD = 0.45
"""Divides the voxels of an untrained network."""


def prepared(build, monkeypatch, kind, **settings):
    """Return a trainer whose teacher differs from it, its batch, and strong views as they are."""
    trainer, labeled, unlabeled = ready(
        build, nnUNetTrainerARCO, kind, unlabeled_batch_size=3, **settings
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in trainer.teacher.module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 0.1 * parameter.data.abs().mean() * noise
    strong = strong_view(unlabeled.image)
    monkeypatch.setattr(Unlabeled, "strong_view", lambda _: strong)
    return trainer, labeled, unlabeled, strong


def passes(trainer, image, strong=None):
    """Return logits and representations: the teacher's, or the student's of its own view."""
    with torch.no_grad():
        if strong is None:
            seen = trainer.teacher.module(image, predicted=False)
        else:
            seen = trainer.training_network(strong)
    return full(seen.logits), [part.double() for part in seen.parts]


def members(values, regions):
    """Return the classes of a voxel by its class number, or by 0/1 for regions."""
    if not regions:
        return {int(values[0])}
    return {number + 1 for number, value in enumerate(values) if value > 0} or {0}


def coarse(maps, spatial):
    """Return the voxel that stands for each of a coarser map: the middle one, rounded up."""
    step = maps.shape[-1] // spatial[-1]
    return maps[(..., *[slice(step // 2, None, step)] * len(spatial))]


def class_sets(target, known, regions, spatial):
    """Return the set of classes of each voxel of the batch, in raster order; empty if unknown."""
    target, known = (coarse(maps, spatial).movedim(1, -1) for maps in (target, known))
    rows = zip(target.flatten(0, -2).tolist(), known.flatten(0, -2).tolist(), strict=True)
    return [members(row, regions) if all(there) else set() for row, there in rows]


def rows_of(maps):
    return maps.movedim(1, -1).flatten(0, -2)


def cosines(one, other):
    return (
        torch.nn.functional.normalize(one, dim=-1) @ torch.nn.functional.normalize(other, dim=-1).T
    )


def cells(maps, valid):
    """Return mean and valid share of each of the 4 cells along each axis, in raster order."""
    edge = maps.shape[-1] // 4
    step = valid.shape[-1] // maps.shape[-1]
    rows, weights = [], []
    for item in range(len(maps)):
        for at in itertools.product(range(4), repeat=maps.ndim - 2):
            total, share = 0.0, 0.0
            for inner in itertools.product(range(edge), repeat=len(at)):
                place = tuple(a * edge + i for a, i in zip(at, inner, strict=True))
                box = tuple(slice(p * step, (p + 1) * step) for p in place)
                of_voxel = float(valid[(item, 0, *box)].double().mean())
                total = total + of_voxel * maps[(item, slice(None), *place)]
                share += of_voxel
            rows.append(total / max(share, 1e-9))
            weights.append(share / edge ** len(at))
    return torch.stack(rows), torch.tensor(weights, dtype=torch.float64)


def whole(maps, valid):
    """Return the mean over the valid part of each patch, and how much of it that is."""
    grid = maps.shape[2:]
    step = valid.shape[-1] // grid[-1]
    share = torch.zeros(len(maps), *grid, dtype=torch.float64)
    for place in itertools.product(*[range(n) for n in grid]):
        box = tuple(slice(p * step, (p + 1) * step) for p in place)
        share[(slice(None), *place)] = valid[(slice(None), 0, *box)].double().flatten(1).mean(1)
    total = share.flatten(1).sum(1)
    rows = (maps * share[:, None]).flatten(2).sum(2) / total[:, None]
    return rows, total / share[0].numel()


def contrast(maps, sets, draw, means, negatives):
    """Return E.2 of one stream: a mean over classes with voxels, each a mean over its anchors."""
    candidates, places, _ = draw
    losses = []
    rows = rows_of(maps)
    for number in range(len(means)):
        inside = [number in found for found in sets]
        assert candidates.transpose(0, 1).flatten(1)[number].tolist() == inside
        if not any(inside):
            continue
        assert all(inside[place] for place in places[number].tolist())
        anchors = rows[places[number]]
        own = (cosines(anchors, means[number][None])[:, 0] / 0.5).exp()
        others = (cosines(anchors, negatives[number]) / 0.5).exp().sum(1)
        losses.append(-(own / (own + others)).log().mean())
    return float(torch.stack(losses).mean())


def surprise(logits, target, regions):
    """Return ``-log p`` of the target, one a class group."""
    said = chances(logits, regions)
    wanted = (target if regions else target[:, :1]).long()[:, :, None]
    return -said.gather(2, wanted)[:, :, 0].log()


@pytest.mark.parametrize(("kind", "sampling"), zip(KINDS, ("sg", "sag"), strict=True))
def test_terms_of_the_second_part(build, kind, sampling, monkeypatch):
    trainer, labeled, unlabeled, strong = prepared(
        build, monkeypatch, kind, confidence_threshold=THRESHOLD, sampling=sampling
    )
    regions, draws = trainer.regions, []
    draw = class_contrast.draw_stratified

    def recorded(candidates, *rest):
        draws.append((candidates, *draw(candidates, *rest)))
        return draws[-1][1:]

    monkeypatch.setattr(class_contrast, "draw_stratified", recorded)
    list(trainer.compute_losses(labeled, unlabeled))  # Fills the memories.
    first, *_ = draws
    draws.clear()
    terms = terms_of(trainer, labeled, unlabeled)
    learned, of_labeled, of_unlabeled = draws

    _, (given, _) = passes(trainer, labeled.image)
    taught_logits, (taught, _) = passes(trainer, unlabeled.image)
    spatial = taught.shape[2:]
    target = labeled.target[0]
    known = torch.ones_like(target).bool() if regions else target != 3
    said = chances(taught_logits, regions)
    sure = (said.amax(2) >= THRESHOLD) & unlabeled.valid
    assert 0.05 < sure.double().mean() < 0.95
    label = said.argmax(2)
    sets = class_sets(target, known, regions, spatial), class_sets(label, sure, regions, spatial)
    everywhere = sets[0] + sets[1]
    rows = rows_of(torch.cat([given, taught]))
    classes = trainer.planned_network.output_channels + regions
    means, negatives = [], []
    for number in range(classes):
        inside = torch.tensor([number in found for found in everywhere])
        means.append(rows[inside].mean(0))
        of_class = []
        for _, places, there in (learned, first):
            for place in places[number][there[number]].tolist():
                assert everywhere[place]
                assert number not in everywhere[place]
                of_class.append(rows[place])
        assert len(of_class) == 2 * 512
        negatives.append(torch.stack(of_class))

    _, (voxels, _) = passes(trainer, None, labeled.image)
    expected = {
        "supervised": trainer.loss(
            trainer.training_network(labeled.image).logits, labeled.target
        ).detach(),
        "contrast_labeled": 0.01 * 2 / 5 * contrast(voxels, sets[0], of_labeled, means, negatives),
    }
    logits, (voxels, _) = passes(trainer, None, strong)
    distance = contrast(voxels, sets[1], of_unlabeled, means, negatives)
    expected["contrast_unlabeled"] = 0.01 * 3 / 5 * distance
    losses, total = surprise(logits, label, regions), 0.0
    for item, group in itertools.product(range(len(losses)), range(losses.shape[1])):
        valid = unlabeled.valid[item, 0]
        share = float(sure[item, group].sum() / valid.sum())
        total += share * float(losses[item, group][valid].sum())
    expected["consistency"] = total / float(unlabeled.valid.sum() * losses.shape[1])
    (mine, weights), (theirs, _) = (cells(maps, unlabeled.valid) for maps in (voxels, taught))
    earlier = theirs[weights > 0]  # Of the same patches, the step before.
    total = 0.0
    for row, reference, weight in zip(mine, theirs, weights, strict=True):
        nearest = cosines(reference[None], earlier)[0].argsort(descending=True)[:5]
        total += float(weight * (2 - 2 * cosines(row[None], earlier[nearest])).mean())
    expected["consistency_neighbours"] = total / float(weights.sum())
    assert terms.pop("_confident") == pytest.approx(float(sure.double().mean()), rel=1e-4)
    assert terms == pytest.approx({n: float(v) for n, v in expected.items()}, rel=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_terms_of_the_first_part(build, kind, monkeypatch):
    trainer, labeled, unlabeled, strong = prepared(build, monkeypatch, kind, pretrain=1.0)
    before = terms_of(trainer, labeled, unlabeled)
    assert set(before) == {"supervised", "consistency_cells", "consistency_patches"}
    assert before["consistency_cells"] == before["consistency_patches"] == 0
    terms = terms_of(trainer, labeled, unlabeled)
    assert terms["supervised"] == before["supervised"]
    _, student = passes(trainer, None, strong)
    _, teacher = passes(trainer, unlabeled.image)
    for name, pool, mine, theirs in zip(
        ("cells", "patches"), (cells, whole), student, teacher, strict=True
    ):
        mine, weights = pool(mine, unlabeled.valid)
        theirs, _ = pool(theirs, unlabeled.valid)
        earlier, total = theirs[weights > 0], 0.0
        for row, reference, weight in zip(mine, theirs, weights, strict=True):
            asked = (cosines(row[None], earlier)[0] / 0.1).softmax(0)
            taught = (cosines(reference[None], earlier)[0] / 0.01).softmax(0)
            total += float(weight * (taught * (taught.log() - asked.log())).nansum())
        expected = total / float(weights.sum())
        assert not math.isclose(expected, 0, abs_tol=1e-6)
        assert terms[f"consistency_{name}"] == pytest.approx(expected, rel=1e-3)


def test_parts_of_the_training_follow_each_other(build):
    trainer = build(nnUNetTrainerARCO, "labels2d", num_epochs=10, pretrain=0.5)
    batch = trainer.to_device(next(trainer.dataloader_train))
    for epoch, second in ((0, False), (4, False), (5, True)):
        trainer.current_epoch = epoch
        _, terms = trainer.compute_losses(*batch)
        assert ("contrast_unlabeled" in terms) == second
        assert ("consistency_patches" in terms) == (not second)


def test_a_step_of_the_first_part_trains_teacher_and_student_without_waiting(build):
    trainer = build(nnUNetTrainerARCO, "labels2d", pretrain=1.0)
    trainer.train_step(next(trainer.dataloader_train))
    batch = next(trainer.dataloader_train)
    before = [p.detach().clone() for p in trainer.teacher.module.of_whole.parameters()]
    waits = Waits([trainer.teacher.n_averaged])
    with waits, Copies(waits):
        trainer.train_step(batch)
    assert waits.places == []
    moved = trainer.teacher.module.of_whole.parameters()
    assert all(not torch.equal(*pair) for pair in zip(before, moved, strict=True))


@pytest.mark.parametrize("only", ["labeled", "nowhere"])
def test_a_class_that_is_nowhere_leaves_every_term_finite(build, only):
    """The released code counts classes that are there and then indexes all classes."""
    trainer = build(nnUNetTrainerARCO, "labels2d", confidence_threshold=1.0)
    labeled, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    for target in labeled.target:
        target[target == 1] = 0
        if only == "nowhere":
            target[target == 2] = 0
    terms = terms_of(trainer, labeled, unlabeled)
    assert all(math.isfinite(value) for value in terms.values())
    assert (terms["contrast_labeled"] > 0) == (only == "labeled")
    assert terms["contrast_unlabeled"] == 0
