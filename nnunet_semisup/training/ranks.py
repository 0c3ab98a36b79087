"""Agreement between the processes of a distributed training, without waiting for a device."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from nnunet_semisup.errors import UserError

T = TypeVar("T")
PATIENCE = timedelta(days=1)
"""For which processes wait for one that has more to do between two steps; a dead one ends all."""


class Ranks:
    """Connect the processes of a training; all of them call each method equally often.

    Args:
        distributed: whether there are several.
    """

    def __init__(self, distributed: bool) -> None:
        self._distributed = distributed
        self._hosts: Any = None

    def greatest(self, value: int) -> int:
        """Return the greatest ``value`` of all processes, exchanged on the host."""
        if not self._distributed:
            return value
        if self._hosts is None:
            self._hosts = dist.new_group(backend="gloo", timeout=PATIENCE)
        shared = torch.tensor(value)
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self._hosts)
        return int(shared)

    def second_is_lower(self, losses: torch.Tensor) -> torch.Tensor:
        """Tell whether the second of two losses is the lower one, over all processes; 0-d bool.

        Args:
            losses: ``(2,)`` of this process, without gradient; a tie goes to the first.
        """
        if self._distributed:
            losses = losses.clone()
            dist.all_reduce(losses)
        return losses[1] < losses[0]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over all processes; without one it counts as 0."""
        if not self._distributed:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()

    def share_first(self, module: nn.Module) -> None:
        """Give every process the first one's values of a module's parameters and buffers."""
        if self._distributed:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)

    def sum_of(self, counts: torch.Tensor) -> torch.Tensor:
        """Return the sum of ``counts``, a tensor on the host, over all processes."""
        if not self._distributed:
            return counts
        gathered: list[torch.Tensor] = [counts] * dist.get_world_size()
        dist.all_gather_object(gathered, counts)
        return torch.stack(gathered).sum(0)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's part of a work that they divide."""
        return items[dist.get_rank() :: dist.get_world_size()] if self._distributed else items

    def wait(self) -> None:
        """Wait for the other processes, on the host: NCCL ends a run after ten minutes."""
        self.greatest(0)


def use_device_of_process(trainer: Any, given: torch.device) -> None:
    """Put a trainer of a distributed run on the device of its process.

    nnU-Net 2.8 takes the rank among all processes for the number of the GPU, as it is on one
    machine; torchrun tells the one among those of each machine. A process alone stays as it is.

    Args:
        trainer: before it has a network.
        given: device that all processes were given.
    """
    if not trainer.is_ddp:
        return
    if given.type != "cuda":
        trainer.device, trainer.grad_scaler = given, None
        return
    number = int(os.environ.get("LOCAL_RANK", trainer.local_rank))
    trainer.device = torch.device("cuda", number)


def refuse_unfit_processes(configuration: str, batch_size: int) -> None:
    """Refuse processes that do not know of each other, and more of them than labeled patches.

    Args:
        configuration: name of what is trained.
        batch_size: its labeled patches a step.

    Raises:
        UserError: it is so.
    """
    if dist.is_available() and dist.is_initialized():
        processes = dist.get_world_size()
        if batch_size < processes:
            raise UserError(
                f"{processes} processes cannot share {batch_size} labeled patches, the batch_size "
                f"of {configuration} in the plans: start at most {batch_size}, or copy the plans "
                "and raise it there."
            )
    elif "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(
            "torchrun started several processes of nnUNetv2_train, each of which would train alone "
            "in the same folder. Start nnUNetv2_semisup_train, with the same arguments."
        )
