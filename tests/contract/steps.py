"""Steps of a trainer's own networks, whose terms a test writes out from the paper's equations.

A batch with padding, and probabilities in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor
from torch._dynamo.utils import counters

from nnunet_semisup.training.batches import Labeled, Unlabeled

KINDS = ("ignore3d", "regions2d")
"""Kinds of data sets that have, between them, classes, regions, an ignore label, 2D and 3D."""


def ready(
    build: Callable[..., Any], cls: type, kind: str, **settings: Any
) -> tuple[Any, Labeled, Unlabeled]:
    """Return a trainer in its second epoch and a batch with padding in the unlabeled patches."""
    trainer = build(cls, kind, **settings)
    trainer.current_epoch = 1
    labeled, unlabeled = trainer.to_device(next(trainer.dataloader_train))
    unlabeled.valid[0, :, :5] = False
    return trainer, labeled, unlabeled


@contextmanager
def compiled() -> Iterator[None]:
    """Let trainers compile as on a GPU; the backend runs what Dynamo traced as it is."""
    compile_for_gpu = torch.compile
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "compile", lambda model: compile_for_gpu(model, backend="eager"))
        patched.setattr(nnUNetTrainer, "_do_i_compile", lambda _: True)
        torch._dynamo.reset()
        counters.clear()
        yield
    torch._dynamo.reset()


def terms_of(trainer: Any, labeled: Labeled, unlabeled: Unlabeled) -> dict[str, float]:
    """Return every term of a step; random numbers begin with seed 0."""
    torch.manual_seed(0)
    groups = list(trainer.compute_losses(labeled, unlabeled))
    return {name: float(term.detach()) for terms in groups for name, term in terms.items()}


def full(output: Any) -> Tensor:
    """Return the output at full resolution in float64."""
    return (output[0] if isinstance(output, list) else output).detach().double()


def chances(logits: Tensor, regions: bool) -> Tensor:
    """Return probabilities ``(B, G, 2 or C, *spatial)``: a group of rivals for each decision.

    Classes are one group. Regions are each one of two, absent and present.
    """
    if not regions:
        return torch.exp(logits - logits.logsumexp(1, keepdim=True))[:, None]
    present = 1 / (1 + torch.exp(-logits))
    return torch.stack([1 - present, present], 2)


def truth_of(trainer: Any, labeled: Labeled) -> tuple[Tensor, Tensor]:
    """Return labels as probabilities like ``chances``, and where they are known, (B, G, ...)."""
    target = labeled.target[0]
    if trainer.regions:
        return torch.stack([target == 0, target == 1], 2).double(), torch.ones_like(target).bool()
    ignore = trainer.label_manager.ignore_label
    classes = [(target[:, 0] == number) for number in range(ignore)]
    return torch.stack(classes, 1)[:, None].double(), target != ignore


def dice_loss(probs: Tensor, truth: Tensor, known: Tensor) -> float:
    """Return the mean over classes but the background, or regions, of 1 - Dice."""
    overlap, size = (
        (part[:, :, 1:] * known[:, :, None]).transpose(0, 2).flatten(2).sum(2)
        for part in (probs * truth, probs + truth)
    )
    return float((1 - 2 * overlap / size).mean())
