"""A hierarchical mixture of experts behind the deepest encoder stages of the U-Net.

[0] Mamba-HoME, NeurIPS 2025 (arXiv 2507.06363), as summaries and its released code describe it: a
    network of its own, of four stages of Mamba and HoME layers with a convolutional decoder. The
    summaries speak of fixed slots that are learned and of a router over experts; the code, followed
    here, makes slots of each group's mean and binds them to experts.

Here the HoME layer alone goes into nnU-Net's network, whose stages, decoder and deep supervision
stay. Deviates further: slots are means of their tokens in place of sums, of which those of 2048
tokens were a hundred times a token; zeros that fill up a group count nowhere; slots follow from the
mean of a group by a map of low rank, as the full one has most weights of the deepest stage; the
layer's contribution starts at 0. Group size and experts follow [0]'s stages by the number of tokens
and channels of the plan's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_semisup.architectures.insert import Insert, stage_shapes
from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.followed import Followed
from nnunet_semisup.networks.home import HoMEBlock, find_mamba

STAGES = 2
"""Deepest stages that it follows."""
REDUCTION = 4
"""Least reduction of the image's resolution, along its most reduced axis, at such a stage."""
SLOTS = 4
"""Of an expert in a group ([0])."""
MIXERS = ("none", "mamba")
SLOT_KINDS = ("mean", "sum")


def layer_of(tokens: int, features: int) -> dict[str, int]:
    """Return the arguments of the layer for a stage.

    Through [0]'s four stages: 2048, 1024, 512 and 256 tokens a group for 64^3, 32^3, 16^3 and 8^3,
    and 4, 8, 12 and 16 experts for 48, 96, 192 and 384 channels; twice as many above. A group has
    no fewer than four tokens a slot, as in [0].

    Args:
        tokens: voxels of the stage's map for a patch.
        features: its channels.
    """
    wanted = 2 ** round(math.log2(32 * tokens ** (1 / 3)))
    group = min(wanted, 2 ** int(math.log2(tokens)))
    by_width = 4 * max(1, round(1 + math.log2(features / 48)))
    experts = max(1, min(by_width, group // (4 * SLOTS)))
    return {
        "group_size": group,
        "experts": experts,
        "slots": SLOTS,
        "experts_above": 2 * experts,
        "rank": max(1, features // 8),
    }


def options(
    architecture: Mapping[str, Any],
    patch_size: Sequence[int],
    mixer: str = "none",
    slots: str = "mean",
) -> dict[str, Any]:
    """Return the stages that get a layer, and the layers' arguments.

    Args:
        architecture: arguments of the network in the plans.
        patch_size: of the plans.
        mixer: ``none``, or ``mamba``, which needs mamba-ssm and CUDA.
        slots: ``mean``, or ``sum`` as in the released code.

    Raises:
        UserError: another value, no stage of a quarter of the resolution, or no mamba-ssm.
    """
    for name, value, possible in (("mixer", mixer, MIXERS), ("slots", slots, SLOT_KINDS)):
        if value not in possible:
            raise UserError(f"home:{name}={value} is unknown. Possible: {', '.join(possible)}.")
    if mixer == "mamba":
        find_mamba()
    reductions = np.cumprod(np.array(architecture["strides"]), axis=0).max(1)
    deep = [int(stage) for stage in np.flatnonzero(reductions >= REDUCTION)][-STAGES:]
    if not deep:
        raise UserError(
            f"home follows encoder stages of a quarter of the image's resolution or less; the "
            f"deepest of this network has 1/{reductions[-1]}. Plan with larger patches."
        )
    shapes, features = stage_shapes(architecture, patch_size), architecture["features_per_stage"]
    layers = [layer_of(math.prod(shapes[s]), features[s]) for s in deep]
    return {"stages": deep, "layers": layers, "mixer": mixer, "official_sum": slots == "sum"}


def install(
    network: Any,
    stages: Sequence[int],
    layers: Sequence[Mapping[str, int]],
    mixer: str,
    official_sum: bool,
) -> None:
    """Put a layer behind each of the encoder stages.

    Args:
        network: U-Net of dynamic_network_architectures.
        stages: numbers of encoder stages, shallow to deep.
        layers: arguments of the layer of each.
        mixer: ``none`` or ``mamba``.
        official_sum: slots are sums.

    Raises:
        UserError: ``mamba`` without mamba-ssm or CUDA.
    """
    encoder = network.encoder
    for stage, layer in zip(stages, layers, strict=True):
        channels = encoder.output_channels[stage]
        block = HoMEBlock(channels, mixer, official_sum=official_sum, **layer)
        encoder.stages[stage] = Followed(encoder.stages[stage], block)


HOME = Insert("home", options, install)
