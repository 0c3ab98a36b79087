"""ABD's terms from its equations: cells cut out by slices, losses from logarithms and sums."""

from __future__ import annotations

import itertools

import pytest
import torch

from nnunet_semisup.data.views import strong_view
from nnunet_semisup.registry import find_method
from nnunet_semisup.training.batches import Unlabeled

METHOD = find_method("nnUNetTrainerABD")


def networks_of(trainer):
    return [trainer.training_network.predictor, trainer.training_network.others[0]]


def levels_of(network, image):
    """Return the logits of each resolution."""
    with torch.no_grad():
        logits = network(image)
    return logits if isinstance(logits, list) else [logits]


def probabilities(logits, regions):
    return logits.sigmoid() if regions else logits.softmax(1)


def hard(logits, regions):
    return (logits > 0).float() if regions else logits.argmax(1, keepdim=True)


def indicators(label, classes, regions):
    """Return a channel of 0/1 for each class or region."""
    return label if regions else torch.cat([label == number for number in range(classes)], 1)


def dice(probs, target, known):
    """Return 1 - Dice of each channel over the known voxels of the batch, averaged."""
    losses = []
    for p, t, k in zip(probs.unbind(1), target.unbind(1), known.unbind(1), strict=True):
        p, t = p[k], t[k].float()
        losses.append(1 - (2 * (p * t).sum() + 1e-5) / (p.sum() + t.sum() + 1e-5))
    return torch.stack(losses).mean()


def segmentation_loss(logits, label, known, regions):
    """Return cross entropy plus Dice of the foreground."""
    probs = probabilities(logits, regions)
    target = indicators(label, logits.shape[1], regions)
    wide = known.expand_as(probs)
    if regions:
        entropy = -(target * probs.log() + (1 - target) * (1 - probs).log())[wide].mean()
        return entropy + dice(probs, target, wide)
    entropy = -(target * probs.log()).sum(1, keepdim=True)[known].mean()
    return entropy + dice(probs[:, 1:], target[:, 1:], wide[:, 1:])


