"""What a step works on, and what it gives."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

Terms = dict[str, Tensor]


class Labeled(NamedTuple):
    """Labeled patches under nnU-Net's augmentation.

    Attributes:
        image: ``(B, C, *spatial)`` float.
        target: nnU-Net's target, a list of tensors under deep supervision.
    """

    image: Tensor
    target: Any


class Unlabeled(NamedTuple):
    """Unlabeled patches under the spatial part of nnU-Net's augmentation (the weak view).

    Attributes:
        image: ``(B, C, *spatial)`` float.
        valid: ``(B, 1, *spatial)`` bool, false in padding.
    """

    image: Tensor
    valid: Tensor


def unwrap(network: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel and torch.compile."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network
