"""The supervised lower bound: nnU-Net's own trainer with a settable budget and seed.

Nothing of nnUNetTrainer's loop, data, augmentation or loss is changed; unlabeled images are
ignored. It exists so that a comparison can run stock nnU-Net at the same number of steps.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semisup.networks.memory_format import use_channels_last
from nnunet_semisup.networks.precision import use_bfloat16
from nnunet_semisup.trainers.hyperparameters import read_overrides


class nnUNetTrainerSupervised(nnUNetTrainer):
    """nnUNetTrainer whose attributes ``nnUNet_semisup_set`` can override.

    Its network is the plan's, so checkpoints can be predicted from under nnU-Net's own name.
    """

    seed: int | None = None
    """Seeds the weights and, with ``nnUNet_n_proc_DA=0``, the patches; ``None`` as stock."""
    cpu_bfloat16: bool = False
    """Mixed precision on the CPU; nnU-Net has it on GPUs only."""
    cpu_threads: int | None = None
    """Threads of a training on the CPU; ``None``: one a core, as nnU-Net."""
    channels_last: bool = False
    """Channels-last memory order: the same up to rounding, on some processors much faster."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        overrides = read_overrides(type(self))
        super().__init__(plans, configuration, fold, dataset_json, device)
        for name, value in overrides.items():
            setattr(self, name, value)
        if self.cpu_threads is not None and self.device.type == "cpu":
            torch.set_num_threads(self.cpu_threads)

    def initialize(self) -> None:
        """As nnU-Net, after seeding."""
        if self.seed is not None:
            random.seed(self.seed)
            np.random.seed(self.seed)
            torch.manual_seed(self.seed)
        super().initialize()
        if self.channels_last:
            use_channels_last(self.network)
        if self.cpu_bfloat16 and self.device.type == "cpu":
            use_bfloat16(self.network)
