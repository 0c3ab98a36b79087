"""Stages of large depthwise kernels (3D UX-Net).

[0] Lee et al., 3D UX-Net: a large kernel volumetric ConvNet modernizing hierarchical transformer
    for medical image segmentation, ICLR 2023, arXiv 2209.15076.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

EXPANSION = 4
LAYER_SCALE = 1e-6
"""With which a block's addition begins ([0]'s code)."""


class ChannelNorm(nn.LayerNorm):
    """Normalise each voxel of ``(B, C, *spatial)`` over its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map, of the same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class LargeKernelBlock(nn.Module):
    """Add what a large depthwise convolution and two depthwise scalings make of a map ([0], 3.2).

    Args:
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        channels: of the map.
        kernel: odd length along each axis.
    """

    def __init__(self, conv_op: Any, channels: int, kernel: Sequence[int]) -> None:
        super().__init__()
        wide, padding = EXPANSION * channels, [k // 2 for k in kernel]
        self.path = nn.Sequential(
            conv_op(channels, channels, tuple(kernel), padding=padding, groups=channels),
            ChannelNorm(channels),
            conv_op(channels, wide, 1, groups=channels),
            nn.GELU(),
            conv_op(wide, channels, 1, groups=channels),
        )
        self.scale = nn.Parameter(torch.full((channels, *[1] * len(kernel)), LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape ``(B, C, *spatial)``."""
        return x + self.scale * self.path(x)


class LargeKernelStage(nn.Module):
    """Lower the resolution, and mix space by blocks of large kernels ([0], figure 2).

    Args:
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        channels: before and after.
        stride: to the lower resolution.
        kernel: of the blocks, odd along each axis.
        blocks: their number.
        stem: the convolution that lowers the resolution has the blocks' kernel, else its stride's.
    """

    def __init__(
        self,
        conv_op: Any,
        channels: tuple[int, int],
        stride: Sequence[int],
        kernel: Sequence[int],
        blocks: int,
        stem: bool,
    ) -> None:
        super().__init__()
        self.channels, self.stride = channels[1], tuple(stride)
        size = tuple(kernel) if stem else self.stride
        padding = [k // 2 for k in kernel] if stem else 0
        self.down = conv_op(*channels, size, self.stride, padding)
        self.blocks = nn.Sequential(
            *[LargeKernelBlock(conv_op, channels[1], kernel) for _ in range(blocks)]
        )
        self.norm = ChannelNorm(channels[1])

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, *spatial)`` to ``(B, C', *spatial / stride)``."""
        return self.norm(self.blocks(self.down(x)))

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Return the number of values in the convolutions' results, as nnU-Net's planners ask.

        Args:
            input_size: spatial shape of the stage's input.
        """
        voxels = math.prod(n // s for n, s in zip(input_size, self.stride, strict=True))
        return self.channels * voxels * (1 + len(self.blocks) * (2 + EXPANSION))
