"""Optimizers' steps, and AdamW with warm-up for networks that SGD trains badly (attention)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn
from torch.optim import AdamW, Optimizer

ADAMW = {"initial_lr": 3e-4, "weight_decay": 5e-2}
"""Learning rate and weight decay where a run sets none: those of nnU-Net 2.8's Primus trainers."""

CLIP_NORM = 12
"""Greatest norm of the gradient of each network, as in nnU-Net."""

WARMUP = 0.05
"""Fraction of the epochs over which the learning rate rises, as in nnU-Net's warm-up trainers."""


class WarmupPolyLR(PolyLRScheduler):
    """Follow nnU-Net's polynomial schedule, after a linear warm-up over the first epochs."""

    def __init__(self, optimizer: Optimizer, initial_lr: float, epochs: int) -> None:
        self.rising = max(1, round(WARMUP * epochs))
        super().__init__(optimizer, initial_lr, epochs)

    def step(self, current_step: int | None = None) -> None:
        """Set the rate of an epoch, counted from 0; without one, of the next."""
        super().step(current_step)
        step = self.ctr - 1 if current_step in (None, -1) else current_step
        share = min(1.0, (int(step or 0) + 1) / self.rising)
        for group in self.optimizer.param_groups:
            group["lr"] *= share
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def adamw_with_warmup(
    parameters: Iterable[nn.Parameter], initial_lr: float, weight_decay: float, epochs: int
) -> tuple[AdamW, WarmupPolyLR]:
    """Make optimizer and schedule.

    Args:
        parameters: to train.
        initial_lr: greatest learning rate.
        weight_decay: decoupled from the gradient.
        epochs: of the training.
    """
    optimizer = AdamW(parameters, initial_lr, weight_decay=weight_decay)
    return optimizer, WarmupPolyLR(optimizer, initial_lr, epochs)


def clip_groups(modules: Iterable[nn.Module], optimizer: Optimizer) -> list[list[nn.Parameter]]:
    """Return parameters by the module with which their gradients are clipped.

    Args:
        modules: the first takes what is optimized and in none of them.
        optimizer: of all parameters.
    """
    groups = [list(module.parameters()) for module in modules]
    listed = {id(parameter) for group in groups for parameter in group}
    optimized = (p for group in optimizer.param_groups for p in group["params"])
    groups[0] += [parameter for parameter in optimized if id(parameter) not in listed]
    return [group for group in groups if group]


def clip_and_step(
    optimizer: Optimizer, scaler: Any, groups: Iterable[Iterable[nn.Parameter]]
) -> None:
    """Clip each group's gradient by itself, then make the optimizer's step.

    Args:
        optimizer: of all parameters.
        scaler: of the gradient, or ``None``.
        groups: parameters that share a norm of at most :data:`CLIP_NORM`.
    """
    if scaler is not None:
        scaler.unscale_(optimizer)
    for parameters in groups:
        nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
    if scaler is None:
        optimizer.step()
        return
    scaler.step(optimizer)
    scaler.update()
