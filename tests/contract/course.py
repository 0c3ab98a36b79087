"""A short training, of which several tests look at the same stages."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nnunet_semisup.registry import Method

STEPS = 3
SAVED_AFTER = 2
SETTINGS = {"num_epochs": 2, "num_iterations_per_epoch": STEPS}


def networks_of(trainer: Any) -> list[Any]:
    """Return everything that learns or follows."""
    teacher = getattr(trainer, "teacher", None)
    return [trainer.training_network, *([] if teacher is None else [teacher])]


def states_of(trainer: Any) -> list[dict[str, torch.Tensor]]:
    """Return a copy of the state of each of them."""
    return [copy.deepcopy(network.state_dict()) for network in networks_of(trainer)]


def start_in_second_epoch(trainer: Any) -> None:
    """Bring a trainer to the first step of its second epoch, where ramps have risen."""
    trainer.current_epoch = 1
    trainer.on_train_start()
    trainer.on_train_epoch_start()


def in_the_same_folder(resumed: Any, before: Any) -> None:
    """Give a trainer what an earlier one left in its folder, as ``--c`` finds it."""
    shutil.copytree(before.output_folder, resumed.output_folder, dirs_exist_ok=True)


class Course:
    """Three steps in the second of two epochs, with a checkpoint after two of them.

    Attributes:
        trainer: after the steps. Tests may go on with it: the rest here is as it was recorded.
        started, ended: states of its networks before the first and after the last step.
        batches: of the steps.
        losses: of each step.
        file: the checkpoint.
        random_state: of torch's generator when it was written.
    """

    def __init__(self, build: Callable[..., Any], method: Method, kind: str, folder: Path) -> None:
        self.trainer = build(method, kind, start=False, **SETTINGS)
        start_in_second_epoch(self.trainer)
        self.started = states_of(self.trainer)
        self.batches = [next(self.trainer.dataloader_train) for _ in range(STEPS)]
        self.losses = [self._step(batch) for batch in self.batches[:SAVED_AFTER]]
        self.file = str(folder / "checkpoint.pth")
        self.trainer.write_checkpoint(self.file, self.trainer.current_epoch)
        self.random_state = torch.random.get_rng_state()
        self.losses += [self._step(batch) for batch in self.batches[SAVED_AFTER:]]
        self.ended = states_of(self.trainer)

    def _step(self, batch: dict[str, Any]) -> float:
        loss = self.trainer.train_step(copy.deepcopy(batch))["loss"]
        self.trainer.iteration += 1
        return float(loss)
