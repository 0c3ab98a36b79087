"""The switch of deep supervision, which each of nnU-Net's decoders has."""

from __future__ import annotations

from typing import Any

from torch import nn


def switch_deep_supervision(network: nn.Module, enabled: bool) -> None:
    """Set it on every decoder of a network."""
    module: Any
    for module in network.modules():
        if hasattr(module, "deep_supervision"):
            module.deep_supervision = enabled


def has_deep_supervision(network: nn.Module) -> bool:
    """Tell whether it is on in any decoder of a network."""
    return any(getattr(module, "deep_supervision", False) for module in network.modules())
