"""Batches of both streams: data loading processes, and what nnU-Net masks."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import (
    NonDetMultiThreadedAugmenter,
)
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from scipy import ndimage

from nnunet_semisup.data.two_stream import LABELED, NumberedLoader, augmenter, weak_transforms

AFTER_THREADS = """
import torch
from nnunet_semisup.data.two_stream import LABELED, NumberedLoader, augmenter

class Patches:
    def generate_train_batch(self):
        image = torch.zeros(2, 1, 48, 48, 48)
        return {"data": image, "target": image.clone(), "keys": ["a", "b"]}

if __name__ == "__main__":
    torch.set_num_threads(2)
    torch.randn(512, 512) @ torch.randn(512, 512)
    torch.zeros(2**20).add_(1)
    batches = augmenter(NumberedLoader(Patches(), Patches(), 0, LABELED, 0, 1), 1, False)
    print(next(batches)["unlabeled_valid"].all().item())
    batches._finish()
"""


class Drawn:
    """A loader of patches whose last half is padding, which nnU-Net marks by -1."""

    def generate_train_batch(self):
        target = torch.zeros(2, 1, 4, 4)
        target[:, :, 2:] = -1
        return {"data": torch.ones(2, 1, 4, 4), "target": target, "keys": ["a", "b"]}


class Numbers:
    """A loader whose batch is the process and what torch and numpy draw in it."""

    def set_thread_id(self, thread_id):
        """As batchgenerators asks for."""

    def generate_train_batch(self):
        return {"data": (os.getpid(), torch.rand(()).item(), np.random.rand())}

    __next__ = generate_train_batch


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, workers are not forked")
@pytest.mark.parametrize("stock", [True, False])
def test_workers_do_not_repeat_each_other(stock):
    """Those of nnU-Net 2.8.1 do: batchgenerators 0.25.5 seeds numpy in each, but not torch."""
    if stock:
        batches = NonDetMultiThreadedAugmenter(Numbers(), None, 2, 1, wait_time=0.002)
    else:
        batches = augmenter(NumberedLoader(Numbers(), None, 0, LABELED, 0, 2), 2, False)
    try:
        first = {}
        while len(first) < 2:
            process, *numbers = next(batches)["data"]
            first.setdefault(process, numbers)
    finally:
        batches._finish()
    of_torch, of_numpy = zip(*first.values(), strict=True)
    assert of_numpy[0] != of_numpy[1]
    assert (of_torch[0] == of_torch[1]) == stock


def test_padding_is_not_valid():
    batch = next(NumberedLoader(Drawn(), Drawn(), 0, LABELED, 0, 1))
    assert batch["unlabeled_valid"][:, :, :2].all()
    assert not batch["unlabeled_valid"][:, :, 2:].any()


def test_the_weak_view_is_the_spatial_part_of_the_augmentation():
    spatial = SpatialTransform((8, 8), 0, False, p_rotation=0.5)
    parts = [spatial, GammaTransform((0.7, 1.5), 0, 0, 0, 1), MirrorTransform((0, 1))]
    kept = weak_transforms(ComposeTransforms(parts)).transforms
    assert kept == [spatial, parts[2]]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, workers are not forked")
def test_workers_of_a_process_with_threads_give_batches(tmp_path):
    """A forked worker that opens a parallel region of its own would wait forever."""
    script = tmp_path / "script.py"
    script.write_text(AFTER_THREADS)
    environment = {"OMP_NUM_THREADS": "2", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.stdout.strip() == "True", done.stderr


def test_what_nnunet_masks_is_marked_after_resampling_too():
    """nnU-Net sets the outside to 0, then resamples with splines that leave ripples there."""
    axes = np.meshgrid(*[np.linspace(-1, 1, 32)] * 3, indexing="ij")
    inside = sum(a**2 for a in axes) < 0.5
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=inside.shape), 2)
    image = np.where(inside, 1.0 + smooth / smooth.std(), 0.0)[None]
    size, spacing = (48, 48, 48), ((1.5,) * 3, (1.0,) * 3)
    resampled = resample_data_or_seg_to_shape(image, size, *spacing, order=3, order_z=0)
    outside = resample_data_or_seg_to_shape(
        (~inside)[None].astype(float), size, *spacing, order=0, order_z=0
    )
    far = torch.from_numpy(ndimage.distance_transform_edt(outside[0] > 0.5) > 10)[None]
    within = torch.from_numpy(outside < 0.5)
    resampled = torch.from_numpy(np.asarray(resampled)).float()
    assert (resampled == 0)[far].float().mean() < 0.5, "resampling left the zeros as they were"

    transforms = weak_transforms(ComposeTransforms([MaskImageTransform([0])]))
    drawn = transforms(image=resampled.clone(), segmentation=torch.zeros(1, *size))
    marked = drawn["segmentation"] < 0
    assert marked[far].float().mean() > 0.99
    assert marked[within].float().mean() < 0.01
    assert torch.equal(drawn["image"] == 0, marked | (resampled == 0))
