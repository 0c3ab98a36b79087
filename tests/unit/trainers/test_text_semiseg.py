from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import multiprocessing

from nnunet_semisup.trainers.text_semiseg import nnUNetTrainerTextSemiSeg

LOSSES = (([1.0, 0.5], [0.2, 2.0]), ([0.5, 1.0], [2.0, 0.2]))
"""Of the two decoders, by case and rank: each rank alone would decide differently."""


def decide(rank: int, folder: str) -> None:
    """One rank's decisions and what became of its losses, saved."""
    torch.set_num_threads(1)
    store = Path(folder, "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    try:
        own = torch.tensor([case[rank] for case in LOSSES])
        trainer = SimpleNamespace(is_ddp=True)
        decided = [nnUNetTrainerTextSemiSeg.second_is_better(trainer, losses) for losses in own]
        torch.save((torch.stack(decided), own), Path(folder, f"{rank}.pt"))
    finally:
        dist.destroy_process_group()


def test_ranks_with_opposite_losses_decide_alike(tmp_path):
    multiprocessing.spawn(decide, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        decided, own = torch.load(tmp_path / f"{rank}.pt")
        assert decided.tolist() == [False, True]
        assert torch.equal(own, torch.tensor([case[rank] for case in LOSSES]))
