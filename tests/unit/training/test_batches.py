"""Views that a method asks of its batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_semisup.data.labeled_views import MAP, WEAK
from nnunet_semisup.data.views import noisy_view
from nnunet_semisup.training.batches import Unlabeled, to_device

CPU = torch.device("cpu")
VIEWS = pytest.mark.parametrize("view", ["noisy_view", "strong_view"])


def unlabeled(masked_channels=(False, True)):
    """Two channels, the second 0 in padding as nnU-Net has it after its augmentation."""
    image = torch.randn(2, 2, 6, 5) + 3
    valid = torch.ones(2, 1, 6, 5, dtype=torch.bool)
    valid[:, :, :2] = False
    masked = ~valid & torch.tensor(masked_channels).view(1, 2, 1, 1)
    return Unlabeled(image.masked_fill(masked, 0.0), valid, masked)


@given(st.integers(0, 2**31), st.floats(0, 3), st.floats(0, 3))
def test_noise_keeps_within_its_limit(seed, deviation, limit):
    torch.manual_seed(seed)
    images = torch.randn(1, 2, 4, 4)
    noise = noisy_view(images, deviation, limit) - images
    assert float(noise.abs().max()) <= limit + 1e-5


def test_noise_is_that_of_the_paper():
    """UA-MT: deviation 0.1, cut off at 0.2, anew for every voxel."""
    torch.manual_seed(0)
    images = torch.randn(1, 1, 100, 100)
    before = images.clone()
    noise = noisy_view(images) - images
    assert torch.equal(images, before)
    assert 0.199 < float(noise.abs().max()) <= 0.2 + 1e-6
    cut = torch.randn(10**6).mul(0.1).clamp(-0.2, 0.2).std()
    assert float(noise.std()) == pytest.approx(float(cut), rel=0.03)
    assert float(noise.mean()) == pytest.approx(0, abs=0.003)


@VIEWS
def test_masked_channels_stay_0(view):
    batch = unlabeled()
    seen = getattr(batch, view)()
    assert seen.shape == batch.image.shape
    assert (seen[batch.masked] == 0).all()
    assert (seen[~batch.masked] != batch.image[~batch.masked]).float().mean() > 0.5
    assert (seen[:, 0, :2] != 0).all(), "a channel that nnU-Net leaves alone"


@VIEWS
def test_without_masks_padding_is_seen_as_the_rest(view):
    batch = unlabeled()._replace(masked=None)
    assert (getattr(batch, view)()[:, 1, :2] != 0).any()


def test_a_batch_of_the_loader_is_divided():
    batch = {
        "data": torch.randn(2, 1, 4, 4),
        "target": [torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 2, 2)],
        "unlabeled": torch.randn(3, 1, 4, 4),
        "unlabeled_valid": torch.ones(3, 1, 4, 4, dtype=torch.bool),
        "keys": ["a", "b"],
    }
    labeled, others = to_device(batch, CPU, None)
    assert torch.equal(labeled.image, batch["data"])
    assert [t.shape for t in labeled.target] == [t.shape for t in batch["target"]]
    assert labeled.weak is None
    assert labeled.maps == {}
    assert torch.equal(others.image, batch["unlabeled"])
    assert others.masked is None

    asked = {**batch, WEAK: batch["data"] + 1, MAP + "distance": torch.ones(2, 3, 4, 4)}
    labeled, _ = to_device(asked, CPU, None)
    assert torch.equal(labeled.weak, batch["data"] + 1)
    assert list(labeled.maps) == ["distance"]
    assert labeled.maps["distance"].shape == (2, 3, 4, 4)


def test_masks_are_the_padding_of_the_channels_that_nnunet_masks():
    batch = unlabeled()
    content = {"data": batch.image, "target": batch.image, "unlabeled": batch.image}
    channels = torch.tensor([False, True]).view(1, 2, 1, 1)
    _, others = to_device({**content, "unlabeled_valid": batch.valid}, CPU, channels)
    assert torch.equal(others.masked, batch.masked)
