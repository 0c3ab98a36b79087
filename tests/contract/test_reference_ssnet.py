"""SS-Net's terms from its equations: voxel by voxel, and noise by a whole backward pass."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.losses import adversarial
from nnunet_semisup.registry import find_method
from nnunet_semisup.training.batches import Unlabeled

METHOD = find_method("nnUNetTrainerSSNet")


def outputs_of(trainer, image):
    """Return logits and the features below them."""
    found = []
    hook = trainer.student.decoder.stages[-1].register_forward_hook(
        lambda module, inputs, output: found.append(output)
    )
    logits = trainer.student(image)
    hook.remove()
    return logits[0] if isinstance(logits, list) else logits, found[0]


def members(values, regions):
    """Return the classes of a voxel by its class number, or by 0/1 for regions."""
    if not regions:
        return {int(values[0])}
    inside = {number + 1 for number, value in enumerate(values) if value > 0}
    return inside or {0}


def voxels(maps):
    """Return ``(B * voxels, C)``."""
    return maps.movedim(1, -1).flatten(0, -2)


def attraction(trainer, features, classes, memory):
    """Return the mean over classes of 1 - cosine to the memory; ``classes`` is a set a voxel."""
    module = trainer.prototypes
    rows = module.prediction(module.projection(voxels(features)))
    means = []
    for number, prototypes in memory.items():
        mine = [row for row, there in zip(rows, classes, strict=True) if number in there]
        if mine and len(prototypes):
            cosine = torch.cosine_similarity(torch.stack(mine)[:, None], prototypes[None], dim=-1)
            means.append((1 - cosine).mean())
    return torch.stack(means).mean()


def predicted(logits, regions):
    """Return the class numbers, or 0/1 for regions, ``(voxels, 1 or R)``."""
    return voxels((logits > 0).long() if regions else logits.argmax(1, keepdim=True))


def soft_dice(one, other, valid):
    """Return the mean over channels of 1 - Dice with squares."""
    losses = []
    for p, q in zip(one.unbind(1), other.unbind(1), strict=True):
        p, q = p[valid[:, 0]], q[valid[:, 0]]
        losses.append(1 - (2 * p @ q + 1e-5) / (p @ p + q @ q + 1e-5))
    return torch.stack(losses).mean()


def foreground(logits, regions):
    return logits.sigmoid() if regions else logits.softmax(1)[:, 1:]


@pytest.mark.parametrize("kind", ["labels2d", "regions2d"])
def test_terms(build, kind, monkeypatch):
    trainer = build(METHOD, kind, rampup_length=0, noise=0.3)
    labeled, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    unlabeled.valid[:, :, :5] = False
    start = torch.randn(unlabeled.image.shape, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(adversarial.torch, "randn_like", lambda _: start.clone())
    first, second, third = (
        {name: term.detach() for name, term in terms.items()}
        for terms in trainer.compute_losses(labeled, unlabeled)
    )
    regions = trainer.regions

    logits, features = outputs_of(trainer, labeled.image)
    target = labeled.target[0] if isinstance(labeled.target, list) else labeled.target
    told = [members(row, regions) for row in voxels(target)]
    seen = [members(row, regions) for row in predicted(logits, regions)]
    probs = voxels(logits.sigmoid() if regions else logits.softmax(1))
    if regions:
        probs = torch.cat([1 - probs.amax(1, keepdim=True), probs], 1)
    projected = trainer.prototypes.projection(voxels(features)).detach()
    memory = {}
    for number in range(probs.shape[1]):
        right = [
            i for i, both in enumerate(zip(told, seen, strict=True)) if number in both[0] & both[1]
        ]
        right.sort(key=lambda i: -float(probs[i, number].detach()))
        memory[number] = projected[right[:32]]
    assert sum(len(rows) > 0 for rows in memory.values()) > 1
    expected = 0.1 * attraction(trainer, features, told, memory)
    torch.testing.assert_close(first["agreement_labeled"], expected.detach(), rtol=1e-4, atol=1e-6)

    logits, features = outputs_of(trainer, unlabeled.image)
    valid = voxels(unlabeled.valid)[:, 0]
    seen = [
        members(row, regions) if usable else set()
        for row, usable in zip(predicted(logits, regions), valid, strict=True)
    ]
    expected = 0.1 * attraction(trainer, features, seen, memory)
    torch.testing.assert_close(
        second["consistency_classes"], expected.detach(), rtol=1e-4, atol=1e-6
    )

    before = foreground(logits, regions).detach()
    size = 0.3 * start[0].numel() ** 0.5
    noise = torch.stack([size * one / one.norm() for one in start]).requires_grad_()
    moved = foreground(outputs_of(trainer, unlabeled.image + noise)[0], regions)
    soft_dice(moved, before, unlabeled.valid).backward()
    noise = torch.stack([size * one / one.norm() for one in noise.grad])
    moved = foreground(outputs_of(trainer, unlabeled.image + noise)[0], regions)
    expected = soft_dice(moved, before, unlabeled.valid).detach()
    torch.testing.assert_close(third["consistency"], expected, rtol=1e-3, atol=1e-6)
    assert set(first) == {"supervised", "agreement_labeled"}
    assert (set(second), set(third)) == ({"consistency_classes"}, {"consistency"})


def test_what_nnunet_masks_gets_no_noise(build, monkeypatch):
    trainer = build(METHOD, "labels2d", rampup_length=0)
    labeled, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    masked = torch.zeros_like(unlabeled.image, dtype=torch.bool)
    masked[:, 0, :4] = True
    unlabeled = Unlabeled(unlabeled.image.masked_fill(masked, 0), unlabeled.valid, masked)
    images, forward = [], trainer.network.forward
    monkeypatch.setattr(
        trainer.network, "forward", lambda image: images.append(image) or forward(image)
    )
    list(trainer.compute_losses(labeled, unlabeled))
    assert len(images) == 4
    for image in images[2:]:
        assert not torch.equal(image, unlabeled.image)
        assert (image[masked] == 0).all()


def test_with_the_unlabeled_weight_0_a_step_has_one_pass(build):
    trainer = build(METHOD, "labels2d", unlabeled_weight=0)
    batch = trainer.to_device(next(trainer.dataloader_train))
    (terms,) = trainer.compute_losses(*batch)
    assert set(terms) == {"supervised"}
    assert not trainer.prototypes.memory.filled.any()
