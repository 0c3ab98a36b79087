"""Say what a measurement was made on."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """Return the processor's name and the instructions that PyTorch finds in it.

    The name alone tells little where it is a virtual one: in bfloat16 it can be twice as fast as in
    float32, or many times slower.
    """
    import torch

    from nnunet_semisup.networks.bfloat16 import lacks_instructions

    name = platform.processor() or platform.machine()
    told = Path("/proc/cpuinfo")
    if told.is_file():
        lines = told.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        name = names[0] if names else name
    instructions = torch.backends.cpu.get_cpu_capability()
    without = ", no bfloat16" if lacks_instructions() else ""
    return f"{name} ({instructions}{without})"
