"""Mixed precision on the CPU, which nnU-Net itself only uses on GPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map


def use_bfloat16(network: nn.Module) -> None:
    """Make ``network`` compute in bfloat16 under autocast on the CPU and return float32.

    About twice as fast on processors with bfloat16 instructions. Parameters stay float32, and
    so do state dicts. A copy of the network made afterwards would share this one's forward.
    """
    forward = network.forward

    def mixed(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            output = forward(*args, **kwargs)
        return tree_map(_to_float32, output)

    network.forward = mixed


def lacks_instructions() -> bool:
    """Tell whether PyTorch's oneDNN finds no instructions for bfloat16 in this processor."""
    there = torch.backends.mkldnn.is_available()
    return there and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def slow_bfloat16_note() -> str | None:
    """Return a warning where this processor computes in bfloat16 without instructions for it.

    oneDNN (in PyTorch 2.14) then has no fast convolution in bfloat16, as on processors with AVX2.
    """
    if not lacks_instructions():
        return None
    return (
        "WARNING: this processor has no instructions for bfloat16, and PyTorch is many times "
        "slower in it than in float32. Leave out cpu_bfloat16 (--bfloat16)."
    )


def _to_float32(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype == torch.bfloat16:
        return value.float()
    return value
