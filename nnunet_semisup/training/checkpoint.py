"""Checkpoints that stock nnU-Net predicts from and that restore everything else too."""

from __future__ import annotations

import random
from collections.abc import Callable
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_semisup import __version__
from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.errors import UserError, exit_code_two_in_commands

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as _Host
else:
    _Host = object

KEY = "nnunet_semisup"
"""The one extra key of a checkpoint."""


def stock_content(trainer: Any, predictor: nn.Module, next_epoch: int) -> dict[str, Any]:
    """What nnU-Net itself writes into a checkpoint.

    Args:
        trainer: whose state it is. Where its predicting network is the plan's, the checkpoint names
            nnUNetTrainer, so that stock nnU-Net can predict from it.
        predictor: the network whose weights predict.
        next_epoch: with which a continued run begins.
    """
    cls = type(trainer)
    plain = cls.build_network_architecture is nnUNetTrainer.build_network_architecture
    scaler = trainer.grad_scaler
    return {
        "network_weights": predictor.state_dict(),
        "optimizer_state": trainer.optimizer.state_dict(),
        "grad_scaler_state": None if scaler is None else scaler.state_dict(),
        "logging": trainer.logger.get_checkpoint(),
        "_best_ema": trainer._best_ema,
        "current_epoch": next_epoch,
        "init_args": trainer.my_init_kwargs,
        "trainer_name": nnUNetTrainer.__name__ if plain else cls.__name__,
        "inference_allowed_mirroring_axes": trainer.inference_allowed_mirroring_axes,
    }


def save_atomically(checkpoint: dict[str, Any], filename: str) -> None:
    """Writes a checkpoint so that ``filename`` is at every moment either the old or the new one."""
    with atomic_path(Path(filename)) as temporary:
        torch.save(checkpoint, temporary)


def remove_leftovers(folder: str) -> None:
    """Removes the temporary files of a run in ``folder`` that was killed while writing."""
    for pattern in (".checkpoint_*_*.pth", ".semisup_*_*.*"):
        for path in Path(folder).glob(pattern):
            path.unlink(missing_ok=True)


def set_aside(folder: str, log: Callable[[str], None]) -> None:
    """Renames the checkpoints of an earlier run in ``folder``, which a new run is not to continue.

    ``--c`` prefers ``checkpoint_final.pth``, and a finished training removes
    ``checkpoint_latest.pth``: beside an old final one, what a new run saves would be lost.
    """
    for name in ("final", "latest", "best"):
        path = Path(folder, f"checkpoint_{name}.pth")
        if path.is_file():
            kept = path.replace(path.with_name(f"checkpoint_{name}_previous.pth"))
            log(f"An earlier run's {path.name} is kept as {kept.name}")


def furthest(filename: str) -> str:
    """``filename``, or the latest checkpoint beside a final one where that has come further.

    ``--c`` prefers ``checkpoint_final.pth``, which a run that is continued with more epochs leaves
    as it is until it ends.
    """
    latest = Path(filename).with_name("checkpoint_latest.pth")
    if Path(filename).name != "checkpoint_final.pth" or not latest.is_file():
        return filename
    done = [
        torch.load(path, map_location="cpu", weights_only=False, mmap=True)["current_epoch"]
        for path in (filename, latest)
    ]
    return str(latest) if done[1] >= done[0] else filename


def read_checkpoint(filename: str, device: torch.device, continues: bool) -> dict[str, Any]:
    """Return the content of a checkpoint.

    Args:
        filename: the checkpoint's.
        device: where its tensors are to be.
        continues: take the :func:`furthest` one in its place.

    Raises:
        UserError: it does not exist.
    """
    if not isfile(filename):
        raise UserError(f"There is no checkpoint {filename}. Train first, without --c.")
    if continues:
        filename = furthest(filename)
    state: dict[str, Any] = torch.load(filename, map_location=device, weights_only=False)
    return state


