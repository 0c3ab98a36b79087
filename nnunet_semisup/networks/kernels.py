"""Kernels that look along the axes that a plan's own convolutions look along."""

from __future__ import annotations

from typing import Any

from dynamic_network_architectures.building_blocks.helper import maybe_convert_scalar_to_list


def kernels_of(encoder: Any, length: int) -> list[list[int]]:
    """Return a kernel for each stage, 1 along axes that the plan's kernel there has 1 along.

    Args:
        encoder: of the plan's U-Net.
        length: along the other axes.
    """
    kernels = [maybe_convert_scalar_to_list(encoder.conv_op, own) for own in encoder.kernel_sizes]
    return [[length if own > 1 else 1 for own in kernel] for kernel in kernels]
