"""Small U-Nets as nnU-Net's plans build them."""

from __future__ import annotations

from typing import Any

from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

OPERATORS = {2: (nn.Conv2d, nn.InstanceNorm2d), 3: (nn.Conv3d, nn.InstanceNorm3d)}


def small_unet(
    dims: int = 3, residual: bool = False, deep_supervision: bool = False, classes: int = 2
) -> Any:
    """Three stages of 4, 8 and 8 features, two inputs' channels, stride 2."""
    conv, norm = OPERATORS[dims]
    arguments = {
        "input_channels": 2,
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "conv_op": conv,
        "kernel_sizes": 3,
        "strides": [1, 2, 2],
        "num_classes": classes,
        "n_conv_per_stage_decoder": 1,
        "conv_bias": True,
        "norm_op": norm,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": deep_supervision,
    }
    if residual:
        return ResidualEncoderUNet(n_blocks_per_stage=1, **arguments)
    return PlainConvUNet(n_conv_per_stage=1, **arguments)