def restore_stock_content(trainer: Any, checkpoint: dict[str, Any]) -> None:
    """Give a trainer what :func:`stock_content` wrote, but for the weights.

    nnU-Net saves the latest checkpoint before it compares the epoch with the best one, so that the
    best moving average is looked for among all; those that are NaN are none.
    """
    trainer.my_init_kwargs = checkpoint["init_args"]
    trainer.current_epoch = checkpoint["current_epoch"]
    log = {name: values[: trainer.current_epoch] for name, values in checkpoint["logging"].items()}
    trainer.logger.load_checkpoint(log)
    averages = [checkpoint["_best_ema"], *log["ema_fg_dice"]]
    known = [value for value in averages if value is not None and np.isfinite(value)]
    trainer._best_ema = max(known, default=None)
    axes = "inference_allowed_mirroring_axes"
    setattr(trainer, axes, checkpoint.get(axes, getattr(trainer, axes)))
    trainer.optimizer.load_state_dict(checkpoint["optimizer_state"])
    trainer.use_new_weight_decay()
    if trainer.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
        trainer.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of python's, numpy's and torch's generators, the device's included."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.random.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Sets what :func:`random_states` gave; a device's state only on a device of that kind."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.random.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
    if device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"].cpu())


class Checkpoints(_Host):
    """Saving and loading of a semi-supervised trainer.

    ``network_weights`` predict; optimizer aside, everything else sits under :data:`KEY`.
    """

    def save_checkpoint(self, filename: str) -> None:
        """Writes ``filename`` atomically; stock nnU-Net can predict from it."""
        self._save(filename, self.current_epoch + 1)

    def _save(self, filename: str, next_epoch: int) -> bool:
        """Whether this rank wrote ``filename``."""
        if self.local_rank != 0:
            return False
        self.refuse_broken_weights()
        if self.disable_checkpointing:
            self.print_to_log_file("No checkpoint written, checkpointing is disabled")
            return False
        teaches = self.teacher is not None and self.predict_with_teacher
        predictor = self.teacher.module if teaches else self.student
        stock = stock_content(self, predictor, next_epoch)
        save_atomically({**stock, KEY: self.extra_state()}, filename)
        return True

    def extra_state(self) -> dict[str, Any]:
        """Everything that resuming needs beyond nnU-Net's own; methods extend it."""
        return {
            "version": __version__,
            "trainer": type(self).__name__,
            "configuration": self.hyperparameters(),
            "trained_on": list(self._trained_on),
            "training_network": self.training_network.state_dict(),
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
            "iteration": self.iteration,
            "train_losses": [float(loss) for loss in self._train_losses],
            "monitor": self.monitor.state_dict(),
            "random": random_states(self.device),
        }

    @exit_code_two_in_commands()
    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Restores a run bit by bit (on one machine and device).

        Hyper-parameters are the run's own, unless ``nnUNet_semisup_set`` has others; the seed is
        always the run's.

        Raises:
            UserError: the checkpoint was not written by this trainer, or its network has other
                parts than the given hyper-parameters ask for.
        """
        checkpoint = filename_or_checkpoint
        if isinstance(checkpoint, str):
            checkpoint = read_checkpoint(checkpoint, self.device, self.continues)
        state = checkpoint.get(KEY)
        if state is None or state["trainer"] != type(self).__name__:
            written_by = checkpoint["trainer_name"] if state is None else state["trainer"]
            raise UserError(
                f"The checkpoint was written by {written_by}, not by {type(self).__name__}: it "
                "cannot be continued. Use that trainer, or start anew without --c."
            )
        self.take_over(state["configuration"])
        if not self.was_initialized:
            self.initialize()
        self.load_extra_state(state)
        restore_stock_content(self, checkpoint)

    def resume_random_states(self) -> None:
        """Continues the generators of the first rank; other ranks seed theirs anew, and apart."""
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

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`extra_state` gave; methods extend it."""
        try:
            self.training_network.load_state_dict(state["training_network"])
        except RuntimeError as error:
            raise UserError(
                "The checkpoint's network has other parts than the one that these hyper-parameters "
                f"ask for. Continue with those in {self.output_folder}/semisup_config.json, or "
                f"start anew without --c. ({error})"
            ) from error
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])
        self._trained_on = state.get("trained_on", ())
        self.iteration = state["iteration"]
        self._train_losses = [torch.tensor(x, device=self.device) for x in state["train_losses"]]
        self.monitor.load_state_dict(state["monitor"], self.device)
        self._resume_random = state["random"]
