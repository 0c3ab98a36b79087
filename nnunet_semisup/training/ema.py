"""The EMA teacher: a frozen copy of the network that follows the student.

[0] Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv 1703.01780.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class EMATeacher(AveragedModel):
    """Average a network's parameters and floating-point buffers exponentially over the steps.

    After the ``t``-th update (counted from 0) a teacher weight is
    ``a * teacher + (1 - a) * student`` with ``a = min(1 - 1 / (t + 1), decay)`` ([0], section 3.1
    and its code), so early weights are forgotten quickly; integer buffers are copied.

    The counter ``n_averaged`` stays on the host, and torch's own update, which compares it as a
    tensor at every step, is replaced, so that no step waits for the device.

    Args:
        model: network to follow; it is copied, never held.
        decay: the average's memory, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> EMATeacher:
        """Stay in evaluation mode, whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move one step towards ``model``, which must have the copied network's structure."""
        weight = 1.0 - min(1.0 - 1.0 / (int(self.n_averaged) + 1), self.decay)
        own, other = _tensors(self.module), _tensors(model)
        floating = [i for i, tensor in enumerate(own) if tensor.is_floating_point()]
        torch._foreach_lerp_([own[i] for i in floating], [other[i] for i in floating], weight)
        for mine, theirs in zip(own, other, strict=True):
            if not mine.is_floating_point():
                mine.copy_(theirs)
        self.n_averaged += 1


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [p.detach() for p in module.parameters()] + [b.detach() for b in module.buffers()]
