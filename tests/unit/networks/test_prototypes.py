"""A memory of each class's surest features that labels confirmed."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.losses.targets import PseudoLabel
from nnunet_semisup.networks import prototypes
from nnunet_semisup.networks.prototypes import ClassPrototypes


def labeled(regions, seed=0):
    """Return features, logits and a label that the logits are right about in most voxels."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 6, 5, 4, generator=generator)
    logits = torch.randn(2, 3, 5, 4, generator=generator)
    right = logits.sigmoid().gt(0.5).float() if regions else logits.argmax(1, keepdim=True)
    wrong = torch.rand(2, 1, 5, 4, generator=generator) < 0.3
    target = torch.where(wrong, 1 - right if regions else (right + 1) % 3, right)
    weight = torch.rand(2, 1, 5, 4, generator=generator).gt(0.2).float()
    return features, logits, PseudoLabel(target, weight.expand_as(target))


@pytest.mark.parametrize("regions", [False, True])
def test_the_memory_has_the_surest_voxels_that_are_rightly_predicted(regions, monkeypatch):
    monkeypatch.setattr(prototypes, "KEPT", 4)
    torch.manual_seed(0)
    module = ClassPrototypes(6, 3, regions)
    assert module.memory.features.shape == (3 + regions, 4, 32)
    features, logits, label = labeled(regions)
    module.remember(module.draw(features, label), logits)

    probs = logits.sigmoid() if regions else logits.softmax(1)
    if regions:
        probs = torch.cat([1 - probs.amax(1, keepdim=True), probs], 1)
    kept, filled = module.memory.per_class()
    for number in range(3 + regions):
        candidates = []
        for image in range(2):
            for place in [(a, b) for a in range(5) for b in range(4)]:
                at = (image, slice(None), *place)
                if regions:
                    votes = [logits[at][r] > 0 for r in range(3)], [v > 0 for v in label.target[at]]
                    votes = [[not any(vote), *vote] for vote in votes]
                else:
                    told = int(label.target[at][0])
                    votes = [[int(logits[at].argmax()) == c for c in range(3)]]
                    votes.append([told == c for c in range(3)])
                if label.weight[at][0] > 0 and votes[0][number] and votes[1][number]:
                    candidates.append((float(probs[at][number]), features[at]))
        best = sorted(candidates, key=lambda pair: -pair[0])[:4]
        assert int(filled[number].sum()) == len(best)
        if best:
            expected = module.projection(torch.stack([row for _, row in best]))
            torch.testing.assert_close(kept[number][: len(best)], expected.detach())


def test_distance_teaches_features_projection_and_prediction_but_not_the_memory():
    torch.manual_seed(0)
    module = ClassPrototypes(6, 3, False)
    features, logits, label = labeled(False)
    features.requires_grad_()
    drawn = module.draw(features, label)
    module.remember(drawn, logits)
    loss = module.distance(drawn)
    loss.backward()
    assert 0 < loss < 2
    assert features.grad.abs().sum() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())
    assert set(dict(module.named_buffers())) == {"memory.features", "memory.filled"}


def test_voxels_without_weight_get_no_gradient():
    module = ClassPrototypes(6, 3, False)
    features, logits, label = labeled(False)
    features.requires_grad_()
    drawn = module.draw(features, label)
    module.remember(drawn, logits)
    module.distance(drawn).backward()
    assert (features.grad * (1 - label.weight)).abs().max() == 0


def test_an_empty_memory_attracts_nothing():
    module = ClassPrototypes(6, 3, False)
    features, _, label = labeled(False)
    assert module.distance(module.draw(features, label)) == 0
