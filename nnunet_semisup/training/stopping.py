"""Stopping: asked for by a signal on any rank, or because the training diverged."""

from __future__ import annotations

from os.path import join
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from nnunet_semisup.errors import DivergedError
from nnunet_semisup.training.interruption import Interruption

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as _Host
else:
    _Host = object


LAST_STEPS = 10
"""Steps at an epoch's end that must all have failed for a training to count as diverged."""


class Divergence(_Host):
    """The part of a trainer that ends what cannot recover, and agrees on it with other ranks."""

    training_network: Any
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

    def has_diverged(self) -> bool:
        """Whether a weight in training is NaN or Inf; waits for the device."""
        finite = [p.isfinite().all() for p in self.training_network.parameters()]
        return not bool(torch.stack(finite).all())

    def refuse_broken_weights(self) -> None:
        """Ends a training that cannot recover, while the checkpoints still hold good weights.

        Raises:
            DivergedError: a weight in training is NaN or Inf.
        """
        if self.has_diverged():
            self._end_diverged("weights")

    def refuse_broken_losses(self, losses: np.ndarray) -> None:
        """Ends a training whose epoch's last steps all had a loss of NaN or Inf, on any rank.

        On GPUs the loss is scaled, such steps are left out and the weights stay as they are: the
        training would run on without learning anything.

        Args:
            losses: ``(steps,)`` of the epoch.

        Raises:
            DivergedError: it is so.
        """
        if self.greatest_of_ranks(int(not np.isfinite(losses[-LAST_STEPS:]).any())):
            self._end_diverged("losses")

    def broken_terms(self) -> list[str]:
        """Names of the loss terms that are NaN or Inf, where they are recorded; default none."""
        return []

    def _end_diverged(self, what: str) -> None:
        names = ", ".join(self.broken_terms())
        terms = f" (in semisup_terms.csv: {names})" if names else ""
        weight = " or the weight of the term" if names else ""
        message = (
            f"The training diverged in epoch {self.current_epoch}{terms}: {what} are NaN or Inf. "
            f"The checkpoints of the epochs before are as they were. Lower initial_lr{weight} by "
            "nnUNet_semisup_set, then continue with --c or start anew."
        )
        self.print_to_log_file(message)
        raise DivergedError(message)


class Stopping(Divergence):
    """The part of a trainer that turns signals into a saved checkpoint and an exit code."""

    interruption: Interruption

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
