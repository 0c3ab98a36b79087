"""Base of the trainers that put a part into the network of plain plans, on labeled cases."""

from __future__ import annotations

from typing import Any, ClassVar

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunet_semisup.architectures.planned_unet import with_insert
from nnunet_semisup.errors import UserError
from nnunet_semisup.trainers.supervised import nnUNetTrainerSupervised
from nnunet_semisup.training.inputs import Inputs


class SupervisedWithInsert(nnUNetTrainerSupervised):
    """Train as nnUNetTrainer on labeled cases, with a part inserted into the plan's network.

    The network is that of plans which ``nnUNetv2_semisup_plans --insert`` writes; any trainer
    trains it with those.

    Raises:
        UserError: as nnUNetTrainerSupervised, or the part does not go into the plan's network;
            before anything is written.
    """

    insert: ClassVar[str]
    """Name of the part."""

    def check_inputs(self, inputs: Inputs) -> None:
        """Refuse plans into which the part does not go."""
        super().check_inputs(inputs)
        try:
            with_insert(inputs.configuration_manager.configuration, self.insert)
        except UserError as error:
            raise UserError(f"{type(self).__name__}, {inputs.configuration}: {error}") from error

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Build the plan's network with the part in it, in training and in prediction."""
        architecture = with_insert(configuration_manager.configuration, cls.insert)
        return get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            num_input_channels,
            num_output_channels,
            allow_init=True,
            deep_supervision=enable_deep_supervision,
        )
