"""Require the device that a command is to run on."""

from __future__ import annotations

from nnunet_semisup.errors import UserError


def require_device(device: str) -> None:
    """Refuse a GPU that torch does not see.

    Args:
        device: ``cuda``, ``cpu`` or ``mps``.

    Raises:
        UserError: there is none.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("-device cuda, the default: torch sees no such GPU here. Give -device cpu.")
