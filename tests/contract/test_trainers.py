"""What every semi-supervised trainer must do beyond its steps on every kind of data set."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_semisup.data.views import strong_view
from nnunet_semisup.errors import DivergedError
from tests.contract.conftest import (
    KINDS,
    SEMI_SUPERVISED,
    WITH_TEACHER,
    each_method,
    each_once,
    each_pair,
    fitting,
    one_of_each,
    product,
)
from tests.contract.course import networks_of

NETWORKS = (
    "further_members",
    "build_training_network",
    "extend_network",
    "initialize",
    "finish_networks",
)
WITHOUT_DEEP_SUPERVISION = [m for m in SEMI_SUPERVISED if m.without_deep_supervision]
STREAMS = ("get_dataloaders", "unlabeled_loader", "to_device", "labeled_weak", "labeled_maps")


@each_pair(product(WITHOUT_DEEP_SUPERVISION, ("labels3d", "regions2d")))
def test_a_step_without_deep_supervision(build, method, kind):
    trainer = build(method, kind, enable_deep_supervision=False)
    trainer.current_epoch = 1
    before = [p.detach().clone() for p in trainer.student.parameters()]
    assert torch.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
    after = list(trainer.student.parameters())
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


@each_pair(each_once(one_of_each(*NETWORKS, among=SEMI_SUPERVISED), ("labels2d", "labels3d")))
def test_channels_last_computes_the_same(build, method, kind):
    usual, other = (build(method, kind, channels_last=value) for value in (False, True))
    orders = (torch.channels_last, torch.channels_last_3d)
    assert any(
        weight.is_contiguous(memory_format=orders[weight.dim() - 4]) and not weight.is_contiguous()
        for network in networks_of(other)
        for weight in network.parameters()
        if weight.dim() in (4, 5)
    )
    batch = next(usual.dataloader_train)
    losses = []
    for trainer in (usual, other):
        torch.manual_seed(0)
        losses.append(next(iter(trainer.compute_losses(*trainer.to_device(batch)))))
    assert losses[0].keys() == losses[1].keys()
    for name, term in losses[0].items():
        torch.testing.assert_close(losses[1][name], term, rtol=1e-3, atol=1e-4)


TEACHERS = one_of_each(
    *("follow", "followed", "finish_networks", "train_step", "after_step"), among=WITH_TEACHER
)


@each_method(TEACHERS)
def test_teacher_is_the_moving_average_of_the_student(build, method):
    trainer = build(method, "labels2d", ema_decay=0.5)
    name, _ = next(trainer.followed().named_parameters())
    expected = dict(trainer.followed().named_parameters())[name].detach().clone()
    for step in range(4):
        trainer.train_step(next(trainer.dataloader_train))
        decay = min(1 - 1 / (step + 1), 0.5)
        current = dict(trainer.followed().named_parameters())[name].detach()
        expected = decay * expected + (1 - decay) * current
    averaged = dict(trainer.teacher.module.named_parameters())[name]
    torch.testing.assert_close(averaged, expected)


@each_method(one_of_each(*STREAMS, among=SEMI_SUPERVISED))
def test_masks_of_unlabeled_cases_do_not_matter(build, datasets, method):
    kind = fitting(method, "labels3d")
    unlabeled = datasets(kind) / f"nnUNetPlans_{KINDS[kind].configuration}_unlabeled"
    batch = next(build(method, "labels3d").dataloader_train)
    hidden = [p.rename(p.with_suffix(".hidden")) for p in sorted(unlabeled.glob("*_seg.b2nd"))]
    assert hidden
    try:
        blind = next(build(method, "labels3d").dataloader_train)
    finally:
        for path in hidden:
            path.rename(path.with_suffix(".b2nd"))
    for key in ("data", "unlabeled", "unlabeled_valid"):
        assert torch.equal(batch[key], blind[key])


@each_method(WITH_TEACHER)
def test_finite_when_the_teacher_sees_only_one_class(build, method):
    trainer = build(method, "labels2d")
    trainer.current_epoch = 1
    decoder = trainer.teacher.module.decoder
    for bias in (50.0, -50.0):
        with torch.no_grad():
            decoder.seg_layers[-1].weight.zero_()
            decoder.seg_layers[-1].bias.copy_(torch.tensor([bias, 0.0, 0.0]))
        assert torch.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])


DIVERGING = ("train_step", "write_checkpoint", "broken_terms", "diagnostics", "end_epoch")


@each_method(one_of_each(*DIVERGING, among=SEMI_SUPERVISED))
@pytest.mark.parametrize("which", [0, -1])
def test_a_diverged_training_ends_and_keeps_its_checkpoint(build, method, which):
    trainer = build(method, "labels3d")
    folder = Path(trainer.output_folder)
    latest = folder / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(latest))
    before = latest.read_bytes()
    with torch.no_grad():
        list(trainer.training_network.parameters())[which].fill_(math.nan)
    with pytest.raises(DivergedError, match=r"epoch 0 .*loss.*Lower initial_lr .* --c"):
        trainer._run_epoch()
    assert "nan" in (folder / "semisup_terms.csv").read_text(encoding="utf-8")
    with pytest.raises(DivergedError):
        trainer.save_checkpoint(str(latest))
    assert latest.read_bytes() == before
    assert [path.name for path in folder.glob("checkpoint_*")] == [latest.name]


def test_what_nnunet_masks_stays_zero_in_the_strong_view(build):
    trainer = build(SEMI_SUPERVISED[0], "regions3d")
    trainer.configuration_manager.configuration["use_mask_for_norm"] = [True, False]
    del trainer.masked_channels  # Was looked up for the loaders.
    batch = next(trainer.dataloader_train)
    batch["unlabeled_valid"][:, :, :4] = False
    batch["unlabeled"][:, 0, :4] = 0.0
    _, unlabeled = trainer.to_device(batch)
    strong = unlabeled.strong_view(probability=1.0)
    assert torch.equal(unlabeled.masked[:, :1], ~unlabeled.valid)
    assert not unlabeled.masked[:, 1].any()
    assert (strong[:, 0, :4] == 0).all()
    for changed in (strong[:, 0, 4:], strong[:, 1, :4], strong[:, 1, 4:]):
        assert (changed != 0).float().mean() > 0.9
    noisy = unlabeled.noisy_view()
    assert (noisy[:, 0, :4] == 0).all()
    assert (noisy[:, 1] != unlabeled.image[:, 1]).float().mean() > 0.9


def test_without_masks_the_strong_view_is_that_of_the_image(build):
    trainer = build(SEMI_SUPERVISED[0], "labels3d")
    _, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    assert unlabeled.masked is None
    torch.manual_seed(0)
    expected = strong_view(unlabeled.image)
    torch.manual_seed(0)
    assert torch.equal(unlabeled.strong_view(), expected)


@each_method(one_of_each("configuration", "hyperparameters", among=SEMI_SUPERVISED))
def test_configuration_and_cases_are_recorded(build, method):
    trainer = build(method, "labels3d", rampup_length=0.25)
    recorded = json.loads(
        (Path(trainer.output_folder) / "semisup_config.json").read_text(encoding="utf-8")
    )
    assert recorded["trainer"] == method.trainer
    assert recorded["hyperparameters"]["rampup_length"] == 0.25
    assert recorded["hyperparameters"]["seed"] == 3
    assert len(recorded["unlabeled_cases"]) == 3


@each_method(SEMI_SUPERVISED)
@pytest.mark.parametrize("number", [1, 3])
def test_unlabeled_batch_size_is_its_own(build, method, number):
    trainer = build(method, "labels2d", unlabeled_batch_size=number)
    batch = next(trainer.dataloader_train)
    assert batch["data"].shape[0] == 2
    assert batch["unlabeled"].shape[0] == number
    assert batch["unlabeled_valid"].shape == (number, 1, 16, 16)
    assert torch.isfinite(trainer.train_step(batch)["loss"])


@each_method(one_of_each(*STREAMS, "unlabeled_patches", among=SEMI_SUPERVISED))
def test_two_methods_with_one_seed_see_the_same_labeled_patches(build, method):
    batch = next(build(method, "labels3d").dataloader_train)
    other = next(build(SEMI_SUPERVISED[0], fitting(method, "labels3d")).dataloader_train)
    assert torch.equal(batch["data"], other["data"])
    assert np.array_equal(batch["keys"], other["keys"])
