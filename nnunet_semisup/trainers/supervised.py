"""The supervised lower bound: nnU-Net's own trainer with a settable budget and seed.

Nothing of nnUNetTrainer's loop, augmentation or loss is changed; unlabeled images are ignored. It
exists so that a comparison has stock nnU-Net at the same number of steps and on the same labeled
batches, which come from this package's loader unless nnU-Net's own is asked for.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semisup.data.copy_on_write import dataset_class
from nnunet_semisup.errors import UserError
from nnunet_semisup.training.common import CommonTrainer
from nnunet_semisup.training.settings import Settings


class nnUNetTrainerSupervised(CommonTrainer):
    """Train as nnUNetTrainer, with attributes that ``nnUNet_semisup_set`` can override.

    Its network is the plan's, and its checkpoints name nnUNetTrainer: stock nnU-Net predicts from
    them. The results folder has this class's own name.

    Raises:
        UserError: an unknown hyper-parameter, or a value of the wrong type or out of range.
    """

    loss: Any

    stock_loader: bool = False
    """Patches from nnU-Net's own loader; the seed fixes them with ``nnUNet_n_proc_DA=0`` only."""

    def check_settings(self, settings: Settings) -> None:
        """Refuse to augment on the device what nnU-Net's own loader has augmented."""
        super().check_settings(settings)
        if settings.values["stock_loader"] and settings.values["augment_on_device"]:
            raise UserError(
                "stock_loader=True and augment_on_device=True: nnU-Net's own loader augments in "
                "its workers. Leave one of the two out."
            )

    def initialize(self) -> None:
        """Build as nnU-Net does, after seeding."""
        self._set_seed(0)
        super().initialize()
        self.apply_memory_order(self.network)
        self.apply_precision(self.network)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Return batches that the seed numbers, as every other trainer's; or nnU-Net's own."""
        if self.stock_loader:
            self.dataset_class = dataset_class(self.preprocessed_dataset_folder)
            return nnUNetTrainer.get_dataloaders(self)
        return super().get_dataloaders()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make nnU-Net's step; classes that a case has no labels of are left open."""
        if self.partial_labels is None:
            return super().train_step(batch)
        partial, whole = self.partial_labels, self.loss

        def of_known(output: Any, target: Any) -> Any:
            gaps = partial.gaps(batch["keys"], target, self.device)
            return whole(gaps.known_logits(output), target)

        self.loss = of_known
        try:
            return super().train_step(batch)
        finally:
            self.loss = whole

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Log as nnU-Net does, and end a training that diverged.

        Raises:
            DivergedError: weights, or the losses of the last steps, are NaN or Inf.
        """
        super().on_train_epoch_end(train_outputs)
        self.refuse_broken_losses(np.array([output["loss"] for output in train_outputs]))
        self.refuse_broken_weights()

    def load_extra_state(self, state: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Restore it; the epochs of a continued run have random numbers of their own."""
        super().load_extra_state(state, checkpoint)
        self._set_seed(checkpoint["current_epoch"])

    def _set_seed(self, epoch: int) -> None:
        assert self.seed is not None
        seed = self.seed + epoch + 10_000 * self.local_rank
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
