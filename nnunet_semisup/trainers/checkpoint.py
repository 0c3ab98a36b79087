"""Checkpoints that stock nnU-Net predicts from and that restore everything else too."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch

KEY = "nnunet_semisup"
"""The one extra key of a checkpoint."""


def save_atomically(checkpoint: dict[str, Any], filename: str) -> None:
    """Writes a checkpoint so that ``filename`` is at every moment either the old or the new one."""
    temporary = f"{filename}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, filename)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of python's, numpy's and torch's generators, the device's included."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.random.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Sets what :func:`random_states` gave; a device's state only on a device of that kind."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.random.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
