"""Processes of several machines: their devices, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from nnunet_semisup.errors import UserError
from nnunet_semisup.training.ranks import refuse_unfit_processes, use_device_of_process
from nnunet_semisup.training.torchrun import Place, refuse_disagreement

SIXTH = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}


def test_the_gpu_is_that_of_the_machine(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    assert Place.of(SIXTH).device("cuda") == torch.device("cuda", 1)
    assert seen == [1, 1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="process 1 of this machine has no GPU: torch sees 1"):
        Place.of(SIXTH).device("cuda")


def test_processes_of_a_machine_share_its_cores(monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr("multiprocessing.cpu_count", lambda: 14)
    assert Place.of(SIXTH).device("cpu") == torch.device("cpu")
    assert threads == [3]


@pytest.mark.parametrize("lacking", ["RANK", "LOCAL_RANK"])
def test_a_place_needs_all_variables(lacking):
    with pytest.raises(UserError, match=f"{lacking}=,"):
        Place.of({name: value for name, value in SIXTH.items() if name != lacking})


@pytest.mark.parametrize(("local", "number"), [(None, 5), ("1", 1)])
def test_a_trainer_goes_to_the_device_of_its_process(monkeypatch, local, number):
    """nnU-Net's own processes, on one machine, have no LOCAL_RANK."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_RANK", local)
    trainer = SimpleNamespace(is_ddp=True, local_rank=5, device=None, grad_scaler="scaler")
    use_device_of_process(trainer, torch.device("cuda"))
    assert (trainer.device, trainer.grad_scaler) == (torch.device("cuda", number), "scaler")
    use_device_of_process(trainer, torch.device("cpu"))
    assert (trainer.device, trainer.grad_scaler) == (torch.device("cpu"), None)


def test_a_trainer_alone_stays_on_its_device():
    trainer = SimpleNamespace(is_ddp=False, device="given", grad_scaler="scaler")
    use_device_of_process(trainer, torch.device("cpu"))
    assert (trainer.device, trainer.grad_scaler) == ("given", "scaler")


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch):
    refuse_unfit_processes("3d_fullres", 2)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "1")
    refuse_unfit_processes("3d_fullres", 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="Start nnUNetv2_semisup_train"):
        refuse_unfit_processes("3d_fullres", 2)


def test_more_processes_than_patches_are_refused(monkeypatch, one_process):
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    refuse_unfit_processes("3d_fullres", 3)
    with pytest.raises(UserError, match="3 processes cannot share 2 labeled patches"):
        refuse_unfit_processes("3d_fullres", 2)


def trainer(**other):
    """Return what is compared of a trainer."""
    settings = {"num_epochs": 2, "cpu_threads": 1} | other
    return SimpleNamespace(
        current_epoch=3,
        iteration=4,
        plans_manager=SimpleNamespace(plans={"configurations": {}}),
        hyperparameters=lambda: settings,
    )


def test_processes_that_differ_are_refused_by_all(monkeypatch, one_process):
    """As where a machine does not see the results folder of the others, or another variable."""
    refuse_disagreement(trainer())
    told = {}

    def gather(found, own):
        found[:] = [own, {**own, **told}]

    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    refuse_disagreement(trainer(cpu_threads=9))
    told.update({"epoch": 0, "num_epochs": 5})
    with pytest.raises(UserError) as refused:
        refuse_disagreement(trainer())
    assert "epoch: 3 in process 0, 0 in process 1" in str(refused.value)
    assert "num_epochs: 2 in process 0, 5 in process 1" in str(refused.value)
    assert "cpu_threads" not in str(refused.value)
