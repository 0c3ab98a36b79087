"""Channels-last memory order, which convolutions without a fast path for the usual order prefer.

In PyTorch 2.14 a convolution with such a weight gives such an output, whatever its input, and
LeakyReLU, concatenation and upsampling keep it. InstanceNorm, softmax, grid_sample and 3D average
pooling give the usual order: in nnU-Net's networks, which normalise after each convolution, every
convolution converts its input. ``benchmarks/channels_last.py`` measures what is left of the gain.
"""

from __future__ import annotations

import torch
from torch import nn

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Dimensions of a convolution's weight to the memory order of its kind."""


def use_channels_last(network: nn.Module) -> None:
    """Store the weights of convolutions channels-last, and so their outputs.

    Shapes, values, names and state dicts stay as they are; results change by rounding only.
    """
    for parameter in network.parameters():
        if parameter.dim() in FORMATS:
            order = FORMATS[parameter.dim()]
            parameter.data = parameter.data.contiguous(memory_format=order)
