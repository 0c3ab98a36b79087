"""The labeled, the unlabeled and the validation stream of a training."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnunet_semisup.data.crops import SETTING, CropLoader, OnDevice, for_the_device
from nnunet_semisup.data.labeled_views import LabeledViews
from nnunet_semisup.data.patches import PatchLoader
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
from nnunet_semisup.training.inputs import Inputs
from nnunet_semisup.training.settings import forced_patches


def refuse_cascade(inputs: Inputs) -> None:
    """Refuse the second stage of a cascade.

    Raises:
        UserError: it is one.
    """
    previous = inputs.configuration_manager.previous_stage_name
    if previous is not None:
        raise UserError(
            f"{inputs.trainer} cannot train {inputs.configuration}: it is the second stage of a "
            f"cascade and takes predictions of {previous}, which unlabeled cases do not have. "
            "Train 2d, 3d_lowres or 3d_fullres instead."
        )


def refuse_device_augmentation(inputs: Inputs, maps: Collection[str] = ()) -> None:
    """Refuse ``augment_on_device`` where the workers know more than the device.

    Args:
        inputs: of the training.
        maps: names of what the workers make of a label after the augmentation.

    Raises:
        UserError: the setting is given, and there are such maps, or the second stage of a cascade.
    """
    if not inputs.settings.values[SETTING]:
        return
    previous = inputs.configuration_manager.previous_stage_name
    reasons = [
        f"its workers make {', '.join(maps)} of each augmented label" if maps else "",
        f"{inputs.configuration} takes predictions of {previous}" if previous is not None else "",
    ]
    if any(reasons):
        raise UserError(
            f"{SETTING}=True: {inputs.trainer} cannot augment {inputs.configuration} on the "
            f"device, since {' and '.join(filter(None, reasons))}. Leave the setting out."
        )


class Streams:
    """Make the loaders of a trainer, of which only what nnU-Net's own loader reads is read.

    Args:
        trainer: whose patches, batches and augmentation they have.
    """

    def __init__(self, trainer: nnUNetTrainer) -> None:
        self._trainer = trainer
        self.patch_size = trainer.configuration_manager.patch_size
        rotation, dummy_2d, initial_size, mirror_axes = (
            trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        self.initial_size = initial_size
        scales = trainer._get_deep_supervision_scales()
        manager = trainer.label_manager
        targets = {
            "is_cascaded": trainer.is_cascaded,
            "foreground_labels": manager.foreground_labels,
            "regions": manager.foreground_regions if manager.has_regions else None,
            "ignore_label": manager.ignore_label,
        }
        self._loader: type[PatchLoader] = CropLoader if trainer.augment_on_device else PatchLoader
        training = without_timed_choices(
            trainer.get_training_transforms(
                self.patch_size,
                rotation,
                scales,
                mirror_axes,
                dummy_2d,
                use_mask_for_norm=trainer.configuration_manager.use_mask_for_norm,
                **targets,
            )
        )
        name = type(trainer).__name__
        on_device = trainer.augment_on_device
        self.training_transforms = for_the_device(training, name) if on_device else training
        self.validation_transforms = trainer.get_validation_transforms(scales, **targets)

    def loader(
        self,
        cases: Any,
        batch: int,
        size: Any,
        transforms: Any,
        kind: type[PatchLoader] | None = None,
    ) -> PatchLoader:
        """Return a loader of random patches, which are nnU-Net's.

        Args:
            cases: a data set of nnU-Net.
            batch: patches in a batch.
            size: of a patch before augmentation, in voxels.
            transforms: nnU-Net's augmentation, or a part of it.
            kind: class of the loader; default that of the training patches.
        """
        trainer = self._trainer
        return (kind or self._loader)(
            cases,
            batch,
            size,
            self.patch_size,
            trainer.label_manager,
            oversample_foreground_percent=trainer.oversample_foreground_percent,
            probabilistic_oversampling=trainer.probabilistic_oversampling,
            transforms=transforms,
        )

    def unlabeled(self, cases: UnlabeledDataset, batch: int) -> PatchLoader:
        """Return the loader of unlabeled patches, which begin as large as the labeled ones.

        Args:
            cases: preprocessed cases.
            batch: patches in a batch.
        """
        weak = weak_transforms(self.training_transforms)
        loader = self.loader(cases, batch, self.initial_size, weak)
        if isinstance(loader, CropLoader) and not cases.labeled:
            loader.label_values = (0,)
        loader.oversample_foreground_percent = cases.foreground
        if cases.foreground and not forced_patches(batch, cases.foreground):
            # nnU-Net's rule is for the last ones of a batch, none of so few.
            loader.get_do_oversample = loader._probabilistic_oversampling
        loader.scan_labels = cases.labeled
        loader.has_ignore = False
        return loader

    def start(
        self, views: LabeledViews, unlabeled_loader: Callable[[Any, Streams], Any]
    ) -> tuple[Any, Any]:
        """Return the training and the validation stream, with their worker processes.

        Args:
            views: what is made beside nnU-Net's view of labeled patches.
            unlabeled_loader: makes the loader of the second stream, or gives ``None``.
        """
        trainer = self._trainer
        labeled_cases, validation_cases = trainer.get_tr_and_val_datasets()
        transforms = views.added_to(self.training_transforms)
        labeled = self.loader(labeled_cases, trainer.batch_size, self.initial_size, transforms)
        as_they_are = self.patch_size, self.validation_transforms, PatchLoader
        validation = self.loader(validation_cases, trainer.batch_size, *as_they_are)
        unlabeled = unlabeled_loader(labeled, self)
        workers = get_allowed_n_proc_DA()
        for_validation = 0 if workers == 0 else max(1, workers // 2)
        seed = (trainer.seed or 0) + trainer.local_rank
        first = trainer.current_epoch * trainer.num_iterations_per_epoch + trainer.iteration
        first_validation = trainer.current_epoch * trainer.num_val_iterations_per_epoch
        pin = trainer.device.type == "cuda"
        finish = None
        if isinstance(labeled, CropLoader):
            finish = OnDevice(labeled, unlabeled, views, trainer.device)
        made = None if finish else views
        training = NumberedLoader(labeled, unlabeled, seed, LABELED, first, workers, made)
        checked = NumberedLoader(
            validation, None, seed, VALIDATION, first_validation, for_validation
        )
        return (
            augmenter(training, workers, pin, finish),
            augmenter(checked, for_validation, pin),
        )
