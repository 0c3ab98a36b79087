"""LoMix: the labeled loss of a decoder's outputs and of learned mixtures of them.

[0] LoMix: learnable weighted multi-scale logits mixing for medical image segmentation,
    NeurIPS 2025, arXiv 2510.22995.

Of the finest outputs P_1..P_k, each subset S of two or more is mixed by every operator:
    add   sum of P_i              cat   1x1 convolution of all channels, the mean at first
    mult  product of P_i          awf   sum of a_i P_i, a = softmax of a 1x1 convolution of each P_i
and the loss is sum of w_u L(P_u, y) over outputs and mixtures u.

Deviates from [0] and its released code: a mixture has the resolution of its finest member, and is
compared with the labels of that resolution (there: all at full size); the weights add up to 1 and
begin as nnU-Net's of the finest member's level; convolutions are parameters, one a subset (released
code: those of ``cat`` are drawn anew in every pass, those of ``awf`` shared by subsets of a size).
The weights' own gradient sees a loss that is not negative: under nnU-Net's, which falls below 0,
the weights of [0] grow without end, and under one above 0 they all go to 0 with the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nnunet_semisup.losses.precision import float32
from nnunet_semisup.losses.pyramid import at_full_size

Operator = Literal["add", "mult", "cat", "awf"]
Weights = Literal["fixed", "log", "softplus"]
LossAt = Callable[[Tensor, int], Tensor]

FINEST = {2: 4, 3: 3}
"""Outputs that are mixed at most, by spatial dimensions: 11 subsets in 2D, 4 in 3D."""
PACE = 1e-3
"""What is left of the weights' gradient: SGD with nnU-Net's momentum moves a hundredfold."""
BOUND = 8.0
"""Greatest size of a ``softplus`` weight's parameter; without, it drifts on for ever."""
LEAST_LOSS = 1e-3
"""Least loss that a weight sees, so that a ``log`` weight stays below its inverse."""


def number_mixed(outputs: int, dimensions: int) -> int:
    """Return how many of a decoder's outputs are mixed: never the last, which nnU-Net leaves out.

    Args:
        outputs: of the decoder.
        dimensions: of the images, 2 or 3.
    """
    return min(FINEST[dimensions], outputs - 1)


def subsets(number: int) -> list[tuple[int, ...]]:
    """Return every subset of at least two of the first ``number`` levels, finest member first."""
    return [one for size in range(2, number + 1) for one in combinations(range(number), size)]


