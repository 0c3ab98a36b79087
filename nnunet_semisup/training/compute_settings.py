"""How a training computes, whatever it computes: threads, precision and memory order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from nnunet_semisup.networks.memory_format import use_channels_last
from nnunet_semisup.networks.precision import use_bfloat16

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as _Host
else:
    _Host = object


class ComputeSettings(_Host):
    """Hyper-parameters that every trainer of this package has, the supervised one included."""

    cpu_bfloat16: bool = False
    """Mixed precision on the CPU; nnU-Net has it on GPUs only."""
    cpu_threads: int | None = None
    """Threads of a training on the CPU; ``None``: one a core, as nnU-Net."""
    channels_last: bool = False
    """Channels-last weights: the same up to rounding; measure before (benchmarks/channels_last)."""

    def set_threads(self) -> None:
        """Limits this process to ``cpu_threads`` where the training runs on the CPU."""
        if self.cpu_threads is not None and self.device.type == "cpu":
            torch.set_num_threads(self.cpu_threads)

    def set_memory_order(self, network: nn.Module) -> None:
        """Stores the weights as ``channels_last`` says; a copy made afterwards keeps the order."""
        if self.channels_last:
            use_channels_last(network)

    def set_precision(self, network: nn.Module) -> None:
        """Computes as ``cpu_bfloat16`` says; to be called after every copy is made."""
        if self.cpu_bfloat16 and self.device.type == "cpu":
            use_bfloat16(network)