def cells(spatial):
    """Return the slices of four cells along each axis."""
    starts = [[(n * s // 4, (n + 1) * s // 4) for n in range(4)] for s in spatial]
    return [tuple(slice(*edge) for edge in place) for place in itertools.product(*starts)]


def surety(logits, regions, cell):
    """Return the mean confidence of an image in a cell."""
    probs = probabilities(logits[None], regions)[0][(slice(None), *cell)]
    best = torch.maximum(probs, 1 - probs) if regions else probs.amax(0)
    return float(best.mean())


def mean_of(logits, regions, cell):
    """Return the mean distribution of an image in a cell."""
    mean = probabilities(logits[None], regions)[0][(slice(None), *cell)].flatten(1).mean(1)
    return torch.cat([mean, 1 - mean]) if regions else mean


def pasted(own, other, to, source):
    result = own.clone()
    result[(slice(None), *to)] = other[(slice(None), *source)]
    return result


def cross_dice(trainer, image, known):
    """Return both networks' Dice losses with each other's labels on an image."""
    regions = trainer.regions
    outputs = [levels_of(network, image)[0] for network in networks_of(trainer)]
    return agreement(outputs, known, regions)


def agreement(outputs, known, regions):
    losses = []
    for own, other in ((0, 1), (1, 0)):
        target = indicators(hard(outputs[other], regions), outputs[own].shape[1], regions)
        probs = probabilities(outputs[own], regions)
        losses.append(dice(probs, target, known.expand_as(probs)))
    return sum(losses)


def known_label(trainer, target):
    """Return the label at full resolution and where it is known, ``(B, 1, *spatial)``."""
    full = target[0] if isinstance(target, list) else target
    if trainer.regions:
        return full.float(), torch.ones_like(full[:, :1], dtype=torch.bool)
    known = full != 3
    return torch.where(known, full, 0).long(), known


def expected_labeled(trainer, labeled):
    """Return the terms of labeled images with moved cells."""
    views, regions = (labeled.image, labeled.weak), trainer.regions
    label, known = known_label(trainer, labeled.target)
    outputs = [levels_of(*pair)[0] for pair in zip(networks_of(trainer), views, strict=True)]
    grid, terms = cells(label.shape[2:]), []
    for own, other in ((0, 1), (1, 0)):
        moved = []
        for image in range(len(label)):
            to = max(grid, key=lambda c: surety(outputs[own][image], regions, c))
            source = min(grid, key=lambda c: surety(outputs[other][image], regions, c))
            moved.append(
                [
                    pasted(a[image], b[image], to, source)
                    for a, b in ((views[own], views[other]), (label, label), (known, known))
                ]
            )
        image, target, there = (torch.stack(part) for part in zip(*moved, strict=True))
        total = 0.0
        for network in networks_of(trainer):
            levels = levels_of(network, image)
            for weight, logits in zip(trainer.deep_supervision_weights, levels, strict=True):
                if weight > 0:
                    step = target.shape[-1] // logits.shape[-1]
                    # The middle one of an even number of voxels, as nearest-exact rounds.
                    pick = (..., *[slice(step // 2, None, step)] * (image.ndim - 2))
                    loss = segmentation_loss(logits, target[pick], there[pick], regions)
                    total = total + weight * loss
        terms.append(total)
    return terms


def expected_unlabeled(trainer, views, valid):
    """Return the terms of unlabeled images, as they are and with moved cells."""
    regions = trainer.regions
    outputs = [levels_of(*pair)[0] for pair in zip(networks_of(trainer), views, strict=True)]
    grid, terms = cells(valid.shape[2:]), [agreement(outputs, valid, regions)]
    for own, other in ((0, 1), (1, 0)):
        moved = []
        for image in range(len(valid)):
            mine, theirs = outputs[own][image], outputs[other][image]
            to = min(grid, key=lambda c, mine=mine: surety(mine, regions, c))
            sure = sorted(grid, key=lambda c, theirs=theirs: -surety(theirs, regions, c))[:4]
            mean = mean_of(mine, regions, to)
            source = min(
                sure,
                key=lambda c, mean=mean, theirs=theirs: float(
                    (mean * (mean / mean_of(theirs, regions, c)).log()).sum()
                ),
            )
            moved.append(
                [
                    pasted(a[image], b[image], to, source)
                    for a, b in ((views[own], views[other]), (valid, valid))
                ]
            )
        image, there = (torch.stack(part) for part in zip(*moved, strict=True))
        terms.append(0.5 * cross_dice(trainer, image, there))
    return terms


@pytest.mark.parametrize("kind", ["ignore3d", "regions2d"])
def test_terms(build, kind, monkeypatch):
    trainer = build(
        METHOD, kind, rampup_length=0, unlabeled_batch_size=3, displaced_probability=1.0
    )
    labeled, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    unlabeled.valid[:, :, :5] = False
    strong = strong_view(unlabeled.image)
    monkeypatch.setattr(Unlabeled, "strong_view", lambda _: strong)
    terms = {}
    for group in trainer.compute_losses(labeled, unlabeled):
        assert not set(terms) & set(group)
        terms.update({name: value.detach() for name, value in group.items()})

    for number, view in enumerate((labeled.image, labeled.weak), 1):
        levels = levels_of(networks_of(trainer)[number - 1], view)
        expected = trainer.loss(levels, labeled.target)
        torch.testing.assert_close(terms.pop(f"supervised_{number}"), expected)
    names = ["displaced_1", "displaced_2"]
    for name, expected in zip(names, expected_labeled(trainer, labeled), strict=True):
        torch.testing.assert_close(terms.pop(name), expected, rtol=1e-4, atol=1e-5)
    names = ["consistency", "consistency_moved_1", "consistency_moved_2"]
    views = strong, unlabeled.image
    for name, expected in zip(
        names, expected_unlabeled(trainer, views, unlabeled.valid), strict=True
    ):
        torch.testing.assert_close(terms.pop(name), 0.1 * expected, rtol=1e-4, atol=1e-6)
    assert not terms


@pytest.mark.parametrize(
    ("settings", "moved"),
    [({"displaced_until": 0.5}, False), ({"displaced_weight": 0}, False), ({}, True)],
)
def test_labeled_images_with_moved_cells_end_when_they_are_to(build, settings, moved):
    trainer = build(METHOD, "labels2d", num_epochs=4, unlabeled_weight=0, **settings)
    trainer.current_epoch = 2
    groups = list(trainer.compute_losses(*trainer.to_device(next(trainer.dataloader_train))))
    names = [set(group) for group in groups]
    expected = [{"displaced_1"}, {"displaced_2"}] if moved else []
    assert names == [{"supervised_1", "supervised_2"}, *expected]
