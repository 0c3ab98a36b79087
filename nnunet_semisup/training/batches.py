"""What a step works on, and what it gives."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_semisup.data.views import strong_view

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
        masked: ``(B, C, *spatial)`` bool, where nnU-Net sets a channel to 0 after its
            augmentation (outside of the brain, say); ``None`` where it does so nowhere.
    """

    image: Tensor
    valid: Tensor
    masked: Tensor | None = None

    def strong_view(self, probability: float = 0.8) -> Tensor:
        """``(B, C, *spatial)``, :func:`~nnunet_semisup.data.views.strong_view` of the image."""
        strong = strong_view(self.image, probability)
        return strong if self.masked is None else strong.masked_fill(self.masked, 0.0)


def unwrap(network: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel and torch.compile."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network
