"""Patches that are read in part are nnU-Net's to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semisup.augmentation.spatial import Box, looked_at
from nnunet_semisup.data.patches import PatchLoader, cut, taken_apart
from nnunet_semisup.data.two_stream import seeded, weak_transforms, without_timed_choices

PATCH, INITIAL = {2: (12, 14), 3: (8, 12, 10)}, {2: (18, 20), 3: (11, 17, 15)}
LABELS = LabelManager({"background": 0, "one": 1, "two": 2}, None)


class Cases:
    """Two labeled cases, one smaller than a patch, with voxels outside (-1); reads are counted."""

    identifiers = ("large", "small")

    def __init__(self, classes=3):
        generator = np.random.default_rng(0)
        self.read = []
        self.cases = {}
        for name, shape in zip(self.identifiers, ((30, 40, 40), (7, 12, 11)), strict=True):
            coarse = generator.integers(-1, classes, [n // 3 + 1 for n in shape])
            label = np.kron(coarse, np.ones((3, 3, 3)))[tuple(slice(n) for n in shape)]
            image = generator.normal(size=(2, *shape)).astype(np.float32)
            self.cases[name] = image, label[None].astype(np.int16)

    def load_case(self, identifier):
        image, label = self.cases[identifier]
        found = {k: np.argwhere(label == k) for k in (1, 2)}
        return Counted(image, self.read), label, None, {"class_locations": found}


class Counted:
    """An array of which each part that is read is noted; a part is a copy, as Blosc2's are."""

    def __init__(self, array, read):
        self.array, self.read = array, read
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, array.dtype

    def __getitem__(self, index):
        part = self.array[index].copy()
        self.read.append(part[0].size)
        return part


def loaders(dims, classes=3, weak=False, **options):
    given = {
        "patch_size": np.array(PATCH[dims]),
        "rotation_for_DA": (-0.5, 0.5),
        "deep_supervision_scales": [[1.0] * dims, [0.5] * dims],
        "mirror_axes": tuple(range(dims)),
        "do_dummy_2d_data_aug": False,
        "foreground_labels": [1, 2],
    }
    transforms = without_timed_choices(nnUNetTrainer.get_training_transforms(**{**given, **options}))
    transforms = weak_transforms(transforms) if weak else transforms
    initial = INITIAL[dims]
    if options.get("do_dummy_2d_data_aug"):
        initial = (PATCH[3][0], *initial[1:])
    return [
        kind(Cases(classes), 2, initial, PATCH[dims], LABELS, 0.3, transforms=transforms)
        for kind in (nnUNetDataLoader, PatchLoader)
    ]


def spatial_of(loader):
    (found,) = (t for t in loader.transforms.transforms if isinstance(t, SpatialTransform))
    return found


OPTIONS = {
    "plain": (3, {}),
    "two labels": (3, {"classes": 1}),
    "2D": (2, {}),
    "dummy 2D": (3, {"do_dummy_2d_data_aug": True}),
    "masked": (3, {"use_mask_for_norm": [False, True]}),
    "regions": (3, {"regions": [(1, 2), (2,)]}),
    "one resolution": (3, {"deep_supervision_scales": None}),
    "unlabeled, masked": (3, {"weak": True, "use_mask_for_norm": [True, True]}),
    "unlabeled 2D": (2, {"weak": True}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_batches_are_nnunets_to_the_last_bit(name):
    dims, options = OPTIONS[name]
    made = loaders(dims, **options)
    moved = 0
    for number in range(12):
        for loader in made:
            spatial_of(loader).p_rotation = spatial_of(loader).p_scaling = 0.5
        batches = []
        for loader in made:
            with seeded(number):
                batches.append(loader.generate_train_batch())
        with seeded(number):
            moved += made[1].get_indices() is not None and np.random.rand() < 2
        theirs, ours = batches
        assert list(theirs) == list(ours)
        assert list(theirs["keys"]) == list(ours["keys"])
        targets = [b["target"] if isinstance(b["target"], list) else [b["target"]] for b in batches]
        for one, other in [(theirs["data"], ours["data"]), *zip(*targets, strict=True)]:
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
