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

from nnunet_semisup import __version__
from nnunet_semisup.data.copy_on_write import dataset_class
from nnunet_semisup.errors import exit_code_two_in_commands
from nnunet_semisup.training.batches import unwrap
from nnunet_semisup.training.checkpoint import (
    KEY,
    read_checkpoint,
    remove_leftovers,
    restore_stock_content,
    save_atomically,
    set_aside,
    stock_content,
)
from nnunet_semisup.training.compute_settings import ComputeSettings
from nnunet_semisup.training.data_streams import LabeledStream
from nnunet_semisup.training.hyperparameters import defaults, read_overrides
from nnunet_semisup.training.moving_average import MovingAverage
from nnunet_semisup.training.preflight import check_before_training
from nnunet_semisup.training.run_record import Records
from nnunet_semisup.training.stopping import Divergence
from nnunet_semisup.training.validation import Validation, set_aside_validation
from nnunet_semisup.training.window_precision import WindowPrecision


class nnUNetTrainerSupervised(
    Divergence,
    LabeledStream,
    MovingAverage,
    Validation,
    WindowPrecision,
    Records,
    ComputeSettings,
    nnUNetTrainer,
):
    """nnUNetTrainer whose attributes ``nnUNet_semisup_set`` can override.

    Its network is the plan's, and its checkpoints name nnUNetTrainer: stock nnU-Net predicts from
    them. The results folder has this class's own name.

    Raises:
        UserError: an unknown hyper-parameter, or a value of the wrong type or out of range.
    """

    seed: int | None = None
    """Seeds weights and patches; ``None`` draws one and records it."""
    stock_loader: bool = False
    """Patches from nnU-Net's own loader; the seed fixes them with ``nnUNet_n_proc_DA=0`` only."""
    iteration = 0
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
            values = {**defaults(type(self)), **self.overrides}
            # What a continued run was started with is in its checkpoint, and it has started.
            deep_supervision = not self._continues and values.get("enable_deep_supervision", True)
            check_before_training(
                type(self).__name__, plans, configuration, fold, dataset_json, deep_supervision
            )
        super().__init__(plans, configuration, fold, dataset_json, device)
        for name, value in values.items():
            setattr(self, name, value)
        self.set_threads()
        self.settle_seed()

    def initialize(self) -> None:
        """As nnU-Net, after seeding."""
        self._set_seed(0)
        super().initialize()
        self.set_memory_order(self.network)
        self.set_precision(self.network)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Batches that the seed numbers, as every other trainer's; or nnU-Net's own loaders."""
        if self.stock_loader:
            self.dataset_class = dataset_class(self.preprocessed_dataset_folder)
            return nnUNetTrainer.get_dataloaders(self)
        return super().get_dataloaders()

    def _set_seed(self, epoch: int) -> None:
        assert self.seed is not None
        seed = self.seed + epoch + 10_000 * self.local_rank
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)

    @property
    def training_network(self) -> Any:
        """The network, without what distributes or compiles it."""
        return unwrap(self.network)

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """As nnU-Net.

        Raises:
            DivergedError: weights, or the losses of the last steps, are NaN or Inf.
        """
        super().on_train_epoch_end(train_outputs)
        self.refuse_broken_losses(np.array([output["loss"] for output in train_outputs]))
        self.refuse_broken_weights()

    @exit_code_two_in_commands()
    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """As nnU-Net, with the hyper-parameters of the run; its epochs have seeds of their own."""
        checkpoint = filename_or_checkpoint
        if isinstance(checkpoint, str):
            checkpoint = read_checkpoint(checkpoint, self.device, self._continues)
        recorded = checkpoint.get(KEY, {})
        self.take_over(recorded.get("configuration", {}))
        self._trained_on = recorded.get("trained_on", ())
        self.settle_seed()
        if not self.was_initialized:
            self.initialize()
        self.training_network.load_state_dict(checkpoint["network_weights"])
        restore_stock_content(self, checkpoint)
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
        self.refuse_broken_weights()
        own = {
            "version": __version__,
            "trainer": type(self).__name__,
            "configuration": self.hyperparameters(),
            "trained_on": list(self._trained_on),
        }
        stock = stock_content(self, self.training_network, self.current_epoch + 1)
        save_atomically({**stock, KEY: own}, filename)
