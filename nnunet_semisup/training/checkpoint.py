"""Checkpoints that stock nnU-Net predicts from and that restore everything else too."""

from __future__ import annotations

import random
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.errors import UserError
from nnunet_semisup.safe_files import KEY, read_checkpoint_file
from nnunet_semisup.training.archive import Log, archive
from nnunet_semisup.training.validation import archive_validation


def stock_content(trainer: Any, predictor: nn.Module, next_epoch: int) -> dict[str, Any]:
    """Return what nnU-Net itself writes into a checkpoint.

    Args:
        trainer: whose state it is. Where its predicting network is the plan's, the checkpoint names
            nnUNetTrainer, so that stock nnU-Net can predict from it.
        predictor: the network whose weights predict.
        next_epoch: with which a continued run begins.
    """
    cls = type(trainer)
    plain = cls.predicts_with_plan_network()
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
    """Write a checkpoint so that ``filename`` is at every moment either the old or the new one."""
    with atomic_path(Path(filename)) as temporary:
        torch.save(checkpoint, temporary)


def remove_leftovers(folder: str) -> None:
    """Remove the temporary files of a run in ``folder`` that was killed while writing."""
    for pattern in (".checkpoint_*_*.pth", ".semisup_*_*.*"):
        for path in Path(folder).glob(pattern):
            path.unlink(missing_ok=True)


def archive_previous(folder: str, log: Log) -> None:
    """Rename the checkpoints of an earlier run in ``folder``, which a new run is not to continue.

    ``--c`` prefers ``checkpoint_final.pth``, and a finished training removes
    ``checkpoint_latest.pth``: beside an old final one, what a new run saves would be lost.
    """
    for name in ("final", "latest", "best"):
        archive(Path(folder, f"checkpoint_{name}.pth"), log)


def set_aside(folder: str, checkpoints: bool, log: Log) -> None:
    """Rename what an earlier run left in a fold's folder, where a new one begins.

    Args:
        folder: the fold's.
        checkpoints: whether its checkpoints too, because the new run writes some.
        log: told what was renamed.
    """
    archive_validation(folder, log)
    if checkpoints:
        archive_previous(folder, log)


def latest_checkpoint(filename: str) -> str:
    """Return ``filename``, or the latest checkpoint beside a final one that has come further.

    ``--c`` prefers ``checkpoint_final.pth``, which a run that is continued with more epochs leaves
    as it is until it ends.
    """
    latest = Path(filename).with_name("checkpoint_latest.pth")
    if Path(filename).name != "checkpoint_final.pth" or not latest.is_file():
        return filename
    done = [read_checkpoint_file(path)["current_epoch"] for path in (filename, latest)]
    return str(latest) if done[1] >= done[0] else filename


def read_checkpoint(filename: str, device: torch.device, continues: bool) -> dict[str, Any]:
    """Return the content of a checkpoint.

    Args:
        filename: the checkpoint's.
        device: where its tensors are to be.
        continues: take the one of :func:`latest_checkpoint` in its place.

    Raises:
        UserError: it does not exist, or holds more than tensors, numbers and texts.
    """
    if not isfile(filename):
        raise UserError(f"There is no checkpoint {filename}. Train first, without --c.")
    if continues:
        filename = latest_checkpoint(filename)
    state: dict[str, Any] = read_checkpoint_file(filename, device, mapped=False)
    return state


def restore_stock_content(trainer: Any, checkpoint: dict[str, Any], new_decay: bool) -> None:
    """Give a trainer what :func:`stock_content` wrote, but for the weights.

    nnU-Net saves the latest checkpoint before it compares the epoch with the best one, so that the
    best moving average is looked for among all; those that are NaN are none.

    Args:
        trainer: that goes on.
        checkpoint: of its run.
        new_decay: whether the weight decay was set anew, so that the optimizer's does not count.
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
    for state in trainer.optimizer.state.values():
        if "step" in state:  # AdamW's, which the host reads in each step (PyTorch 2.14)
            state["step"] = state["step"].cpu()
    if new_decay:
        for group in trainer.optimizer.param_groups:
            group["weight_decay"] = trainer.weight_decay
    if trainer.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
        trainer.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of python's, numpy's and torch's generators, the device's included."""
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
    """Set what :func:`random_states` gave; a device's state only on a device of that kind."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.random.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
    if device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"].cpu())


def refuse_other_trainer(checkpoint: dict[str, Any], trainer: str) -> None:
    """Refuse a checkpoint that another trainer wrote.

    Args:
        checkpoint: its content.
        trainer: name of the class that would go on with it.

    Raises:
        UserError: it was another one, or one without a semi-supervised run's state.
    """
    state = checkpoint.get(KEY)
    if state is None or state["trainer"] != trainer:
        written_by = checkpoint["trainer_name"] if state is None else state["trainer"]
        raise UserError(
            f"The checkpoint was written by {written_by}, not by {trainer}: it "
            "cannot be continued. Use that trainer, or start anew without --c."
        )


def refuse_other_setting(
    state: dict[str, Any], name: str, value: str, default: str | None = None
) -> None:
    """Refuse a checkpoint with the state of another optimizer, or another loss.

    Args:
        state: of a checkpoint, with its ``configuration``.
        name: of the hyper-parameter.
        value: in the run that would go on.
        default: in checkpoints that do not have it yet.

    Raises:
        UserError: another one trained so far.
    """
    then = state["configuration"].get(name, default)
    if then != value:
        raise UserError(
            f"The checkpoint was trained with {name}={then}, whose state {value} "
            f"cannot use. Continue with {name}={then}, or start anew without --c."
        )


def load_training_network(network: nn.Module, state: dict[str, Any], folder: str) -> None:
    """Load the weights of a network in training.

    Args:
        network: in training.
        state: of a checkpoint, with its ``training_network``.
        folder: of the fold, where the hyper-parameters are.

    Raises:
        UserError: the network has other parts than the hyper-parameters ask for.
    """
    try:
        network.load_state_dict(state["training_network"])
    except RuntimeError as error:
        raise UserError(
            "The checkpoint's network has other parts than the one that these hyper-parameters "
            f"ask for. Continue with those in {folder}/semisup_config.json, or "
            f"start anew without --c. ({error})"
        ) from error
