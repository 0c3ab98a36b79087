"""DTC's terms from its equations: features by a hook, distances by comparing all voxels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nnunet_semisup.registry import find_method

METHODS = [
    (find_method("nnUNetTrainerDTC"), {}),
    (find_method("nnUNetTrainerDTCText"), {"text_model": "none"}),
]
IGNORED = 3


def outputs_of(trainer, image):
    """Return foreground probabilities and distances by another route than training's."""
    found = []
    hook = trainer.student.decoder.stages[-1].register_forward_hook(
        lambda module, inputs, output: found.append(output)
    )
    with torch.no_grad():
        logits = trainer.student(image)
    hook.remove()
    logits = logits[0] if isinstance(logits, list) else logits
    probs = logits.sigmoid() if trainer.regions else logits.softmax(1)[:, 1:]
    weight, bias = trainer.training_network.heads["distance"][0].parameters()
    distance = torch.einsum("bc...,dc->bd...", found[0], weight.flatten(1))
    return probs, (distance + bias.view(1, -1, *[1] * (image.ndim - 2))).tanh()


def distances_of(inside, outside):
    """Return the signed distance map of one patch and class from the distances of all pairs."""
    places = torch.stack(torch.meshgrid(*map(torch.arange, inside.shape), indexing="ij"), -1)
    places = places.reshape(-1, inside.ndim).float()
    apart = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")
    inside, outside, shape = inside.flatten(), outside.flatten(), inside.shape
    if not inside.any() or not outside.any():
        return (outside.float() - inside.float()).view(shape)
    depth = apart[:, outside].amin(1) * inside
    height = apart[:, inside].amin(1) * outside
    edge = inside & (depth == 1)
    return (height / height.max() - (depth / depth.max()).masked_fill(edge, 0)).view(shape)


def masks_of(trainer, target):
    """Return per class or region what is inside and what is outside, each ``(B, C, *spatial)``."""
    full = target[0] if isinstance(target, list) else target
    if trainer.regions:
        return full > 0, full == 0
    inside = torch.cat([full == number for number in (1, 2)], 1)
    return inside, ~inside & (full != IGNORED)


@pytest.mark.parametrize(("method", "settings"), METHODS, ids=lambda v: getattr(v, "trainer", ""))
@pytest.mark.parametrize("kind", ["ignore3d", "regions2d"])
def test_terms(build, method, settings, kind):
    trainer = build(method, kind, rampup_length=0, unlabeled_batch_size=1, **settings)
    labeled, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    unlabeled.valid[:, :, :5] = False
    first, second = trainer.compute_losses(labeled, unlabeled)

    probs, distance = outputs_of(trainer, labeled.image)
    inside, outside = masks_of(trainer, labeled.target)
    target = torch.stack(
        [
            torch.stack([distances_of(*both) for both in zip(*patch, strict=True)])
            for patch in zip(inside, outside, strict=True)
        ]
    )
    known = inside | outside
    expected = 0.3 * ((distance - target)[known] ** 2).mean()
    torch.testing.assert_close(first["supervised_distance"], expected, rtol=1e-4, atol=1e-6)

    mask = 1 / (1 + (1500 * distance.double()).exp())
    squares = F.mse_loss(mask.float(), probs, reduction="none")
    torch.testing.assert_close(
        first["agreement_labeled"], 2 / 3 * squares.mean(), rtol=1e-3, atol=1e-5
    )
    probs, distance = outputs_of(trainer, unlabeled.image)
    mask = 1 / (1 + (1500 * distance.double()).exp())
    squares = (mask.float() - probs)[:, :, 5:] ** 2
    torch.testing.assert_close(second["consistency"], 1 / 3 * squares.mean(), rtol=1e-3, atol=1e-5)
    assert set(first) == {"supervised", "supervised_distance", "agreement_labeled"}
    assert set(second) == {"consistency"}


def test_the_head_learns_from_patches_without_labels(build):
    """Where the consistency has a slope: at the boundary that the head predicts."""
    trainer = build(METHODS[0][0], "labels2d", rampup_length=0, steepness=1.0)
    batch = trainer.to_device(next(trainer.dataloader_train))
    _, second = trainer.compute_losses(*batch)
    second["consistency"].backward()
    assert all(p.grad.abs().sum() > 0 for p in trainer.training_network.heads.parameters())
