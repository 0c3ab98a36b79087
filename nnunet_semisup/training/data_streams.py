"""The labeled and the unlabeled stream of a trainer, and the checks that come before anything."""

from __future__ import annotations

import os
from functools import cached_property
from os.path import isfile, join
from typing import TYPE_CHECKING, Any

import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from nnunet_semisup.data.copy_on_write import dataset_class
from nnunet_semisup.data.two_stream import (
    LABELED,
    VALIDATION,
    NumberedLoader,
    augmenter,
    weak_transforms,
    without_timed_choices,
)
from nnunet_semisup.data.unlabeled import UnlabeledDataset
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.fold_cases import differences_to_raw, find_unlabeled

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as _Host
else:
    _Host = object


def fold_folder(trainer: str, plans: dict[str, Any], configuration: str, fold: int | str) -> str:
    """Where nnU-Net puts a training's results; empty without ``nnUNet_results``."""
    if not nnUNet_results.is_set():
        return ""
    name = f"{trainer}__{plans['plans_name']}__{configuration}"
    return join(str(nnUNet_results), plans["dataset_name"], name, f"fold_{fold}")


def is_trained(trainer: str, plans: dict[str, Any], configuration: str, fold: int | str) -> bool:
    """Whether the training has finished, so that it can be validated."""
    folder = fold_folder(trainer, plans, configuration, fold)
    return bool(folder) and isfile(join(folder, "checkpoint_final.pth"))


