"""Large depthwise kernels in the encoder of the U-Net: the encoder of DK-UXNet.

[0] Lee et al., 3D UX-Net: a large kernel volumetric ConvNet modernizing hierarchical transformer
    for medical image segmentation, ICLR 2023, arXiv 2209.15076.

Every stage below full resolution is one of [0]: a strided convolution, two blocks, a layer
normalisation. Number of stages, channels, strides and anisotropy are the plan's.

Deviates from [0]: the plan's first stage stays, at full resolution, and the first stage of [0]
stands on it (there on the image, and a residual block of the image beside it); no residual blocks
on what the decoder gets, whose own stages follow; one layer normalisation for decoder and next
stage (there one each).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_semisup.architectures.insert import Insert
from nnunet_semisup.networks.kernels import kernels_of
from nnunet_semisup.networks.large_kernels import LargeKernelStage

KERNEL = 7
BLOCKS = 2


def options(architecture: Mapping[str, Any], patch_size: Sequence[int]) -> dict[str, Any]:
    """Return nothing: all of it follows from the network."""
    return {}


def install(network: Any) -> None:
    """Put the stages in the place of the encoder's, but for the first.

    Args:
        network: U-Net of dynamic_network_architectures.
    """
    encoder = network.encoder
    kernels = kernels_of(encoder, KERNEL)
    for number in range(1, len(encoder.stages)):
        channels = tuple(encoder.output_channels[number - 1 : number + 1])
        encoder.stages[number] = LargeKernelStage(
            encoder.conv_op, channels, encoder.strides[number], kernels[number], BLOCKS, number == 1
        )


UXNET = Insert("uxnet", options, install, goes_first=True)
