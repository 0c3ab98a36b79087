"""Small labeled cases, and nnU-Net's loaders of their patches in three kinds."""

from __future__ import annotations

from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semisup.augmentation.without_waiting import without_waiting
from nnunet_semisup.data.crops import CropLoader
from nnunet_semisup.data.patches import PatchLoader
from nnunet_semisup.data.two_stream import weak_transforms, without_timed_choices

PATCH = {2: (12, 14), 3: (8, 12, 10)}
INITIAL = {2: (18, 20), 3: (11, 17, 15)}
LABELS = LabelManager({"background": 0, "one": 1, "two": 2}, None)

OPTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (3, {}),
    "two labels": (3, {"classes": 1}),
    "many labels": (3, {"classes": 9}),
    "many labels 2D": (2, {"classes": 9}),
    "2D": (2, {}),
    "dummy 2D": (3, {"do_dummy_2d_data_aug": True}),
    "masked": (3, {"use_mask_for_norm": [False, True]}),
    "regions": (3, {"regions": [(1, 2), (2,)]}),
    "one resolution": (3, {"deep_supervision_scales": None}),
    "unlabeled, masked": (3, {"weak": True, "use_mask_for_norm": [True, True]}),
    "unlabeled 2D": (2, {"weak": True}),
}
"""Dimensions, and what is other than in most data sets."""


class Cases:
    """Two labeled cases, one smaller than a patch, with voxels outside (-1).

    Attributes:
        read: voxels of each part of an image that was read.
    """

    identifiers = ("large", "small")

    def __init__(self, classes: int = 3) -> None:
        generator = np.random.default_rng(0)
        self.read: list[int] = []
        self.cases = {}
        for name, shape in zip(self.identifiers, ((30, 40, 40), (7, 12, 11)), strict=True):
            coarse = generator.integers(-1, classes, [n // 3 + 1 for n in shape])
            label = np.kron(coarse, np.ones((3, 3, 3)))[tuple(slice(n) for n in shape)]
            image = generator.normal(size=(2, *shape)).astype(np.float32)
            self.cases[name] = image, label[None].astype(np.int16)

    def load_case(self, identifier: str) -> tuple[Any, ...]:
        image, label = self.cases[identifier]
        found = {k: np.argwhere(label == k) for k in (1, 2)}
        return Counted(image, self.read), label, None, {"class_locations": found}


class Counted:
    """An array of which each part that is read is noted; a part is a copy, as Blosc2's are."""

    def __init__(self, array: np.ndarray, read: list[int]) -> None:
        self.array, self.read = array, read
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, array.dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        part: np.ndarray = self.array[index].copy()
        self.read.append(part[0].size)
        return part


def transforms_of(dims: int, **options: Any) -> Any:
    """Return nnU-Net's augmentation."""
    given = {
        "patch_size": np.array(PATCH[dims]),
        "rotation_for_DA": (-0.5, 0.5),
        "deep_supervision_scales": [[1.0] * dims, [0.5] * dims],
        "mirror_axes": tuple(range(dims)),
        "do_dummy_2d_data_aug": False,
        "foreground_labels": [1, 2],
    }
    return without_timed_choices(nnUNetTrainer.get_training_transforms(**{**given, **options}))


def loaders(
    name: str, moving: float = 0.5
) -> tuple[nnUNetDataLoader, PatchLoader, CropLoader, Any]:
    """Return nnU-Net's loader, ours, and the one that cuts out, with its transforms.

    Args:
        name: of :data:`OPTIONS`.
        moving: probability of a rotation, and of a scaling.
    """
    dims, options = OPTIONS[name]
    given = {k: v for k, v in options.items() if k not in ("weak", "classes")}
    host = transforms_of(dims, **given)
    for one in host.transforms:
        if isinstance(one, SpatialTransform):
            one.p_rotation = one.p_scaling = moving
    device = without_waiting(host)
    if options.get("weak"):
        host, device = weak_transforms(host), weak_transforms(device)
    initial = INITIAL[dims]
    if options.get("do_dummy_2d_data_aug"):
        initial = (PATCH[3][0], *initial[1:])
    made = [
        kind(Cases(options.get("classes", 3)), 2, initial, PATCH[dims], LABELS, 0.3, transforms=t)
        for kind, t in ((nnUNetDataLoader, host), (PatchLoader, host), (CropLoader, device))
    ]
    return (*made, device)
