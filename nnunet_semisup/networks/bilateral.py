"""Two networks that are drawn to each other's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def average_both_ways(one: nn.Module, other: nn.Module, decay: float) -> None:
    """Replace the weights of two networks of one kind by averages of both, at the same time.

    ``a <- d a + (1 - d) b`` and ``b <- d b + (1 - d) a``; floating-point buffers as well. Their
    mean stays, and their difference shrinks by ``2 d - 1``. (BS-Net, He et al., TMI 2024, as its
    summaries describe it.)

    Args:
        one: a network; changed in place.
        other: of the same kind; changed in place.
        decay: ``d``, in [0.5, 1].
    """
    first, second = _floating(one), _floating(other)
    apart = torch._foreach_sub(first, second)
    torch._foreach_add_(first, apart, alpha=decay - 1.0)
    torch._foreach_add_(second, apart, alpha=1.0 - decay)


def _floating(network: nn.Module) -> list[Tensor]:
    tensors = (*network.parameters(), *network.buffers())
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
