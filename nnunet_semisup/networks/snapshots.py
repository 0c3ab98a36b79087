"""Earlier weights of a network in training, and predictions with them."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_semisup.networks.supervision_switch import switch_deep_supervision

Taken = tuple[int, dict[str, Tensor]]
"""Number of an epoch, and a state dict."""


class Snapshots:
    """Hold a network's weights of the last few times that they were asked for.

    Attributes:
        module: a copy of the network, in evaluation mode, that runs with them.

    Args:
        network: in training; has deep supervision.
        number: of snapshots.
    """

    def __init__(self, network: nn.Module, number: int) -> None:
        self.module = copy.deepcopy(network).requires_grad_(False).eval()
        switch_deep_supervision(self.module, False)
        self.number = number
        self._taken: deque[Taken] = deque(maxlen=number)

    def follow(self, network: nn.Module, epoch: int, interval: int) -> None:
        """Take a snapshot where the last one is ``interval`` epochs old, or where there is none.

        Until there are as many as asked for, the first one stands for those that are missing.
        """
        if not self._taken or epoch >= self._taken[-1][0] + interval:
            state = {key: value.detach().clone() for key, value in network.state_dict().items()}
            self._taken.append((epoch, state))
        while len(self._taken) < self.number:
            self._taken.appendleft(self._taken[0])

    @property
    def parameters(self) -> int:
        """Numbers that are kept: the parameters of each snapshot, and of the copy."""
        return (1 + self.number) * sum(p.numel() for p in self.module.parameters())

    @torch.no_grad()
    def outputs(self, image: Tensor, run: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Return the logits of each snapshot, the oldest first.

        Args:
            image: ``(B, C, *spatial)``.
            run: calls :attr:`module`, compiled or not.
        """
        logits = []
        for _, state in self._taken:
            self.module.load_state_dict(state)
            logits.append(run(image))
        return logits

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as a checkpoint keeps it."""
        return {"taken": list(self._taken)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave; of more snapshots than now, the last ones."""
        self._taken = deque(state["taken"], self.number)
