"""Each network is clipped by itself, at nnU-Net's norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_semisup import trainers
from nnunet_semisup.foundation import text_tower
from nnunet_semisup.registry import METHODS
from nnunet_semisup.trainers import (
    nnUNetTrainerCPS,
    nnUNetTrainerMCNetPlus,
    nnUNetTrainerMeanTeacherText,
    nnUNetTrainerTextSemiSeg,
)
from nnunet_semisup.training.optimizers import CLIP_NORM, clip_and_step
from tests.text_models import make_clip_folder

RANDOM = {"text_model": "random"}


def of_trial(method):
    return dict(part.split("=") for part in method.trial.split(",") if part)


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m.uses_unlabeled], ids=lambda method: method.trainer
)
def test_every_parameter_is_clipped_in_exactly_one_group(build, method):
    trainer = build(getattr(trainers, method.trainer), **of_trial(method))
    clipped = [id(p) for group in trainer.clipped_apart() for p in group]
    trained = [id(p) for group in trainer.optimizer.param_groups for p in group["params"]]
    assert sorted(clipped) == sorted(trained)
    assert len(set(clipped)) == len(clipped)


@pytest.mark.parametrize(
    ("cls", "settings", "number"),
    [
        (nnUNetTrainerCPS, {}, 2),
        (nnUNetTrainerMCNetPlus, {}, 3),
        (nnUNetTrainerMeanTeacherText, RANDOM, 1),
        (nnUNetTrainerTextSemiSeg, RANDOM, 2),
        (nnUNetTrainerTextSemiSeg, {"text_model": "none"}, 2),
    ],
)
def test_a_huge_gradient_of_one_network_does_not_shrink_the_step_of_another(
    build, cls, settings, number
):
    """One norm over all of them gave each a smaller share than nnU-Net's network has alone."""
    steps = []
    for factor in (1.0, 1e6):
        trainer = build(cls, **settings)
        first, *others = trainer.clipped_apart()
        assert len(others) == number - 1
        before = [p.detach().clone() for p in first]
        for group, scale in ((first, 1.0), *((group, factor) for group in others)):
            for p in group:
                p.grad = torch.full_like(p, scale * 1e-3)
        clip_and_step(trainer.optimizer, None, trainer.clipped_apart())
        steps.append([p.detach() - old for p, old in zip(first, before, strict=True)])
        for group in others:
            norm = nn.utils.get_total_norm([p.grad for p in group])
            assert norm <= CLIP_NORM * (1 + 1e-5)
            assert (norm > 0.99 * CLIP_NORM) == (factor > 1)
    assert all(torch.equal(one, other) for one, other in zip(*steps, strict=True))
    assert any(change.any() for change in steps[0])


def test_each_network_has_nnunets_norm(build):
    trainer = build(nnUNetTrainerCPS)
    for group in trainer.clipped_apart():
        for p in group:
            p.grad = torch.full_like(p, 100.0)
    clip_and_step(trainer.optimizer, None, trainer.clipped_apart())
    for group in trainer.clipped_apart():
        norm = nn.utils.get_total_norm([p.grad for p in group])
        assert float(norm) == pytest.approx(CLIP_NORM, rel=1e-4)


def test_prompts_are_clipped_apart_from_the_network(build, tmp_path, monkeypatch):
    pytest.importorskip("open_clip")
    monkeypatch.setenv(text_tower.VARIABLE, str(make_clip_folder(tmp_path / "clip")))
    trainer = build(nnUNetTrainerMeanTeacherText)
    network, prompts = trainer.clipped_apart()
    assert [id(p) for p in prompts] == [id(p) for p in trainer.class_text.prompts.parameters()]
    assert {id(p) for p in network} == {id(p) for p in trainer.network.parameters()}
