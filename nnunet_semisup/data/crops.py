"""Batches for ``augment_on_device``: workers cut patches out, the device augments them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnunet_semisup.augmentation.chain import Chain
from nnunet_semisup.augmentation.recipes import DeviceAugmentation, Recipe, drawn_by, packed
from nnunet_semisup.augmentation.spatial import outside_label
from nnunet_semisup.augmentation.without_waiting import without_waiting
from nnunet_semisup.data.labeled_views import LabeledViews
from nnunet_semisup.data.patches import Patch, PatchLoader, values_of
from nnunet_semisup.data.valid import valid_voxels
from nnunet_semisup.errors import UserError

SETTING = "augment_on_device"


def for_the_device(transforms: Any, trainer: str) -> Any:
    """Return nnU-Net's augmentation such that the device can do it.

    Args:
        transforms: what ``nnUNetTrainer.get_training_transforms`` returned.
        trainer: name of the class.

    Raises:
        UserError: a trainer of the user's has other transforms.
    """
    try:
        return without_waiting(transforms)
    except ValueError as error:
        raise UserError(
            f"{SETTING}=True: {trainer} augments by {error}, which the device cannot do. Take "
            "nnU-Net's own transforms, or leave the setting out."
        ) from error


class CropLoader(PatchLoader):
    """Cut out what nnU-Net's augmentation looks at, and draw what it is to do.

    Its batches are what :meth:`DeviceAugmentation.batch` takes, with ``keys``.
    """

    label_values: tuple[int, ...] | None = None
    """Values of all labels; ``None``: they are looked for where it matters."""

    def batch_of(self, patches: Iterator[Patch], chain: Chain) -> dict[str, Any]:
        """Return a batch without ``keys``."""
        images, labels, recipes = zip(*(self.crop(one, chain) for one in patches), strict=True)
        kind = max((label.dtype for label in labels), key=lambda one: one.itemsize)
        buffer, layout = packed([*images, *(label.to(kind) for label in labels)])
        return {"packed": buffer, "layout": layout, "recipes": list(recipes)}

    def crop(self, patch: Patch, chain: Chain) -> tuple[torch.Tensor, torch.Tensor, Recipe]:
        """Return the part of a patch that is needed, its label, and what is to be done."""
        drawn, box, shape = self.looked_at(chain)
        kind = np.int8 if patch.label.dtype == np.int8 else np.int16
        image, label = self.read(patch, box, kind)
        present: list[int] = []
        if drawn["affine"] is not None:
            values = values_of(label) if self.label_values is None else self.label_values
            present = sorted({*values, outside_label(chain.spatial)})
        size = image.shape[: -len(shape)] + tuple(int(n) for n in chain.spatial.patch_size)
        recipe = Recipe(box, drawn["affine"], present, drawn_by(chain.after, size))
        return image, label, recipe

    def on_device(self, device: torch.device) -> DeviceAugmentation:
        """Return what makes batches of the crops.

        Raises:
            UserError: the augmentation has no rotation of nnU-Net's kind.
        """
        if self.chain is None:
            raise UserError(
                f"{SETTING}=True needs rotation and scaling as nnU-Net has them, without elastic "
                "deformation or random crops. Leave the setting out."
            )
        shape = self.patch_size[-len(self.chain.spatial.patch_size) :]
        return DeviceAugmentation(self.chain, [int(number) for number in shape], device)


class OnDevice:
    """Make the batch of a step of what the workers sent.

    Args:
        labeled: the loader of the labeled patches.
        unlabeled: that of the unlabeled ones, or ``None``.
        views: what is made beside nnU-Net's view of the labeled patches.
        device: of the training.
    """

    def __init__(
        self,
        labeled: CropLoader,
        unlabeled: CropLoader | None,
        views: LabeledViews,
        device: torch.device,
    ) -> None:
        self.labeled = labeled.on_device(device)
        self.unlabeled = None if unlabeled is None else unlabeled.on_device(device)
        self.views = views
        self.scans_labeled = unlabeled is not None and has_labels(unlabeled)

    def __call__(self, sent: dict[str, Any]) -> dict[str, Any]:
        """Return the batch that :class:`~nnunet_semisup.data.two_stream.NumberedLoader` makes."""
        batch = {**self.labeled.batch(sent), **self.views.take(), "keys": sent["keys"]}
        if self.unlabeled is not None:
            drawn = self.unlabeled.batch(sent["unlabeled"])
            batch |= unlabeled_part(
                {**drawn, "keys": sent["unlabeled"]["keys"]}, self.scans_labeled
            )
        return batch


def has_labels(loader: nnUNetDataLoader) -> bool:
    """Tell whether the segmentations of a loader of unlabeled patches have classes in them."""
    return bool(getattr(loader, "scan_labels", False))


def unlabeled_part(drawn: dict[str, Any], labeled: bool) -> dict[str, Any]:
    """Return what a batch has of unlabeled patches.

    Args:
        drawn: batch of their own loader.
        labeled: whether their segmentations have classes in them.
    """
    part = {
        "unlabeled": drawn["data"],
        "unlabeled_valid": valid_voxels(drawn["target"]),
        "unlabeled_keys": drawn["keys"],
    }
    return {**part, "unlabeled_label": drawn["target"]} if labeled else part
