"""Stages of a network that keep their input alone for the backward pass (Chen et al., 2016).

[0] Chen et al., Training deep nets with sublinear memory cost, arXiv 1604.06174.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nnunet_semisup.networks.decoders import ResizeConv


def recompute_stages(network: nn.Module) -> None:
    """Let stages of encoders and decoders run once more in the backward pass; results are equal.

    Random numbers are those of the first run. A copy of the network that is made afterwards would
    share this one's stages. Forward hooks of a stage act once, on what it gives.

    Args:
        network: with encoders and decoders like nnU-Net's: modules whose ``stages`` are a list.
    """
    for module in list(network.modules()):
        stages = getattr(module, "stages", None)
        if isinstance(stages, (nn.ModuleList, nn.Sequential)):
            for stage in stages:
                _recompute(stage)
        if isinstance(module, ResizeConv):
            _recompute(module)


def _recompute(stage: nn.Module) -> None:
    forward = stage.forward

    def with_its_input_alone(*inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False)

    stage.forward = with_its_input_alone
