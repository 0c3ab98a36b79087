"""Features of each class that outlive a step, as buffers of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ClassMemory(nn.Module):
    """Keep up to ``size`` features of each class, the last push first, its best-scored first.

    Buffers of fixed shape, so that no step waits for the device, and device, checkpoint and, in
    distributed training, rank 0's rows for all ranks come with the network that holds this.

    Args:
        classes: number of classes.
        size: rows a class.
        dim: width of a row.
    """

    features: Tensor
    filled: Tensor

    def __init__(self, classes: int, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(classes, size, dim))
        self.register_buffer("filled", torch.zeros(classes, dtype=torch.long))

    @torch.no_grad()
    def push(self, features: Tensor, classes: Tensor, scores: Tensor) -> None:
        """Put the best-scored rows of each class before those that are there.

        Older rows move back and the last of them are dropped; a class without new rows keeps what
        it has. Scores are compared within one push only: those of an earlier network are no match.

        Args:
            features: ``(N, D)``; the time grows with N times the number of classes, so thin out
                voxels before.
            classes: ``(N,)`` integers; rows of another number (an ignore label) are not taken.
            scores: ``(N,)``; rows whose score is ``-inf`` or NaN are not taken.
        """
        count, size, _ = self.features.shape
        numbers = torch.arange(count, device=classes.device)[:, None]
        usable = (classes == numbers) & (scores > -torch.inf)
        best, index = torch.where(usable, scores, -torch.inf).topk(min(size, len(scores)), dim=1)
        self.put(features[index], best > -torch.inf)

    @torch.no_grad()
    def put(self, rows: Tensor, there: Tensor) -> None:
        """Put rows of each class before those that are there, of which the last are dropped.

        Args:
            rows: ``(classes, N, D)``, the first of a class to be the first of the memory.
            there: ``(classes, N)`` bool, which of them are to be taken.
        """
        size = self.features.shape[1]
        rows = torch.cat((rows.detach().to(self.features.dtype), self.features), 1)
        there = torch.cat((there, self._mask()), 1)
        order = there.byte().argsort(dim=1, descending=True, stable=True)[:, :size]
        self.features.copy_(rows.gather(1, order[..., None].expand(-1, -1, rows.shape[-1])))
        self.filled.copy_(there.sum(1).clamp_max(size))

    def per_class(self) -> tuple[Tensor, Tensor]:
        """Return rows ``(classes, size, D)`` and which of them are filled ``(classes, size)``.

        The rows are a copy: a later push does not disturb a backward pass.
        """
        return self.features.clone(), self._mask()

    def _mask(self) -> Tensor:
        slots = torch.arange(self.features.shape[1], device=self.filled.device)
        return slots < self.filled[:, None]
