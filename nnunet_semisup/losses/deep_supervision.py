"""Deep supervision of labels that are made during the step, which no loader could shrink."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nnunet_semisup.losses.targets import PseudoLabel


def deep_supervised(
    loss: Callable[[Tensor, PseudoLabel], Tensor],
    outputs: Any,
    label: PseudoLabel,
    weights: Sequence[float],
) -> Tensor:
    """Return the weighted sum of a loss over a decoder's outputs, as nnU-Net does for its targets.

    Args:
        loss: of ``(B, C, *spatial)`` logits and a label of their size.
        outputs: logits, a list of them from full resolution downwards under deep supervision.
        label: at full resolution; each output is given :meth:`PseudoLabel.resized`.
        weights: of the outputs (``DeepSupervisionWrapper.weight_factors``); one of 0 leaves its
            output out. Not read without deep supervision.
    """
    if isinstance(outputs, Tensor):
        return loss(outputs, label)
    terms = [
        weight * loss(logits, label.resized(logits.shape[2:]))
        for weight, logits in zip(weights, outputs, strict=True)
        if weight != 0
    ]
    return torch.stack(terms).sum()
