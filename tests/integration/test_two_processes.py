"""Two processes with different data stay one model."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from nnunet_semisup.foundation import text_tower
from tests.integration.workspace import Workspace, hyperparameters, train_arguments
from tests.text_models import make_clip_folder

RANKS = 2
TEXT = "nnUNetTrainerTextSemiSeg"
STEPS = 3


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def train_steps(rank: int, trainer_name: str, environment: dict[str, str], out: str) -> None:
    """Some steps of one rank; saves what the ranks must agree on and what they must not.

    nnU-Net itself distributes over GPUs only, so its part (the process group, the device, the
    wrapping of the network) is done here for the CPU.
    """
    os.environ.update(environment)
    torch.set_num_threads(1)
    from nnunetv2.run.run_training import get_trainer_from_args

    trainer: Any = get_trainer_from_args(
        *train_arguments(trainer_name)[:2], 0, trainer_name, device=torch.device("cpu")
    )
    trainer.local_rank = rank
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    try:
        trainer.on_train_start()
        trainer.network = DistributedDataParallel(trainer.network, find_unused_parameters=True)
        trainer.is_ddp = True
        trainer.on_train_epoch_start()
        batches = [next(trainer.dataloader_train) for _ in range(STEPS)]
        for batch in batches:
            trainer.train_step(batch)
            trainer.iteration += 1
        values = trainer.end_epoch(trainer._to_device(batches[-1])[1])
        state = {
            "student": trainer.network.module.state_dict(),
            "teacher": {} if trainer.teacher is None else trainer.teacher.module.state_dict(),
            "prompts": trainer.class_text.prompts.state_dict() if trainer_name == TEXT else {},
            "images": [b["data"] for b in batches],
            "unlabeled": [b["unlabeled"] for b in batches],
            "codes": {k: v for k, v in values.items() if k.startswith("code")},
            "random": torch.rand(4),
        }
        torch.save(state, Path(out, f"{rank}.pt"))
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("trainer", ["nnUNetTrainerMeanTeacher", "nnUNetTrainerVQSeg", TEXT])
def test_ranks_agree(workspace: Workspace, tmp_path: Path, trainer: str) -> None:
    settings = {"mix_start": 0.0} if trainer == TEXT else {}
    here = workspace.where(
        **hyperparameters(
            rampup_length=0.0, num_iterations_per_epoch=STEPS, num_epochs=1, **settings
        ),
        **({text_tower.VARIABLE: make_clip_folder(tmp_path / "clip")} if trainer == TEXT else {}),
        nnUNet_results=tmp_path / "results",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(free_port()),
    )
    environment = dict(here.environment)
    multiprocessing.spawn(train_steps, (trainer, environment, str(tmp_path)), nprocs=RANKS)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(RANKS))
    for network in ("student", "teacher", "prompts"):
        assert one[network].keys() == other[network].keys()
        unequal = [k for k, v in one[network].items() if not torch.equal(v, other[network][k])]
        assert unequal == []
    for stream in ("images", "unlabeled"):
        for a, b in zip(one[stream], other[stream], strict=True):
            assert not torch.equal(a, b)
    assert not torch.equal(one["random"], other["random"])
    assert one["codes"] == other["codes"]
    assert bool(one["codes"]) == (trainer == "nnUNetTrainerVQSeg")
