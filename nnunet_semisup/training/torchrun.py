"""A training on several machines: the processes are torchrun's, the trainer and its loop nnU-Net's.

nnU-Net 2.8 starts the processes of a distributed training itself, on one machine, and takes the
rank among all of them for the number of a GPU.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from os.path import join
from typing import Any

import torch
import torch.distributed as dist
from torch.backends import cudnn
from torch.nn.parallel import DistributedDataParallel

from nnunet_semisup.errors import UserError
from nnunet_semisup.training.ranks import use_device_of_process
from nnunet_semisup.training.settings import OF_THE_MACHINE

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
"""What torchrun tells each process."""


@dataclass(frozen=True)
class Place:
    """Say which of the processes this is.

    Attributes:
        rank: among all, from 0.
        local_rank: among those of this machine, from 0.
        processes: their number.
        on_machine: number of those of this machine.
    """

    rank: int
    local_rank: int
    processes: int
    on_machine: int

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Place:
        """Read what torchrun set.

        Raises:
            UserError: a variable is missing, or no number.
        """
        try:
            rank, local_rank, processes = (int(variables[name]) for name in VARIABLES)
            return cls(rank, local_rank, processes, int(variables.get("LOCAL_WORLD_SIZE", 1)))
        except (KeyError, ValueError) as error:
            given = ", ".join(f"{name}={variables.get(name, '')}" for name in VARIABLES)
            raise UserError(
                f"{given}: several processes need a number in each of them. Start with torchrun, "
                "which sets them, or unset WORLD_SIZE to train in one process."
            ) from error

    def device(self, kind: str) -> torch.device:
        """Return the device of this process, with as many threads for it as it shall have.

        Args:
            kind: ``cuda`` or ``cpu``.

        Raises:
            UserError: this machine has no GPU for each of its processes, or ``kind`` is another.
        """
        if kind not in ("cuda", "cpu"):
            raise UserError(f"-device {kind}: several processes train on cuda or cpu")
        if kind == "cpu":
            torch.set_num_threads(max(1, multiprocessing.cpu_count() // self.on_machine))
            return torch.device("cpu")
        there = torch.cuda.device_count()
        if self.local_rank >= there:
            raise UserError(
                f"process {self.local_rank} of this machine has no GPU: torch sees {there}. Give "
                "torchrun --nproc_per_node the number of GPUs of each machine, or -device cpu."
            )
        torch.set_num_threads(1)
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)


@contextmanager
def processes_connected(device: torch.device) -> Iterator[None]:
    """Connect this process with the others of torchrun, and wrap networks for its device, inside.

    Args:
        device: of the process.
    """
    module: Any = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    of_nnunet = module.DDP
    module.DDP = lambda network, device_ids: DistributedDataParallel(network)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        module.DDP = of_nnunet
        dist.destroy_process_group()


def refuse_disagreement(trainer: Any) -> None:
    """Refuse processes that would not train one model.

    Args:
        trainer: of this process, its checkpoint loaded where there is one.

    Raises:
        UserError: settings, plans or the step differ; on all processes.
    """
    settings: dict[str, Any] = getattr(trainer, "hyperparameters", dict)()
    plans = json.dumps(trainer.plans_manager.plans, sort_keys=True, default=str)
    own = {
        "trainer": type(trainer).__name__,
        "epoch": trainer.current_epoch,
        "step of the epoch": getattr(trainer, "iteration", 0),
        "plans": hashlib.sha256(plans.encode()).hexdigest()[:8],
        **{name: value for name, value in settings.items() if name not in OF_THE_MACHINE},
    }
    found: list[dict[str, Any]] = [own] * dist.get_world_size()
    dist.all_gather_object(found, own)
    faults = [
        f"{name}: {found[0].get(name)} in process 0, {other.get(name)} in process {rank}"
        for rank, other in enumerate(found)
        for name in found[0] | other
        if found[0].get(name) != other.get(name)
    ]
    if faults:
        listed = "\n  ".join(faults)
        raise UserError(
            f"The processes would not train one model:\n  {listed}\nGive all machines the same "
            "nnUNet_results, nnUNet_preprocessed and nnUNet_semisup_set."
        )


def train(arguments: argparse.Namespace, place: Place) -> None:
    """Train and validate as one of several processes, as nnU-Net's own do.

    Args:
        arguments: of ``nnUNetv2_semisup_train``, which are ``nnUNetv2_train``'s.
        place: of this process.

    Raises:
        UserError: something does not fit.
        SystemExit: a signal came; all processes end after the same step.
    """
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    device = place.device(arguments.device)
    fold = arguments.fold if arguments.fold == "all" else int(arguments.fold)
    with processes_connected(device):
        trainer: Any = get_trainer_from_args(
            *(arguments.dataset_name_or_id, arguments.configuration, fold, arguments.tr),
            *(arguments.p, arguments.c),
            device=device,
        )
        use_device_of_process(trainer, device)
        trainer.disable_checkpointing = arguments.disable_checkpointing
        maybe_load_checkpoint(trainer, arguments.c, arguments.val, arguments.pretrained_weights)
        refuse_disagreement(trainer)
        if device.type == "cuda":
            cudnn.deterministic, cudnn.benchmark = False, True
        if not arguments.val:
            trainer.run_training()
        if arguments.val_best:
            trainer.load_checkpoint(join(trainer.output_folder, "checkpoint_best.pth"))
        trainer.perform_actual_validation(arguments.npz)
