"""Channels-last memory order, which convolutions without a fast path for the usual order prefer."""

from __future__ import annotations

import torch
from torch import nn

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Dimensions of a convolution's weight to the memory order of its kind."""


def use_channels_last(network: nn.Module) -> None:
    """Stores the weights of convolutions channels-last; activations follow them.

    Shapes, values, names and state dicts stay as they are; results change by rounding only.
    """
    for parameter in network.parameters():
        if parameter.dim() in FORMATS:
            order = FORMATS[parameter.dim()]
            parameter.data = parameter.data.contiguous(memory_format=order)
