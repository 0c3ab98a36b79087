"""Every trainer takes batches that its device augments, or says by name why it cannot."""

from __future__ import annotations

import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import (
    pin_memory_of_all_eligible_items_in_dict,
)

from nnunet_semisup.errors import UserError
from nnunet_semisup.registry import METHODS, find_method
from nnunet_semisup.trainers import nnUNetTrainerSupervised
from tests.contract.conftest import each_once, each_pair, fitting, one_of_each, trainer_class
from tests.contract.course import in_the_same_folder

ON = {"augment_on_device": True}
READ = ("get_dataloaders", "labeled_views", "labeled_weak", "train_step")
IN_WORKERS = [m for m in METHODS if getattr(trainer_class(m), "labeled_maps", {})]
WITH_EVERYTHING = find_method("nnUNetTrainerBCP")
SERVED = [m for m in METHODS if m not in (*IN_WORKERS, WITH_EVERYTHING)]


def kinds_of(batch):
    """The type and shape of each tensor in a batch."""
    lists = {k: v if isinstance(v, list) else [v] for k, v in batch.items()}
    tensors = {k: v for k, v in lists.items() if isinstance(v[0], torch.Tensor)}
    return {k: [(one.dtype, one.shape) for one in v] for k, v in tensors.items()}


@each_pair(each_once([WITH_EVERYTHING, *one_of_each(*READ, among=SERVED)]))
def test_a_step_and_its_continuation(build, method, kind, tmp_path):
    """The batches are those of the workers, but for noise and rounding, and go on where it was."""
    on_host, trainer = build(method, kind), build(method, kind, **ON)
    batch = next(trainer.dataloader_train)
    expected = next(on_host.dataloader_train)
    assert kinds_of(batch) == kinds_of(expected)
    for name in {"unlabeled", "weak"} & set(batch):
        close = torch.isclose(batch[name], expected[name], rtol=1e-3, atol=1e-3)
        assert close.float().mean() > 0.99
    assert torch.isfinite(torch.as_tensor(trainer.train_step(batch)["loss"]))
    *_, third = (next(trainer.dataloader_train) for _ in range(2))
    file = str(tmp_path / "checkpoint_latest.pth")
    trainer.save_checkpoint(file)

    again = build(method, kind, start=False, **ON)
    in_the_same_folder(again, trainer)
    again.load_checkpoint(file)
    again.on_train_start()
    assert again.augment_on_device
    for key, value in next(again.dataloader_train).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, third[key])


@pytest.mark.parametrize("kind", ["labels3d", "regions2d"])
def test_a_batch_that_was_pinned_is_the_same(build, kind, monkeypatch):
    """As a GPU has it; batchgenerators 0.25.5 then makes tuples of everything that is one."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    loader = build(WITH_EVERYTHING, kind, **ON).dataloader_train
    finish, loader.finish = loader.finish, lambda batch: batch
    batch = finish(pin_memory_of_all_eligible_items_in_dict(next(loader)))
    expected = next(build(WITH_EVERYTHING, kind, **ON).dataloader_train)
    assert kinds_of(batch) == kinds_of(expected)
    assert torch.equal(batch["unlabeled"], expected["unlabeled"])


@pytest.mark.parametrize("method", IN_WORKERS, ids=lambda m: m.trainer)
def test_maps_that_the_workers_make_are_refused_by_name(build, method):
    name, maps = method.trainer, trainer_class(method).labeled_maps
    with pytest.raises(UserError, match=rf"{name} cannot augment .* make {', '.join(maps)} of"):
        build(method, fitting(method, "labels3d"), start=False, **ON)


def test_nnunets_own_loader_is_refused(build):
    with pytest.raises(UserError, match="Leave one of the two out"):
        build(nnUNetTrainerSupervised, "labels3d", start=False, stock_loader=True, **ON)


@pytest.mark.parametrize("trainer", ["nnUNetTrainerSupervised", "nnUNetTrainerLoMix"])
def test_the_second_stage_of_a_cascade_is_refused(build, trainer):
    method = find_method(trainer)
    first = build(method, "labels3d", start=False)
    plans = first.plans_manager.plans
    plans["configurations"]["3d_lowres"] = plans["configurations"]["3d_fullres"]
    plans["configurations"]["3d_fullres"]["previous_stage"] = "3d_lowres"
    build.patch.setenv("nnUNet_semisup_set", "augment_on_device=True,seed=1")
    with pytest.raises(UserError, match="takes predictions of 3d_lowres"):
        type(first)(
            {**plans, "continue_training": False},
            "3d_fullres", 0, first.dataset_json, torch.device("cpu"),
        )  # fmt: skip
