"""Stages of a network that keep their input alone for the backward pass (Chen et al., 2016).

[0] Chen et al., Training deep nets with sublinear memory cost, arXiv 1604.06174.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.decoders import ResizeConv


def recompute_stages(network: nn.Module) -> None:
    """Let stages of encoders and decoders run once more in the backward pass; results are equal.

    Random numbers are those of the first run. A copy of the network that is made afterwards would
    share this one's stages. Forward hooks of a stage act once, on what it gives.

    Args:
        network: with encoders and decoders like nnU-Net's: modules whose ``stages`` are a list.

    Raises:
        UserError: it keeps running means of batches, which the second run would move again
            (PyTorch 2.14), so that it would predict otherwise.
    """
    if keeps_running_means(network):
        raise UserError(
            "recompute_activations=True would count each batch twice in the running means of batch "
            "normalisation, which the network of these plans has. Leave it away, or take plans "
            "with another norm_op."
        )
    for module in list(network.modules()):
        stages = getattr(module, "stages", None)
        if isinstance(stages, (nn.ModuleList, nn.Sequential)):
            for stage in stages:
                _recompute(stage)
        if isinstance(module, ResizeConv):
            _recompute(module)


def keeps_running_means(network: nn.Module) -> bool:
    """Tell whether a network has batch normalisation that predicts by means of the batches seen."""
    return any(isinstance(m, _BatchNorm) and m.track_running_stats for m in network.modules())


def _recompute(stage: nn.Module) -> None:
    forward = stage.forward

    def with_its_input_alone(*inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False)

    stage.forward = with_its_input_alone
