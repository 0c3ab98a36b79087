"""What is read in part, or augmented on the device, is what nnU-Net makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.random_clip import CutOffOutliersTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunet_semisup.augmentation.chain import taken_apart
from nnunet_semisup.augmentation.spatial import (
    Box,
    looked_at,
    moved_labels,
    moved_labels_at_edges,
    on_whole,
)
from nnunet_semisup.augmentation.without_waiting import Noise
from nnunet_semisup.data.crops import CropLoader, OnDevice, for_the_device
from nnunet_semisup.data.labeled_views import LabeledViews
from nnunet_semisup.data.patches import PatchLoader, cut
from nnunet_semisup.data.two_stream import LABELED, NumberedLoader, augmenter, seeded
from nnunet_semisup.errors import UserError
from tests.unit.augmentation.patches import LABELS, OPTIONS, PATCH, Cases, loaders, transforms_of

CPU = torch.device("cpu")


def listed(target):
    return target if isinstance(target, list) else [target]


def drawn(loader, number):
    with seeded(number):
        return loader.generate_train_batch()


def noisy(batch, chain):
    """Whether each recipe has noise, whose numbers are the device's own."""
    noise = {
        place
        for place, one in enumerate(chain.after)
        if isinstance(one, RandomTransform) and isinstance(one.transform, Noise)
    }
    return [bool(noise & {place for place, _ in one.drawn}) for one in batch["recipes"]]


@pytest.mark.parametrize("name", OPTIONS)
def test_patches_that_are_read_in_part_are_nnunets_to_the_last_bit(name):
    """Sums over an image are rounded by its strides, so that these are nnU-Net's, too."""
    stock, ours, _, _ = loaders(name)
    for number in range(8):
        one, other = drawn(stock, number), drawn(ours, number)
        assert list(one) == list(other)
        assert list(one["keys"]) == list(other["keys"])
        pairs = zip(listed(one["target"]), listed(other["target"]), strict=True)
        for mine, theirs in [(one["data"], other["data"]), *pairs]:
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)
    assert sum(ours._data.read) < sum(stock._data.read)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_device_makes_the_workers_batches_up_to_rounding(name):
    """But for noise, which has other numbers, and labels whose shares of a voxel are equal."""
    _, ours, crops, _ = loaders(name)
    device = crops.on_device(CPU)
    compared, noise = 0, 0
    for number in range(14):
        one, sent = drawn(ours, number), drawn(crops, number)
        other = device.batch(sent)
        assert list(one["keys"]) == list(sent["keys"])
        for mine, theirs in zip(listed(one["target"]), listed(other["target"]), strict=True):
            assert mine.dtype == theirs.dtype
            assert (mine != theirs).float().mean() < 5e-3
        for place, has_noise in enumerate(noisy(sent, crops.chain)):
            mine, theirs = (batch["data"][place] for batch in (one, other))
            same = torch.isclose(mine, theirs, rtol=1e-4, atol=1e-4).float().mean()
            compared, noise = compared + 1, noise + has_noise
            assert same < 0.9 if has_noise else same > 0.998
    assert compared == 28
    assert noise == 0 if "unlabeled" in name else noise > 0


@pytest.mark.parametrize("rotation", [0, 0.6])
@pytest.mark.parametrize("scattered", [True, False])
def test_labels_where_they_meet_are_nnunets(rotation, scattered):
    """Without rotation, points are half way between voxels, where several have as great a share.

    Labels that are not scattered meet what is beyond the patch, at its border alone.
    """
    label = torch.ones((1, 9, 9, 9), dtype=torch.int16)
    part = label if scattered else label[:, 3:6, 3:6, 3:6]
    values = np.random.default_rng(0).integers(-1, 4, part.shape, np.int16)
    part.copy_(torch.from_numpy(values))
    outside = {"border_mode_seg": "constant", "padding_value_seg": -1}
    spatial = SpatialTransform((14,) * 3, 0, False, p_rotation=1, rotation=rotation, **outside)
    theirs = spatial(image=torch.zeros(1, 9, 9, 9), segmentation=label)["segmentation"]
    grid = spatial.get_parameters(image=torch.zeros(1, 9, 9, 9))["grid"]
    box, shape = Box((0, 0, 0), (9, 9, 9)), (9, 9, 9)
    for give in (moved_labels_at_edges, everywhere):
        assert torch.equal(give(label, grid, box, shape, range(-1, 4), -1), theirs)
    nearest = moved_labels(label, on_whole(grid, box, shape), (14,) * 3, [], -1)
    assert not torch.equal(nearest, theirs)


def everywhere(label, grid, box, shape, present, outside):
    return moved_labels(label, on_whole(grid, box, shape), grid.shape[:-1], present, outside)


