"""Decisions that the host takes on values of the device, without stalling it."""

from __future__ import annotations

import torch
from torch import Tensor


class DeferredBool:
    """Copy a boolean to the host while the device goes on.

    Make it, queue more work, then read it: the host waits for the copy, which comes before that
    work, and the device never runs dry.

    Args:
        value: 0-d bool tensor.
    """

    def __init__(self, value: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._value = value
        if value.device.type == "cuda":
            self._value = torch.empty((), dtype=torch.bool, pin_memory=True)
            self._value.copy_(value, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def read(self) -> bool:
        """Return the value."""
        if self._event is not None:
            self._event.synchronize()
        return bool(self._value)
