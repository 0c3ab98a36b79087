"""The supervised lower bound: nnU-Net's own trainer with a settable budget and seed.

Nothing of nnUNetTrainer's loop, data, augmentation or loss is changed; unlabeled images are
ignored. It exists so that a comparison can run stock nnU-Net at the same number of steps.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semisup import __version__
from nnunet_semisup.errors import exit_code_two_in_commands
from nnunet_semisup.trainers.batches import unwrap
from nnunet_semisup.trainers.checkpoint import (
    KEY,
    furthest,
    remove_leftovers,
    save_atomically,
    set_aside,
    stock_content,
)
from nnunet_semisup.trainers.compute_settings import ComputeSettings
from nnunet_semisup.trainers.hyperparameters import defaults, read_overrides
from nnunet_semisup.trainers.records import Records
from nnunet_semisup.trainers.validation import Validation, set_aside_validation


class nnUNetTrainerSupervised(Validation, Records, ComputeSettings, nnUNetTrainer):
    """nnUNetTrainer whose attributes ``nnUNet_semisup_set`` can override.

    Its network is the plan's, and its checkpoints name nnUNetTrainer: stock nnU-Net predicts from
    them. The results folder has this class's own name.

    Raises:
        UserError: an unknown hyper-parameter, or a value of the wrong type or out of range.
    """

    seed: int | None = None
    """Seeds the weights and, with ``nnUNet_n_proc_DA=0``, the patches; ``None`` as stock."""
    _continues = False
    _continued = False

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        with exit_code_two_in_commands():
            self.overrides = read_overrides(type(self))
        self._continues = bool(plans.get("continue_training"))
        super().__init__(plans, configuration, fold, dataset_json, device)
        for name, value in {**defaults(type(self)), **self.overrides}.items():
            setattr(self, name, value)
        self.set_threads()

    def initialize(self) -> None:
        """As nnU-Net, after seeding."""
        self._set_seed(0)
        super().initialize()
        self.set_memory_order(self.network)
        self.set_precision(self.network)

    def _set_seed(self, epoch: int) -> None:
        if self.seed is not None:
            random.seed(self.seed + epoch)
            np.random.seed((self.seed + epoch) % 2**32)
            torch.manual_seed(self.seed + epoch)

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """As nnU-Net, with the hyper-parameters of the run; its epochs have seeds of their own."""
        if self._continues and isinstance(filename_or_checkpoint, str):
            filename_or_checkpoint = furthest(filename_or_checkpoint)
        checkpoint = filename_or_checkpoint
        if isinstance(checkpoint, str):
            checkpoint = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)
        recorded = checkpoint.get(KEY, {})
        self.take_over(recorded.get("configuration", {}))
        self._trained_on = recorded.get("trained_on", ())
        super().load_checkpoint(filename_or_checkpoint)
        self.use_new_weight_decay()
        self._set_seed(self.current_epoch)
        self._continued = True

    def on_train_start(self) -> None:
        """As nnU-Net; keeps what an earlier run made, removes what a killed one left behind."""
        super().on_train_start()
        if self.local_rank == 0:
            if not self._continued:
                set_aside_validation(self.output_folder, self.print_to_log_file)
                if not self.disable_checkpointing:
                    set_aside(self.output_folder, self.print_to_log_file)
            remove_leftovers(self.output_folder)

    def save_checkpoint(self, filename: str) -> None:
        """As nnU-Net, under the name of its trainer, and atomically."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        own = {
            "version": __version__,
            "trainer": type(self).__name__,
            "configuration": self.hyperparameters(),
            "trained_on": list(self._trained_on),
        }
        stock = stock_content(self, unwrap(self.network), self.current_epoch + 1)
        save_atomically({**stock, KEY: own}, filename)
