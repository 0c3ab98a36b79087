"""UniMatch V2's terms, from its equations."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.mixing.masks import sample_boxes
from nnunet_semisup.trainers import nnUNetTrainerUniMatch
from tests.contract.steps import KINDS, chances, full, ready, terms_of


@pytest.mark.parametrize("kind", KINDS)
def test_terms(build, kind):
    settings = {"unlabeled_weight": 0.5, "dropout_share": 0.0, "unlabeled_batch_size": 3}
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerUniMatch, kind, **settings)
    for weight in trainer.student.parameters():
        weight.data += 0.05 * torch.randn_like(weight)  # Else the teacher is the student.
    sure, chosen = chances(full(trainer.teacher.module(unlabeled.image)), trainer.regions).max(2)
    there = unlabeled.valid.expand_as(sure)
    trainer.confidence_threshold = tau = float(sure[there].median())

    torch.manual_seed(0)
    expected = {}
    for view in (1, 2):
        image = unlabeled.strong_view(0.8)
        spatial = image.shape[2:]
        boxes = sample_boxes(3, spatial, image.device, 0.5, (0.02, 0.4))[:, 0]
        parts = [image, sure, chosen, there]
        mixed = [part.clone() for part in parts]
        for number, box in enumerate(boxes):
            for new, old in zip(mixed, parts, strict=True):
                new[number][:, box] = old[number - 1][:, box]
        assert bool(boxes.any()), "nothing is pasted"
        logits = full(trainer.student(mixed[0]))
        right = chances(logits, trainer.regions).gather(2, mixed[2][:, :, None])[:, :, 0]
        used = (mixed[1] >= tau) & mixed[3]
        loss = -right[used].log().sum() / mixed[3].sum()
        expected[f"consistency_{view}"] = 0.5 * 0.5 * float(loss)

    terms = terms_of(trainer, labeled, unlabeled)
    assert {name: terms[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert expected["consistency_1"] != pytest.approx(expected["consistency_2"], rel=1e-3)


def test_only_the_views_are_dropped_from(build):
    settings = {"dropout_share": 1.0}
    trainer, labeled, unlabeled = ready(build, nnUNetTrainerUniMatch, "regions2d", **settings)
    factors = []
    whole = []
    trainer.student.encoder.register_forward_hook(lambda _, __, output: whole.append(output))

    def seen(_, inputs):
        pairs = zip(inputs[0], whole[-1], strict=True)
        factors.append([(part / all_).nanmean((2, 3)) for part, all_ in pairs])

    trainer.student.decoder.register_forward_pre_hook(seen)
    terms_of(trainer, labeled, unlabeled)
    of_labeled, of_first, of_second = factors
    assert all((stage == 1).all() for stage in of_labeled)
    for first, second in zip(of_first, of_second, strict=True):
        torch.testing.assert_close(first + second, torch.full_like(first, 2.0))
        assert first.round().unique().tolist() == [0.0, 2.0]