class LoMix(nn.Module):
    """Weigh the losses of a decoder's outputs and of their mixtures ([0]).

    Args:
        level_weights: of the decoder's outputs in nnU-Net's loss, full resolution first; an output
            of weight 0 has no loss.
        channels: of an output.
        dimensions: of the images, 2 or 3.
        weights: ``fixed``: nnU-Net's weight of the finest member's level. Learned ones are factors
            of it: ``softplus`` ([0]), or ``log``, whose factors w cost -log w and go to 1/L.
        operators: by which subsets are mixed.
    """

    prior: Tensor

    def __init__(
        self,
        level_weights: Sequence[float],
        channels: int,
        dimensions: int,
        weights: Weights = "fixed",
        operators: Sequence[Operator] = ("add", "cat", "awf"),
    ) -> None:
        super().__init__()
        self.weights = weights
        self.levels = [level for level, weight in enumerate(level_weights) if weight != 0]
        found = subsets(number_mixed(len(level_weights), dimensions))
        self.mixtures = [(operator, subset) for operator in operators for subset in found]
        finest = [*self.levels, *(subset[0] for _, subset in self.mixtures)]
        prior = torch.tensor([level_weights[level] for level in finest], dtype=torch.float32)
        self.register_buffer("prior", prior / prior.sum(), persistent=False)
        self.raw = None if weights == "fixed" else nn.Parameter(torch.zeros(len(prior)))
        self.convolutions = nn.ModuleDict()
        for operator, subset in self.mixtures:
            if operator in ("cat", "awf"):
                made = _convolution(operator, len(subset), channels, dimensions)
                self.convolutions[_name(operator, subset)] = made

    def forward(self, outputs: Sequence[Tensor], loss_at: LossAt, lowest: float = 0.0) -> Tensor:
        """Return the weighted sum of the losses.

        Only one mixture is in memory at a time: each is computed again for its gradient.

        Args:
            outputs: ``(B, C, *spatial)`` logits of the decoder, full resolution first.
            loss_at: the loss of logits that have the resolution of the output of a number.
            lowest: the loss is never below it.
        """
        losses = [loss_at(outputs[level], level) for level in self.levels]
        for operator, subset in self.mixtures:
            loss = partial(self._loss_of_mixture, operator, subset, loss_at)
            members = [outputs[level] for level in subset]
            losses.append(checkpoint(loss, *members, use_reentrant=False, preserve_rng_state=False))
        return self.weighted(torch.stack(losses), lowest)

    def _loss_of_mixture(
        self, operator: Operator, subset: tuple[int, ...], loss_at: LossAt, *outputs: Tensor
    ) -> Tensor:
        return loss_at(self.mixture(operator, subset, at_full_size(outputs)), subset[0])

    @float32
    def mixture(self, operator: Operator, subset: tuple[int, ...], maps: Tensor) -> Tensor:
        """Return the logits ``(B, C, *spatial)`` of a mixture, in float32.

        Args:
            operator: by which they are mixed.
            subset: of the decoder's outputs.
            maps: ``(S, B, C, *spatial)`` logits of the subset at one resolution.
        """
        if operator == "add":
            return maps.sum(0)
        if operator == "mult":
            return math.prod(maps.unbind(0), start=torch.ones_like(maps[0]))
        channels = maps.transpose(0, 1).flatten(1, 2)
        mixed: Tensor = self.convolutions[_name(operator, subset)](channels)
        if operator == "cat":
            return mixed
        attention = mixed.softmax(1).transpose(0, 1)
        return (maps * attention[:, :, None]).sum(0)

    def factors(self) -> Tensor:
        """Return the learned factors of the weights, ``(U,)``: outputs first, then mixtures."""
        if self.raw is None:
            return torch.ones_like(self.prior)
        if self.weights == "log":
            return self.raw.exp()
        return F.softplus(self.raw.clamp(-BOUND, BOUND))

    def shares(self) -> Tensor:
        """Return the weights ``(U,)``, which add up to 1 whatever is learned."""
        shares = self.prior * self.factors()
        return shares / shares.sum().detach()

    def weighted(self, losses: Tensor, lowest: float) -> Tensor:
        """Return the losses' weighted sum, whose gradient for the weights is another one's.

        Args:
            losses: ``(U,)``.
            lowest: as of :meth:`forward`.
        """
        shares = self.shares()
        loss = (shares.detach() * losses).sum()
        if self.raw is None:
            return loss
        seen = (losses.detach() - lowest).clamp_min(LEAST_LOSS)
        if self.weights == "log":
            objective = (self.factors() * seen - self.raw).sum()
        else:
            objective = (shares * seen).sum()
        return loss + PACE * (objective - objective.detach())


def _convolution(operator: Operator, members: int, channels: int, dimensions: int) -> nn.Module:
    """Return the 1x1 convolution of a subset's channels, with which the mixture is their mean."""
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    if operator == "cat":
        made = kind(members * channels, channels, 1)
        weight = torch.eye(channels).repeat(1, members) / members
    else:
        made = kind(members * channels, members, 1, groups=members)
        weight = torch.zeros(members, channels)
    with torch.no_grad():
        made.weight.copy_(weight.reshape(made.weight.shape))
        assert made.bias is not None
        made.bias.zero_()
    return made


def _name(operator: Operator, subset: tuple[int, ...]) -> str:
    return f"{operator}_{'_'.join(map(str, subset))}"
