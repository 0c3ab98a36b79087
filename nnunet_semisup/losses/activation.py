"""Decide between softmax (labels) and sigmoid (regions), in this one place."""

from __future__ import annotations

import torch
from torch import Tensor


def probabilities(logits: Tensor, regions: bool) -> Tensor:
    """Return ``(B, C, *spatial)`` logits as float32 probabilities (sigmoid for regions)."""
    logits = logits.float()
    return torch.sigmoid(logits) if regions else torch.softmax(logits, 1)


def foreground_probabilities(logits: Tensor, regions: bool) -> Tensor:
    """Return the float32 probabilities of classes or regions alone, without the background's."""
    probs = probabilities(logits, regions)
    return probs if regions else probs[:, 1:]


def hard_labels(probs: Tensor, regions: bool) -> Tensor:
    """Return the predicted labels.

    Args:
        probs: ``(B, C, *spatial)``.
        regions: channels overlap and are decided one by one.

    Returns:
        ``(B, 1, *spatial)`` int64 class numbers, or ``(B, C, *spatial)`` float 0/1 for regions.
    """
    return (probs > 0.5).float() if regions else probs.argmax(1, keepdim=True)


def confidence(probs: Tensor, regions: bool) -> Tensor:
    """Return the predicted label's probability: ``(B, 1, *spatial)``; for regions one a channel."""
    return torch.maximum(probs, 1.0 - probs) if regions else probs.amax(1, keepdim=True)