def test_nothing_waits_for_the_device():
    """On a device without values, whoever asks for one fails."""
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ones(3, device="meta").sum().item()
    for name in ("masked", "regions", "dummy 2D", "unlabeled, masked"):
        _, _, crops, _ = loaders(name, moving=1)
        for transform in crops.chain.after:
            if isinstance(transform, RandomTransform):
                transform.apply_probability = float(not isinstance(transform.transform, Noise))
        batch = crops.on_device(torch.device("meta")).batch(drawn(crops, 0))
        assert batch["data"].device.type == "meta"


def test_the_global_generators_of_the_training_are_left_alone():
    _, _, crops, _ = loaders("plain")
    states = torch.get_rng_state(), np.random.get_state()[1]
    for number in range(5):
        crops.on_device(CPU).batch(drawn(crops, number))
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_both_streams_and_the_weak_view_from_workers(workers):
    """As without the setting: a function of the seed and the batch's number."""
    _, ours, _, device = loaders("masked")
    _, weak_ours, weak_crops, _ = loaders("unlabeled, masked")

    def batches(labeled, unlabeled, views, finish, first=0, number=0):
        loader = NumberedLoader(labeled, unlabeled, 7, LABELED, first, number, views)
        made = augmenter(loader, number, False, finish)
        found = [next(made) for _ in range(3)]
        if number:
            made._finish()
        return found

    host_views, views = (LabeledViews(True, {}, LABELS) for _ in range(2))
    labeled = PatchLoader(
        Cases(), 2, ours.patch_size, PATCH[3], LABELS, 0.3,
        transforms=host_views.added_to(ours.transforms),
    )  # fmt: skip
    on_host = batches(labeled, weak_ours, host_views, None)
    cutting = CropLoader(
        Cases(), 2, ours.patch_size, PATCH[3], LABELS, 0.3, transforms=views.added_to(device)
    )
    finish = OnDevice(cutting, weak_crops, views, CPU)
    on_device = batches(cutting, weak_crops, None, finish, number=workers)
    again = batches(cutting, weak_crops, None, finish, first=2)[0]
    for one, other in zip(on_host, on_device, strict=True):
        assert set(one) == set(other)
        assert list(one["unlabeled_keys"]) == list(other["unlabeled_keys"])
        for key in ("weak", "unlabeled"):
            close = torch.isclose(one[key], other[key], rtol=1e-4, atol=1e-4)
            assert close.float().mean() > 0.998
        assert (one["unlabeled_valid"] != other["unlabeled_valid"]).float().mean() < 5e-3
    for key, value in again.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, on_device[2][key])


def test_what_the_device_cannot_do_is_refused_by_name():
    clip = RandomTransform(CutOffOutliersTransform((0, 1), (99, 100), 1, 1, 0), 0.5)
    with pytest.raises(UserError, match=r"nnUNetTrainerOwn augments by CutOffOutliersTransform"):
        for_the_device(ComposeTransforms([*transforms_of(3).transforms, clip]), "nnUNetTrainerOwn")
    _, _, crops, device = loaders("plain")
    crops.chain.spatial.p_elastic_deform = 0.1
    assert taken_apart(device, ()) is None
    crops.chain = None
    with pytest.raises(UserError, match="without elastic deformation"):
        crops.on_device(CPU)


def test_a_part_that_lies_beyond_the_border_is_filled():
    array = np.arange(24.0).reshape(1, 4, 6)
    assert cut(array, Box((-1, 4), (3, 4)), -1, np.int16).tolist() == [
        [[-1] * 4, [4, 5, -1, -1], [10, 11, -1, -1]]
    ]
    assert (cut(array, Box((9, 0), (2, 2)), 7, float) == 7).all()
    assert (cut(array, Box((-9, 0), (2, 2)), 7, float) == 7).all()
    assert np.shares_memory(cut(array, Box((0, 1), (4, 2)), 0, float), array)


def test_all_that_is_interpolated_from_is_looked_at():
    """Every point of a rotated patch has both of its neighbours in the box, or none is there."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        size, shape = rng.integers(1, 12, 2), rng.integers(12, 20, 2)
        turn = np.linalg.qr(rng.normal(size=(2, 2)))[0] * rng.uniform(0.7, 1.4)
        box = looked_at(size, turn, shape)
        axes = [np.arange(n) - (n - 1) / 2 for n in size]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1) @ turn.T + (shape - 1) / 2
        for neighbours in (np.floor(points), np.floor(points) + 1):
            inside = ((neighbours >= 0) & (neighbours < shape)).all(-1)
            start = np.array(box.start)
            found = ((neighbours >= start) & (neighbours < start + box.size)).all(-1)
            assert (found | ~inside).all()
