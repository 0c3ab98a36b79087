"""MLRP's terms from its equations, voxel by voxel."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.trainers import nnUNetTrainerMLRP
from tests.contract.steps import KINDS, chances, full, ready, terms_of


def features_and_chances(trainer, image):
    """Return features by hooks on each decoder's last stage, and chances, in float64."""
    network = trainer.training_network
    found, seen = [], []
    for decoder in (network.predictor.decoder, *network.others):
        keep = decoder.stages[-1].register_forward_hook(lambda m, i, o: seen.append(o.double()))
        found.append(keep)
    with torch.no_grad():
        parts = network(image).parts
    for hook in found:
        hook.remove()
    said = (chances(full(part.logits), trainer.regions) for part in parts)
    return list(zip(seen, said, strict=True))


def lesson(pupil, teacher, valid):
    """Return the mean of the weighted cross entropy over the voxels where the teacher is surer."""
    (_, mine), (features, probs) = pupil, teacher
    entropy = [-(one * (one + 1e-6).log()).sum(2) for one in (mine, probs)]
    surer = (entropy[0] > entropy[1]) & valid
    said = probs.argmax(2)
    total = 0.0
    for b, g in torch.cartesian_prod(
        torch.arange(len(mine)), torch.arange(probs.shape[1])
    ).tolist():
        gaps = []
        for k in range(probs.shape[2]):
            where = (said[b, g] == k) & valid[b, 0]
            if not where.any():
                continue
            centre = features[b][:, where].mean(1)
            cosine = torch.cosine_similarity(features[b], centre.view(-1, *[1] * where.ndim), 0)
            gaps.append(1 - (cosine - probs[b, g, k]).square())
        surprise = -mine[b, g].gather(0, said[b, g][None])[0].log()
        reliable = torch.stack(gaps).mean(0).clamp_min(0)
        total += float((reliable * surprise * surer[b, g]).sum())
    return total / float(surer.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_terms(build, kind):
    trainer, labeled, unlabeled = ready(
        build, nnUNetTrainerMLRP, kind, rampup_length=0.0, unlabeled_batch_size=1
    )
    expected = {}
    share = len(labeled.image) / (len(labeled.image) + len(unlabeled.image))
    everywhere = torch.ones_like(labeled.image[:, :1]).bool()
    for name, part, image, valid in (
        ("agreement_labeled", share, labeled.image, everywhere),
        ("consistency", 1 - share, unlabeled.image, unlabeled.valid),
    ):
        one, other = features_and_chances(trainer, image)
        both = (
            lesson(one, other, valid),
            lesson(other, one, valid),
        )
        expected[name] = part * sum(both)
    members = trainer.training_network(labeled.image).parts
    for number, member in enumerate(members, 1):
        loss = trainer.loss(member.logits, labeled.target)
        expected[f"supervised_{number}"] = float(loss.detach())
    # Where both are equally sure, rounding decides whether one of some 4,000 voxels counts.
    assert terms_of(trainer, labeled, unlabeled) == pytest.approx(expected, rel=1e-3)