class LabeledStream(_Host):
    """Labeled and validation batches that depend on the seed and their number alone.

    nnU-Net 2.8.1's own loader depends on its workers: batchgenerators 0.25.5 gives each of them
    numpy numbers of its own, but all begin with the torch generator of the training process, so
    that they repeat each other's augmentation.
    """

    seed: int | None
    iteration: int

    def settle_seed(self) -> None:
        """Draw a seed where none is set, one for all ranks."""
        if self.seed is None:
            self.seed = self.greatest_of_ranks(int.from_bytes(os.urandom(3), "little"))

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Training batches, with the unlabeled stream if there is one, and validation batches."""
        self.dataset_class = dataset_class(self.preprocessed_dataset_folder)
        scales = self._get_deep_supervision_scales()
        rotation, dummy_2d, initial_size, mirror_axes = (
            self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        size = self.configuration_manager.patch_size
        manager = self.label_manager
        targets = {
            "is_cascaded": self.is_cascaded,
            "foreground_labels": manager.foreground_labels,
            "regions": manager.foreground_regions if manager.has_regions else None,
            "ignore_label": manager.ignore_label,
        }
        training = without_timed_choices(
            self.get_training_transforms(
                size,
                rotation,
                scales,
                mirror_axes,
                dummy_2d,
                use_mask_for_norm=self.configuration_manager.use_mask_for_norm,
                **targets,
            )
        )
        validation = self.get_validation_transforms(scales, **targets)
        labeled_cases, validation_cases = self.get_tr_and_val_datasets()
        labeled = self._loader(labeled_cases, self.batch_size, initial_size, training)
        checked = self._loader(validation_cases, self.batch_size, size, validation)
        return self._start(labeled, self.unlabeled_loader(labeled, initial_size), checked)

    def unlabeled_loader(self, labeled: nnUNetDataLoader, size: Any) -> nnUNetDataLoader | None:
        """Return the loader of the second stream; default none.

        Args:
            labeled: that of the first.
            size: of its patches before augmentation.
        """
        return None

    def _loader(self, cases: Any, batch: int, size: Any, transforms: Any) -> nnUNetDataLoader:
        return nnUNetDataLoader(
            cases,
            batch,
            size,
            self.configuration_manager.patch_size,
            self.label_manager,
            oversample_foreground_percent=self.oversample_foreground_percent,
            probabilistic_oversampling=self.probabilistic_oversampling,
            transforms=transforms,
        )

    def _start(
        self,
        labeled: nnUNetDataLoader,
        unlabeled: nnUNetDataLoader | None,
        validation: nnUNetDataLoader,
    ) -> tuple[Any, Any]:
        workers = get_allowed_n_proc_DA()
        validation_workers = 0 if workers == 0 else max(1, workers // 2)
        seed = (self.seed or 0) + self.local_rank
        first = self.current_epoch * self.num_iterations_per_epoch + self.iteration
        first_validation = self.current_epoch * self.num_val_iterations_per_epoch
        pin = self.device.type == "cuda"
        return (
            augmenter(
                NumberedLoader(labeled, unlabeled, seed, LABELED, first, workers), workers, pin
            ),
            augmenter(
                NumberedLoader(
                    validation, None, seed, VALIDATION, first_validation, validation_workers
                ),
                validation_workers,
                pin,
            ),
        )

    def run_training(self) -> None:
        """As nnU-Net; where it fails, the worker processes end first, which nobody waits for."""
        try:
            super().run_training()
        except BaseException:
            self.stop_workers()
            raise

    def stop_workers(self) -> None:
        """Ends the worker processes of both loaders."""
        for loader in (self.dataloader_train, self.dataloader_val):
            if isinstance(loader, MultiThreadedAugmenter):
                loader._finish()


class DataStreams(LabeledStream):
    """What a semi-supervised trainer adds to nnUNetTrainer's data loading."""

    unlabeled_batch_size: int | None

    @classmethod
    def check_unlabeled(
        cls, plans: dict[str, Any], configuration: str, fold: int | str, dataset_json: dict
    ) -> None:
        """Refuses, before anything is written, what training could not use.

        A fold that is already trained needs no unlabeled cases any more (``--val``).

        Raises:
            UserError: the cascade's second stage, or whatever :func:`find_unlabeled` raises.
        """
        manager = PlansManager({k: v for k, v in plans.items() if k != "continue_training"})
        config = manager.get_configuration(configuration)
        if config.previous_stage_name is not None:
            raise UserError(
                f"{cls.__name__} cannot train {configuration}: it is the second stage of a cascade "
                f"and takes predictions of {config.previous_stage_name}, which unlabeled cases do "
                "not have. Train 2d, 3d_lowres or 3d_fullres instead."
            )
        if nnUNet_preprocessed.is_set():
            folder = join(str(nnUNet_preprocessed), manager.dataset_name)
            if not is_trained(cls.__name__, plans, configuration, fold):
                find_unlabeled(folder, manager, configuration, fold)

    @property
    def unlabeled_patches(self) -> int:
        """Unlabeled patches a step on this rank."""
        return self.unlabeled_batch_size or self.batch_size

    @cached_property
    def unlabeled_folders(self) -> dict[str, str]:
        """Case id to folder of every unlabeled case of this fold."""
        return find_unlabeled(
            self.preprocessed_dataset_folder_base,
            self.plans_manager,
            self.configuration_name,
            self.fold,
        )

    def unlabeled_loader(self, labeled: nnUNetDataLoader, size: Any) -> nnUNetDataLoader:
        """Return the loader of the unlabeled patches, which begin as large as the labeled ones."""
        folders = self.unlabeled_folders
        self.print_to_log_file(f"{len(labeled.indices)} labeled and {len(folders)} unlabeled cases")
        for note in differences_to_raw(folders, self.plans_manager, self.configuration_name):
            self.print_to_log_file(f"WARNING: {note}")
        unlabeled = self._loader(
            UnlabeledDataset(folders),
            self.unlabeled_patches,
            size,
            weak_transforms(labeled.transforms),
        )
        unlabeled.oversample_foreground_percent = 0.0
        unlabeled.has_ignore = False
        return unlabeled

    def masked_channels(self) -> Tensor | None:
        """``(1, C, 1, ...)`` bool, the channels that nnU-Net sets to 0 where it crops; or None."""
        masked = list(self.configuration_manager.use_mask_for_norm)
        if not any(masked):
            return None
        spatial = [1] * len(self.configuration_manager.patch_size)
        return torch.tensor(masked, device=self.device).reshape(1, -1, *spatial)
