"""Neighborhood self-dissimilarity attention after every stage of the U-Net.

[0] NSDA, NeurIPS 2025 (OpenReview tBhEHymG1m), as its authors' summary and code describe it: a
    feature that differs from the mean of its neighborhood, measured by how much its neighbors do,
    is raised. It has no parameters.

Deviates from the released code: padding does not count in a mean, so that a constant map is left
as it is at its borders, too; windows follow from the plan's patch, axis by axis, and are stored in
the plans, so that training and prediction are the same for any shape; the released window is one
voxel on the deepest maps, which makes the attention 0 there, here three; the term against a
division by zero is relative, so that the scale of features does not matter; float32 throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from nnunet_semisup.architectures.insert import Insert, stage_shapes
from nnunet_semisup.networks.self_dissimilarity import SelfDissimilarity

SHORT = 8
"""Shorter axes than this get no window where another axis is twice as long."""


def window(shape: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Return the window's length along each axis of a feature map ([0], dynamic neighborhood).

    An eighth of the map, the next odd number above, at least 3. It is 1, the axis by itself, where
    the plan's convolutions do not look along the axis, and where slices are few.

    Args:
        shape: of the map.
        kernel: of the plan's convolutions there.
    """
    few = [length < SHORT and max(shape) >= 2 * length for length in shape]
    return [
        1 if k == 1 or short or length == 1 else max(3, length // 8 + 1 + length // 8 % 2)
        for length, k, short in zip(shape, kernel, few, strict=True)
    ]


def options(architecture: Mapping[str, Any], patch_size: Sequence[int]) -> dict[str, Any]:
    """Return the windows of a plan's encoder stages, shallow to deep."""
    shapes = stage_shapes(architecture, patch_size)
    kernels = architecture["kernel_sizes"]
    return {"windows": [window(s, k) for s, k in zip(shapes, kernels, strict=True)]}


def install(network: Any, windows: Sequence[Sequence[int]]) -> None:
    """Put the attention after each stage of encoder and decoder, as a hook: no key changes.

    Args:
        network: U-Net of dynamic_network_architectures.
        windows: one an encoder stage, shallow to deep.
    """
    encoder, decoder = network.encoder.stages, network.decoder.stages
    stages: list[tuple[nn.Module, Sequence[int]]] = [
        *zip(encoder, windows, strict=True),
        *zip(decoder, reversed(windows[:-1]), strict=True),
    ]
    for stage, size in stages:
        stage.register_forward_hook(SelfDissimilarity(size))


NSDA = Insert("nsda", options, install)
