"""nnU-Net's loop, resumable within an epoch, stoppable between two steps, with a row per epoch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import join
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_semisup.errors import exit_code_two_in_commands
from nnunet_semisup.training.checkpoint import (
    load_training_network,
    random_states,
    refuse_other_trainer,
    restore_random_states,
)
from nnunet_semisup.training.common import CommonTrainer
from nnunet_semisup.training.divergence import all_finite
from nnunet_semisup.training.ending import ending
from nnunet_semisup.training.interruption import Interruption
from nnunet_semisup.training.mlflow_logger import log_terms
from nnunet_semisup.training.monitor import Monitor


class LoopTrainer(CommonTrainer):
    """Let a run be stopped and go on as if it had not been, to the last bit."""

    def start_records(self) -> None:
        """Start without an epoch, a signal and a loss."""
        super().start_records()
        self.monitor = Monitor()
        self.interruption = Interruption()
        self._train_losses: list[Tensor] = []
        self._resume_random: dict[str, Any] | None = None
        self._passed: set[float] = set()

    # What a method can use.

    @property
    def step_number(self) -> int:
        """Steps done since the start of the training."""
        return self.current_epoch * self.num_iterations_per_epoch + self.iteration

    @property
    def progress(self) -> float:
        """Fraction of the training steps done, in [0, 1)."""
        return self.step_number / (self.num_epochs * self.num_iterations_per_epoch)

    def passed(self, fraction: float) -> bool:
        """Tell whether this fraction of the training was reached; once true, it stays true.

        A finished run that is continued with more epochs has done a smaller fraction of them.
        """
        if self.progress >= fraction:
            self._passed.add(fraction)
        return fraction in self._passed

    # What the trainer fills in.

    @property
    def period(self) -> int:
        """Steps after which what a step does begins anew; default 1, as all do the same."""
        return 1

    def diagnostics(self, batch: dict[str, Any]) -> dict[str, float]:
        """Return numbers of the epoch, given its last batch; default none."""
        return {}

    @contextmanager
    def predicting(self, deep_supervision: bool) -> Iterator[None]:
        """Make ``self.network`` the network whose weights predict, inside."""
        yield

    # The loop.

    @exit_code_two_in_commands()
    def on_train_start(self) -> None:
        """Begin as nnU-Net does; where a run is continued, let its random numbers go on."""
        super().on_train_start()
        self._resume_random_states()

    def run_training(self) -> None:
        """Train nnU-Net's epochs, save and exit between two steps when a signal asks for it."""
        with self.interruption, ending(self):
            self.on_train_start()
            while self.current_epoch < self.num_epochs:
                self._run_epoch()
            self.on_train_end()
        number = self.interruption.signal_number
        if number is not None:
            self.print_to_log_file("Stopped after the last epoch; validate with --val")
            raise SystemExit(128 + number)

    def _run_epoch(self) -> None:
        self.on_epoch_start()
        self.on_train_epoch_start()
        last = None
        while self.iteration < self.num_iterations_per_epoch:
            if number := self.asked_to_stop():
                self.stop(number)
            last = next(self.dataloader_train)
            self._train_losses.append(self.train_step(last)["loss"])
            self.iteration += 1
        self._finish_train_epoch(last)
        with torch.no_grad(), self.predicting(self.enable_deep_supervision):
            self.on_validation_epoch_start()
            outputs = []
            for _ in range(self.num_val_iterations_per_epoch):
                if self.asked_to_stop():
                    break
                outputs.append(self.validation_step(next(self.dataloader_val)))
        if number := self.asked_to_stop():
            self.stop(number)
        self.on_validation_epoch_end(outputs)
        self.iteration, self._train_losses = 0, []
        self.on_epoch_end()
        if self.current_epoch < self.num_epochs and (number := self.asked_to_stop()):
            self.stop(number)

    def _finish_train_epoch(self, batch: dict[str, Any] | None) -> None:
        losses = torch.stack(self._train_losses).float().cpu().numpy()
        self.on_train_epoch_end([{"loss": loss} for loss in losses])
        if any(row["epoch"] == self.current_epoch for row in self.monitor.rows):
            return
        extra: dict[str, float] = {}
        if batch is not None and all_finite(self.training_network.parameters()):
            extra = self.diagnostics(batch)
        log_terms(self.logger, self.monitor.finish_epoch(self.current_epoch, extra))
        if self.local_rank == 0:
            self.monitor.write(self.output_folder)
        self.refuse_broken_losses(losses)
        self.refuse_broken_weights()

    def on_train_end(self) -> None:
        """End as nnU-Net does, and write the record's last rows."""
        super().on_train_end()
        if self.local_rank == 0:
            self.monitor.write(self.output_folder)

    def broken_terms(self) -> list[str]:
        """Return names of the terms and diagnostics that are NaN or Inf in the last epoch."""
        last = self.monitor.rows[-1] if self.monitor.rows else {}
        return [name for name, value in last.items() if not np.isfinite(value)]

    def asked_to_stop(self) -> int:
        """Return the number of the signal that any rank received, or 0."""
        return self.ranks.greatest(self.interruption.signal_number or 0)

    def stop(self, number: int) -> None:
        """Save and exit with 128 + ``number``; other ranks wait until the first one has saved."""
        latest = join(self.output_folder, "checkpoint_latest.pth")
        if self.write_checkpoint(latest, self.current_epoch):
            self.print_to_log_file("Stopped and saved; continue with --c")
        elif self.local_rank == 0:
            self.print_to_log_file("Stopped; nothing was saved")
        self.ranks.greatest(0)
        raise SystemExit(128 + number)

    # Checkpoints.

    def extra_state(self) -> dict[str, Any]:
        """Return everything that resuming needs beyond nnU-Net's own; a method extends it."""
        return {
            **super().extra_state(),
            "training_network": self.training_network.state_dict(),
            "iteration": self.iteration,
            "passed": sorted(self._passed),
            "train_losses": [float(loss) for loss in self._train_losses],
            "monitor": self.monitor.state_dict(),
            "random": random_states(self.device),
        }

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that another trainer wrote.

        Raises:
            UserError: it did.
        """
        refuse_other_trainer(checkpoint, type(self).__name__)

    def load_extra_state(self, state: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Restore what :meth:`extra_state` gave, bit by bit on one machine and device.

        Raises:
            UserError: the network has other parts than the hyper-parameters ask for.
        """
        load_training_network(self.training_network, state, self.output_folder)
        self.iteration = state["iteration"]
        self._passed = set(state["passed"])
        self._train_losses = [torch.tensor(x, device=self.device) for x in state["train_losses"]]
        self.monitor.load_state_dict(state["monitor"], self.device)
        self._resume_random = state["random"]

    def _resume_random_states(self) -> None:
        """Continue the generators of the first rank; other ranks seed theirs anew, and apart."""
        if self._resume_random is None:
            return
        if self.local_rank == 0:
            restore_random_states(self._resume_random, self.device)
            return
        key = [int(self.seed or 0), self.local_rank, self.current_epoch, self.iteration]
        words = np.random.SeedSequence(key).generate_state(3)
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))
        torch.manual_seed(int(words[2]))
