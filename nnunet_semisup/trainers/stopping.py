"""Stopping between two steps: asked for by a signal on any rank, agreed on by all of them."""

from __future__ import annotations

from os.path import join
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from nnunet_semisup.trainers.interruption import Interruption

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as _Host
else:
    _Host = object


class Stopping(_Host):
    """The part of a trainer that turns signals into a saved checkpoint and an exit code."""

    interruption: Interruption
    _hosts: Any = None

    def greatest_of_ranks(self, value: int) -> int:
        """The greatest ``value`` of all ranks; they exchange it on the host, no device waits."""
        if not self.is_ddp:
            return value
        if self._hosts is None:
            self._hosts = dist.new_group(backend="gloo")
        shared = torch.tensor(value)
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self._hosts)
        return int(shared)

    def asked_to_stop(self) -> int:
        """Number of the signal that any rank received, or 0; all ranks call it equally often."""
        return self.greatest_of_ranks(self.interruption.signal_number or 0)

    def stop(self, number: int) -> None:
        """Saves and exits with 128 + ``number``; other ranks wait until the first one has saved."""
        latest = join(self.output_folder, "checkpoint_latest.pth")
        if self._save(latest, self.current_epoch):
            self.print_to_log_file("Stopped and saved; continue with --c")
        elif self.local_rank == 0:
            self.print_to_log_file("Stopped; nothing was saved")
        self.greatest_of_ranks(0)
        raise SystemExit(128 + number)
