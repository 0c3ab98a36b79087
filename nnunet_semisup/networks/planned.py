"""Facts of the plans that a network is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn


@dataclass(frozen=True)
class PlannedNetwork:
    """Hold the arguments of nnU-Net's ``build_network_architecture``.

    The managers hold the plans that everything else reads as well: nothing here changes them.

    Attributes:
        plans_manager: nnU-Net's PlansManager.
        configuration_manager: nnU-Net's ConfigurationManager of the configuration in training.
        input_channels: of the images.
        output_channels: segmentation heads: classes with background, or regions.
        deep_supervision: whether the decoder gives logits at every resolution.
    """

    plans_manager: Any
    configuration_manager: Any
    input_channels: int
    output_channels: int
    deep_supervision: bool

    @property
    def arguments(self) -> tuple[Any, Any, int, int, bool]:
        """Arguments of nnU-Net's ``build_network_architecture``, in their order."""
        return (
            self.plans_manager,
            self.configuration_manager,
            self.input_channels,
            self.output_channels,
            self.deep_supervision,
        )

    def build(self) -> nn.Module:
        """Return nnU-Net's own network of these plans, with fresh weights."""
        return nnUNetTrainer.build_network_architecture(*self.arguments)
