"""``valid`` from an unlabeled case on disk to the batch: true exactly where the image is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semisup.data.two_stream import LABELED, NumberedLoader, weak_transforms
from nnunet_semisup.data.unlabeled import UnlabeledDataset

SIZE = (6, 10, 9)
PATCH = (12, 12, 12)


@pytest.fixture
def loader(tmp_path):
    """Makes the loader of one case, all of whose voxels are 5, with given transforms."""

    def make(*transforms, hole=False):
        image = np.full((1, *SIZE), 5, np.float32)
        if hole:
            image[:, :2] = 1e-4
        np.save(tmp_path / "case.npy", image)
        weak = weak_transforms(ComposeTransforms(list(transforms)))
        made = nnUNetDataLoader(
            UnlabeledDataset({"case": str(tmp_path)}),
            2,
            PATCH,
            PATCH,
            LabelManager({"background": 0, "one": 1}, None),
            transforms=weak,
        )
        return NumberedLoader(made, made, 0, LABELED, 0, 1)

    return make


def turned():
    """Rotates every patch, so that corners come in from beyond the border; nearest voxels."""
    return SpatialTransform(
        PATCH,
        0,
        False,
        p_rotation=1,
        rotation=0.6,
        bg_style_seg_sampling=False,
        border_mode_seg="constant",
        padding_value_seg=-1,
    )


def test_padding_of_a_small_image_is_not_valid(loader):
    batch = next(loader(MirrorTransform((0, 1, 2))))
    assert torch.equal(batch["unlabeled_valid"], batch["unlabeled"] == 5)
    assert batch["unlabeled_valid"].sum() == 2 * np.prod(SIZE)


def test_what_a_rotation_brings_in_is_not_valid(loader):
    """But for the rim, where the image is interpolated and the segmentation is not."""
    batch = next(loader(turned()))
    valid = batch["unlabeled_valid"]
    assert (batch["unlabeled"][valid] > 2.4).all()
    assert (batch["unlabeled"][~valid] < 2.6).all()
    assert 0.5 * np.prod(SIZE) < valid[0].sum() < 1.5 * np.prod(SIZE)


def test_what_was_cropped_before_preprocessing_is_not_valid(loader):
    """Only where nnU-Net masks: elsewhere a value near 0 is an intensity like any other."""
    masked = next(loader(MaskImageTransform([0]), hole=True))
    assert torch.equal(masked["unlabeled_valid"], masked["unlabeled"] == 5)
    assert masked["unlabeled_valid"][0].sum() == np.prod(SIZE) * 4 // 6
    plain = next(loader(hole=True))
    assert torch.equal(plain["unlabeled_valid"], plain["unlabeled"] != 0)
    assert plain["unlabeled_valid"][0].sum() == np.prod(SIZE)
