"""Base of all trainers of this package, the supervised one included.

nnUNetTrainer with settable hyper-parameters, batches that the seed numbers, files that are written
whole or not at all, a validation that scores the fold's own cases, and an end where a training
diverged. Its loop, augmentation and loss are nnU-Net's.
"""

from __future__ import annotations

import os
from functools import cached_property
from os.path import join
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_semisup import __version__
from nnunet_semisup.data.copy_on_write import dataset_class
from nnunet_semisup.data.labeled_views import LabeledViews
from nnunet_semisup.errors import DivergedError, exit_code_two_in_commands
from nnunet_semisup.inference.float32 import changed_voxels_note, float32_validation
from nnunet_semisup.networks.bfloat16 import use_bfloat16
from nnunet_semisup.networks.memory_format import use_channels_last
from nnunet_semisup.safe_files import LAYOUT
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
from nnunet_semisup.training.definitions import defining_classes
from nnunet_semisup.training.divergence import all_finite, divergence_message, losses_failed
from nnunet_semisup.training.ending import ending
from nnunet_semisup.training.inputs import Inputs
from nnunet_semisup.training.mlflow_logger import follow
from nnunet_semisup.training.moving_average import NO_FOREGROUND, leave_out_epochs_without_dice
from nnunet_semisup.training.partial_labels import partial_labels_of
from nnunet_semisup.training.ranges import Count
from nnunet_semisup.training.ranks import Ranks, use_device_of_process
from nnunet_semisup.training.run_record import OVERSAMPLING, notes_of_run
from nnunet_semisup.training.settings import CONFIG_NAME, Seed, Settings
from nnunet_semisup.training.start_weights import hear_of_start_weights
from nnunet_semisup.training.streams import Streams, refuse_device_augmentation
from nnunet_semisup.training.validation import archive_other_predictions, refuse_learned


