"""SemiSup's terms, from its equations."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.data.scan_labels import DOUBTFUL
from nnunet_semisup.trainers import nnUNetTrainerSemiSup
from tests.contract.steps import KINDS, ready, terms_of


def dice_and_entropy(chances, wanted, used, foreground):
    """Return ``1 - Dice`` over the batch, mean over channels, plus the mean surprise."""
    told = torch.where(wanted > 0, chances, 1 - chances) if not foreground else chances
    total = 0.0
    for c in range(int(foreground), chances.shape[1]):
        p, y, w = chances[:, c], wanted[:, c], used[:, min(c, used.shape[1] - 1)]
        total += 1 - float((2 * (p * y * w).sum() + 1e-5) / (((p + y) * w).sum() + 1e-5))
    channels = chances.shape[1] - int(foreground)
    said = (chances * wanted).sum(1, keepdim=True) if foreground else told
    surprise = torch.where(used > 0, -said.log(), 0.0)
    return total / channels + float((surprise * used).sum() / used.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_terms(build, kind):
    trainer, labeled, unlabeled = ready(
        build, nnUNetTrainerSemiSup, kind, labeling_start=0, label_confidence=0
    )
    doubtful = torch.rand(unlabeled.label.shape) < 0.2
    given = torch.where(doubtful & unlabeled.valid, DOUBTFUL, unlabeled.label)
    unlabeled = unlabeled._replace(label=given)

    torch.manual_seed(0)
    strong = unlabeled.strong_view(0.8)
    inside = trainer.boxes(labeled.image)
    image = torch.where(inside, strong, labeled.image)
    known = trainer.labels_of(labeled)
    if trainer.regions:
        regions = trainer.label_manager.foreground_regions
        sets = [set(r) if isinstance(r, (tuple, list)) else {r} for r in regions]
        guess = torch.stack(
            [sum((given[:, 0] == v) for v in values) > 0 for values in sets], 1
        ).double()
        annotated = known.target.double()
    else:
        number = trainer.label_manager.num_segmentation_heads
        guess = torch.stack([given[:, 0] == c for c in range(number)], 1).double()
        annotated = torch.stack([known.target[:, 0] == c for c in range(number)], 1).double()
    sure = ((given >= 0) & (given != DOUBTFUL)).double()
    wanted = torch.where(inside, guess, annotated)
    assert trainer.unlabeled_weight == 0.5
    used = torch.where(inside, 0.5 * sure.expand_as(known.weight), known.weight.double())
    outputs = trainer.network(image)
    expected = 0.0
    for output, share in zip(outputs, trainer.deep_supervision_weights, strict=True):
        step = [a // b for a, b in zip(image.shape[2:], output.shape[2:], strict=True)]
        taken = (..., *(slice(s // 2, None, s) for s in step))
        logits = output.detach().double()
        chances = logits.sigmoid() if trainer.regions else logits.softmax(1)
        expected += share * dice_and_entropy(
            chances, wanted[taken], used[taken], foreground=not trainer.regions
        )

    terms = terms_of(trainer, labeled, unlabeled)
    assert terms["mixed"] == pytest.approx(expected, rel=1e-4)
    assert terms["_sure"] == pytest.approx(float(sure.mean()))
    assert set(terms) == {"mixed", "_sure"}


def test_before_there_are_labels_a_step_is_of_the_annotated_patches_alone(build):
    trainer, labeled, unlabeled = ready(
        build, nnUNetTrainerSemiSup, "labels2d", labeling_start=0, label_confidence=0
    )
    terms = terms_of(trainer, labeled, unlabeled._replace(label=None))
    loss = trainer.loss(trainer.network(labeled.image), labeled.target)
    assert terms == {"supervised": pytest.approx(float(loss.detach()), rel=1e-5)}


def test_of_a_pair_the_box_or_all_around_it_is_unlabeled(build):
    trainer, _, _ = ready(
        build, nnUNetTrainerSemiSup, "labels3d", labeling_start=0, label_confidence=0
    )
    masks = trainer.boxes(torch.zeros(400, 1, 16, 16, 16))
    share = masks.double().flatten(1).mean(1)
    assert 0.4 < (share > 0.5).double().mean() < 0.6
    assert ((share < 0.55) | (share > 0.45)).all()
    assert share.min() < 0.15
    assert share.max() > 0.85
