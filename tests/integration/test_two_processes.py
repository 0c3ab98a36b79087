"""Two processes with different data stay one model."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
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


@contextmanager
def rank_of(
    rank: int, trainer_name: str, environment: dict[str, str], meeting: Path
) -> Iterator[Any]:
    """One rank's trainer, started as ``nnUNetv2_train -num_gpus 2`` does.

    nnU-Net distributes over GPUs only: the process group, the device and the first wrapping of the
    network are replaced by those for a CPU. The ranks find each other by the file ``meeting``.
    """
    os.environ.update(environment)
    torch.set_num_threads(1)
    from nnunetv2.run.run_training import get_trainer_from_args

    module = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    module.__dict__["DDP"] = lambda network, device_ids: DistributedDataParallel(network)
    dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=RANKS)
    try:
        given = (*train_arguments(trainer_name)[:2], 0, trainer_name)
        trainer: Any = get_trainer_from_args(*given, device=torch.device("cpu"))
        yield trainer
        dist.barrier()
    finally:
        dist.destroy_process_group()


def start_from_weights(trainer: Any, file: Path) -> None:
    """What ``-pretrained_weights`` does on each rank; the first one wrote the file."""
    from nnunetv2.run.run_training import maybe_load_checkpoint

    trainer.initialize()
    if trainer.local_rank == 0:
        weights = {name: value * 1.5 for name, value in trainer.student.state_dict().items()}
        torch.save({"network_weights": weights, "trainer_name": "nnUNetTrainer"}, file)
    dist.barrier()
    before = trainer.student.encoder.stages[0][0].convs[0].conv.weight.clone()
    maybe_load_checkpoint(trainer, False, False, str(file))
    assert torch.equal(trainer.student.encoder.stages[0][0].convs[0].conv.weight, before * 1.5)


def train_steps(rank: int, trainer_name: str, environment: dict[str, str], out: str) -> None:
    """Some steps of one rank; saves what the ranks must agree on and what they must not."""
    with rank_of(rank, trainer_name, environment, Path(out, "meeting")) as trainer:
        if trainer_name == TEXT:
            start_from_weights(trainer, Path(out, "weights.pth"))
        trainer.on_train_start()
        assert isinstance(trainer.network, DistributedDataParallel)
        trainer.on_train_epoch_start()
        batches = [next(trainer.dataloader_train) for _ in range(STEPS)]
        for batch in batches:
            trainer.train_step(batch)
            trainer.iteration += 1
        values = trainer.end_epoch(trainer.to_device(batches[-1])[1])
        state = {
            "student": trainer.network.module.state_dict(),
            "teacher": trainer.teacher.module.state_dict() if trainer_name != TEXT else {},
            "prompts": trainer.class_text.prompts.state_dict() if trainer_name == TEXT else {},
            "images": [b["data"] for b in batches],
            "unlabeled": [b["unlabeled"] for b in batches],
            "codes": {k: v for k, v in values.items() if k.startswith("code")},
            "random": torch.rand(4),
        }
        torch.save(state, Path(out, f"{rank}.pt"))


def stop_and_continue(rank: int, trainer_name: str, environment: dict[str, str], out: str) -> None:
    """The last rank alone is asked to stop, all stop; then the run goes on to its end."""
    with rank_of(rank, trainer_name, environment, Path(out, "first")) as trainer:
        steps = []
        step = trainer.train_step

        def counted(batch: Any) -> Any:
            steps.append(len(steps))
            if rank == RANKS - 1 and len(steps) == STEPS - 1:
                trainer.interruption.signal_number = signal.SIGTERM
            return step(batch)

        trainer.train_step = counted
        with pytest.raises(SystemExit) as exit_info:
            trainer.run_training()
        latest = Path(trainer.output_folder, "checkpoint_latest.pth")
        state = {"steps": len(steps), "code": exit_info.value.code, "saved": latest.exists()}
        settings = [(trainer.seed, trainer.oversample_foreground_percent)]
    with rank_of(rank, trainer_name, environment, Path(out, "second")) as trainer:
        trainer.load_checkpoint(str(latest))
        trainer.device = torch.device("cpu")
        random_after: list[torch.Tensor] = []
        end = trainer.on_train_end

        def note_random() -> None:
            random_after.append(torch.rand(4))
            end()

        trainer.on_train_end = note_random
        trainer.run_training()
        settings.append((trainer.seed, trainer.oversample_foreground_percent))
        recorded = trainer.hyperparameters()["oversample_foreground_percent"]
        trainer.perform_actual_validation()
        student = trainer.network.module.state_dict()
        state.update(student=student, random=random_after, settings=settings, recorded=recorded)
        torch.save(state, Path(out, f"{rank}.pt"))


@pytest.mark.parametrize("trainer", ["nnUNetTrainerVQSeg", TEXT])
def test_ranks_agree(workspace: Workspace, tmp_path: Path, trainer: str) -> None:
    settings = {"mix_start": 0.0} if trainer == TEXT else {}
    here = workspace.where(
        **hyperparameters(
            rampup_length=0.0, num_iterations_per_epoch=STEPS, num_epochs=1, **settings
        ),
        **({text_tower.VARIABLE: make_clip_folder(tmp_path / "clip")} if trainer == TEXT else {}),
        nnUNet_results=tmp_path / "results",
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


def test_all_ranks_stop_together_and_continue_apart(workspace: Workspace, tmp_path: Path) -> None:
    here = workspace.where(
        **hyperparameters(
            rampup_length=0.0, num_iterations_per_epoch=STEPS, num_epochs=1, seed=None
        ),
        nnUNet_results=tmp_path / "results",
    )
    arguments = ("nnUNetTrainerVQSeg", dict(here.environment), str(tmp_path))
    multiprocessing.spawn(stop_and_continue, arguments, nprocs=RANKS)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(RANKS))
    assert one["steps"] == other["steps"] < STEPS
    assert one["code"] == other["code"] == 128 + signal.SIGTERM
    assert one["saved"]
    assert all(torch.equal(v, other["student"][k]) for k, v in one["student"].items())
    assert not torch.equal(one["random"][0], other["random"][0])
    (seed, _), (other_seed, _) = one["settings"][0], other["settings"][0]
    assert seed == other_seed, "one seed is drawn for all ranks"
    assert one["settings"] == [(seed, 0.0)] * 2
    assert other["settings"] == [(seed, 1.0)] * 2, "each rank keeps its share of oversampling"
    assert one["recorded"] == other["recorded"] == pytest.approx(0.33)
    folder = here.fold_folder("nnUNetTrainerVQSeg")
    assert (folder / "checkpoint_final.pth").exists()
    assert (folder / "validation" / "summary.json").exists()