class CommonTrainer(nnUNetTrainer):
    """Train as nnUNetTrainer, with attributes that ``nnUNet_semisup_set`` can override.

    Raises:
        UserError: an unknown hyper-parameter, a value of the wrong type or out of range, or
            folders, a fold or a plan that cannot be trained; before anything is written.
    """

    seed: Seed | None = None
    """Seeds weights, patches and perturbations; ``None`` draws one and records it."""
    cpu_bfloat16: bool = False
    """Mixed precision on the CPU; nnU-Net has it on GPUs only."""
    cpu_threads: Count | None = None
    """Threads of a training on the CPU; ``None``: one a core, as nnU-Net."""
    channels_last: bool = False
    """Channels-last weights: the same up to rounding; measure before (benchmarks/channels_last)."""
    augment_on_device: bool = False
    """Augments batches on the training's device; workers then only cut out and draw (docs)."""
    float32_windows: bool = False
    """Sums the windows of the final validation in float32; nnU-Net's float16 rounds at borders."""

    network: Any
    iteration = 0
    restored = False
    _oversampling: float | None = None
    _best_ema: float | None
    partial_labels = cached_property(partial_labels_of)

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        with exit_code_two_in_commands():
            inputs = Inputs.of(type(self), plans, configuration, fold, dataset_json)
            self.check_settings(inputs.settings)
            inputs.check(device.type)
            self.check_inputs(inputs)
            self.check_cases(inputs)
        super().__init__(plans, configuration, fold, dataset_json, device)
        use_device_of_process(self, device)
        hear_of_start_weights()
        self.continues = inputs.continues
        self.ranks = Ranks(self.is_ddp)
        self.trained_on: list[str] = []
        self.start_weights: dict[str, str] | None = None
        self.use_settings(inputs.settings)
        if self.cpu_threads is not None and self.device.type == "cpu":
            torch.set_num_threads(self.cpu_threads)
        self.settle_seed()
        self.start_records()

    def start_records(self) -> None:
        """Make what a run keeps beside nnU-Net's own; called last by the constructor."""
        follow(self)

    # Checks before anything is written.

    def check_settings(self, settings: Settings) -> None:
        """Refuse hyper-parameters that do not go together; ranges are checked before.

        Comes before nnU-Net's constructor, like :meth:`check_inputs`: the trainer is still empty.

        Raises:
            UserError: what was given, and what is possible.
        """

    def check_inputs(self, inputs: Inputs) -> None:
        """Refuse settings, plans or a ``dataset.json`` that are no use; a method extends it."""
        refuse_device_augmentation(inputs)

    def check_cases(self, inputs: Inputs) -> None:
        """Refuse by a UserError preprocessed cases that training could not use."""

    # Hyper-parameters.

    def use_settings(self, settings: Settings) -> None:
        """Set the attributes that are hyper-parameters."""
        self.settings = settings
        for name, value in settings.values.items():
            setattr(self, name, value)

    def settle_seed(self) -> None:
        """Draw a seed where none is set, one for all ranks."""
        if self.seed is None:
            self.seed = self.ranks.greatest(int.from_bytes(os.urandom(3), "little"))

    def hyperparameters(self) -> dict[str, Any]:
        """Return name and value of each, as it was set for all ranks."""
        values = {name: getattr(self, name) for name in self.settings.kinds}
        if self._oversampling is not None:
            values[OVERSAMPLING] = self._oversampling
        return values

    def configuration(self) -> dict[str, Any]:
        """Return the record of the run: trainer, versions, hyper-parameters, seed."""
        return {
            "trainer": type(self).__name__,
            "nnunet_semisup": __version__,
            "hyperparameters": self.hyperparameters(),
            "batch_size": self.batch_size,
            "start_weights": self.start_weights,
        }

    # Networks.

    @classmethod
    def predicts_with_plan_network(cls) -> bool:
        """Tell whether nnUNetTrainer builds the network that predicts."""
        return defining_classes(cls, "build_network_architecture") == [nnUNetTrainer]

    @property
    def training_network(self) -> Any:
        """The network in training, without what distributes or compiles it."""
        return unwrap(self.network)

    @property
    def network_that_predicts(self) -> nn.Module:
        """The network whose weights go into checkpoints for prediction."""
        return self.training_network

    def apply_precision(self, network: nn.Module) -> None:
        """Compute as ``cpu_bfloat16`` says; to be called after every copy is made."""
        if self.cpu_bfloat16 and self.device.type == "cpu":
            use_bfloat16(network)

    def apply_memory_order(self, network: nn.Module) -> None:
        """Store weights as ``channels_last`` says; a copy made afterwards keeps the order."""
        if self.channels_last:
            use_channels_last(network)

    def weights_replaced(self) -> None:
        """Act when start weights came into the network; the teacher's trainers extend it."""

    # nnU-Net's life cycle.

    def _set_batch_size_and_oversample(self) -> None:
        """Set nnU-Net's own, which put each rank's share in place of the one that was set."""
        self._oversampling = self.oversample_foreground_percent
        super()._set_batch_size_and_oversample()

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Return training and validation batches that depend on the seed and their number alone.

        nnU-Net 2.8.1's own loader depends on its workers: batchgenerators 0.25.5 gives each of
        them numpy numbers of its own, but all begin with the torch generator of the training
        process, so that they repeat each other's augmentation.
        """
        self.dataset_class = dataset_class(self.preprocessed_dataset_folder)
        return Streams(self).start(self.labeled_views(), self.unlabeled_loader)

    def labeled_views(self) -> LabeledViews:
        """Return what is made beside nnU-Net's view of labeled patches; here nothing."""
        return LabeledViews(False, {}, self.label_manager)

    def unlabeled_loader(self, labeled: Any, streams: Streams) -> Any:
        """Return the loader of a second stream, by that of the first; default none."""
        return None

    def get_tr_and_val_datasets(self) -> Any:
        """Return nnU-Net's, which calls it to train; the cases go into the checkpoints."""
        datasets = super().get_tr_and_val_datasets()
        self.trained_on = sorted({*self.trained_on, *map(str, datasets[0].identifiers)})
        return datasets

    @exit_code_two_in_commands()
    def do_split(self) -> Any:
        """Split as nnU-Net does, for a network that has not trained on cases of ``val``.

        Raises:
            UserError: it has, by an earlier state of ``splits_final.json``.
        """
        train, val = super().do_split()
        refuse_learned(train, val, self.trained_on, self.fold)
        return train, val

    @exit_code_two_in_commands()
    def on_train_start(self) -> None:
        """Begin as nnU-Net does; keep what an earlier run made, and record this one."""
        super().on_train_start()
        for note in notes_of_run(self):
            self.print_to_log_file(note)
        if self.local_rank == 0:
            if not self.restored:
                keep = not self.disable_checkpointing
                set_aside(self.output_folder, keep, self.print_to_log_file)
            remove_leftovers(self.output_folder)
            save_json(self.configuration(), join(self.output_folder, CONFIG_NAME))

    def run_training(self) -> None:
        """Train as nnU-Net does; however it ends, nothing is left behind."""
        with ending(self):
            super().run_training()

    def stop_workers(self) -> None:
        """End the worker processes of both loaders."""
        for loader in (self.dataloader_train, self.dataloader_val):
            if isinstance(loader, MultiThreadedAugmenter):
                loader._finish()

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Log as nnU-Net does; say where an epoch's validation patches have no Dice."""
        super().on_validation_epoch_end(val_outputs)
        if leave_out_epochs_without_dice(self.logger):
            self.print_to_log_file(NO_FOREGROUND)

    def on_epoch_end(self) -> None:
        """End as nnU-Net does, for which no epoch shall be the best before one has a Dice."""
        if self._best_ema is None and np.isnan(self.logger.get_value("ema_fg_dice", -1)):
            self._best_ema = np.nan
        super().on_epoch_end()
        if self._best_ema is not None and np.isnan(self._best_ema):
            self._best_ema = None

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate as nnU-Net does, in a folder without predictions of cases of another fold."""
        if self.local_rank == 0:
            archive_other_predictions(
                self.output_folder,
                self.dataset_json["file_ending"],
                lambda: self.do_split()[1],
                self.print_to_log_file,
            )
        self.ranks.wait()
        if not self.float32_windows:
            super().perform_actual_validation(save_probabilities)
            return
        with float32_validation() as predictors:
            super().perform_actual_validation(save_probabilities)
        counts = torch.tensor([[p.changed, p.voxels] for p in predictors]).sum(0)
        self.print_to_log_file(changed_voxels_note(*self.ranks.sum_of(counts).tolist()))

    # A training that diverged.

    def refuse_broken_weights(self) -> None:
        """End a training that cannot recover, while the checkpoints still hold good weights.

        Raises:
            DivergedError: a weight in training is NaN or Inf.
        """
        if not all_finite(self.training_network.parameters()):
            self._end_diverged("weights")

    def refuse_broken_losses(self, losses: np.ndarray) -> None:
        """End a training whose epoch's last steps all had a loss of NaN or Inf, on any rank.

        Args:
            losses: ``(steps,)`` of the epoch.

        Raises:
            DivergedError: it is so.
        """
        if self.ranks.greatest(int(losses_failed(losses))):
            self._end_diverged("losses")

    def broken_terms(self) -> list[str]:
        """Return names of loss terms that are NaN or Inf, where they are recorded; default none."""
        return []

    def _end_diverged(self, what: str) -> None:
        message = divergence_message(self.current_epoch, what, self.broken_terms())
        self.print_to_log_file(message)
        raise DivergedError(message)

    # Checkpoints.

    def save_checkpoint(self, filename: str) -> None:
        """Write ``filename`` atomically; stock nnU-Net can predict from it."""
        self.write_checkpoint(filename, self.current_epoch + 1)

    def write_checkpoint(self, filename: str, next_epoch: int) -> bool:
        """Write ``filename`` on the first rank; tell whether this rank did.

        Args:
            filename: of the checkpoint.
            next_epoch: with which a continued run begins.

        Raises:
            DivergedError: a weight in training is NaN or Inf.
        """
        if self.local_rank != 0:
            return False
        self.refuse_broken_weights()
        if self.disable_checkpointing:
            self.print_to_log_file("No checkpoint written, checkpointing is disabled")
            return False
        stock = stock_content(self, self.network_that_predicts, next_epoch)
        save_atomically({**stock, KEY: self.extra_state()}, filename)
        return True

    def extra_state(self) -> dict[str, Any]:
        """Return everything that resuming needs beyond nnU-Net's own; a method extends it."""
        return {
            "version": __version__,
            "layout": LAYOUT,
            "trainer": type(self).__name__,
            "configuration": self.hyperparameters(),
            "trained_on": list(self.trained_on),
            "start_weights": self.start_weights,
        }

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint with which this training cannot go on; here none."""

    @exit_code_two_in_commands()
    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Restore a run.

        Hyper-parameters are the run's own, unless ``nnUNet_semisup_set`` has others; the seed is
        always the run's.

        Raises:
            UserError: the checkpoint is not there, or cannot be continued by this trainer.
        """
        checkpoint = filename_or_checkpoint
        if isinstance(checkpoint, str):
            checkpoint = read_checkpoint(checkpoint, self.device, self.continues)
        self.check_checkpoint(checkpoint)
        state = checkpoint.get(KEY, {})
        recorded = state.get("configuration", {})
        for name, value in self.settings.taken_from(recorded).items():
            setattr(self, name, value)
        self.settings = self.settings.continuing(recorded)
        for change in self.settings.changes(recorded):
            self.print_to_log_file(change)
        self.trained_on = list(state.get("trained_on", ()))
        self.start_weights = state.get("start_weights")
        self.settle_seed()
        if not self.was_initialized:
            self.initialize()
        self.load_extra_state(state, checkpoint)
        restore_stock_content(self, checkpoint, "weight_decay" in self.settings.given)
        self.restored = True

    def load_extra_state(self, state: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Restore what :meth:`extra_state` gave; a method extends it.

        Args:
            state: that.
            checkpoint: the whole of it.
        """
        self.training_network.load_state_dict(checkpoint["network_weights"])
