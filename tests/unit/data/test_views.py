from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semisup.data import views
from nnunet_semisup.data.views import strong_view

KINDS = ["_blur", "_noise", "_brightness", "_contrast", "_gamma"]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def view(images, seed=0, probability=0.8):
    torch.manual_seed(seed)
    return strong_view(images, probability)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.integers(1, 9), min_size=2, max_size=3),
    st.integers(0, 999),
    st.sampled_from([-3.0, 0.0, 1e-6, 50.0]),
)
def test_shape_type_and_finite(batch, channels, spatial, seed, scale):
    images = scale * random(batch, channels, *spatial, seed=seed)
    before = images.clone()
    strong = view(images, seed, 1.0)
    assert strong.shape == images.shape
    assert strong.dtype == torch.float32
    assert torch.isfinite(strong).all()
    assert torch.equal(images, before)


@pytest.mark.parametrize("value", [-2.0, 0.0, 7.0])
def test_constant_images_are_finite(value):
    for seed in range(5):
        assert torch.isfinite(view(torch.full((2, 1, 6, 6, 6), value), seed, 1.0)).all()


def test_probability_zero_is_the_identity():
    images = random(2, 2, 8, 8)
    assert torch.equal(view(images, probability=0.0), images)


def test_each_kind_has_the_probability():
    images = random(4000, 1, 2, 2)
    counted = []
    for kind in KINDS:
        original = getattr(views, kind)
        with pytest.MonkeyPatch.context() as patch:
            for name in KINDS:
                patch.setattr(views, name, original if name == kind else lambda x: x)
            changed = (view(images, probability=0.3) != images).flatten(1).any(1)
        counted.append(changed.float().mean().item())
    assert counted[1:] == pytest.approx([0.3] * 4, abs=0.04)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_the_image(kind):
    torch.manual_seed(0)
    images = random(2, 2, 8, 8, 8)
    changed = getattr(views, kind)(images)
    assert changed.shape == images.shape
    assert (changed - images).abs().amax((2, 3, 4)).min() > 1e-3


@pytest.mark.parametrize("spatial", [(15, 17), (9, 11, 13)])
def test_geometry_is_untouched(spatial):
    """A bright spot stays where it is."""
    image = torch.zeros(1, 1, *spatial)
    place = tuple(n // 3 for n in spatial)
    image[(0, 0, *place)] = 100.0
    for seed in range(10):
        brightest = view(image, seed, 1.0)[0, 0].argmax()
        assert tuple(int(i) for i in torch.unravel_index(brightest, spatial)) == place


def test_kinds_without_noise_keep_a_flat_region_flat():
    """No kind but noise acts on single voxels, and blur reaches two voxels only."""
    image = random(1, 1, 24, 24)
    image[:, :, :12] = 0.5
    for kind in set(KINDS) - {"_noise"}:
        flat = getattr(views, kind)(image)[:, :, :10]
        torch.testing.assert_close(flat, flat[:, :, :1, :1].expand_as(flat), atol=1e-5, rtol=0)


def test_images_and_channels_draw_their_own_parameters():
    image = random(1, 1, 8, 8).expand(3, 4, 8, 8).clone()
    strong = view(image, probability=1.0).flatten(0, 1).flatten(1)
    distances = torch.cdist(strong, strong) + 100 * torch.eye(12)
    assert distances.min() > 0.05


def test_an_image_does_not_depend_on_the_others():
    """Statistics are an image's own: changing one leaves the rest as it was."""
    images = random(3, 2, 8, 8)
    other = images.clone()
    other[1] = 100.0
    one, two = view(images), view(other)
    assert torch.equal(one[[0, 2]], two[[0, 2]])


def test_blur_keeps_the_mean_of_a_centred_image_and_smooths():
    image = torch.zeros(1, 1, 15, 15)
    image[0, 0, 7, 7] = 1.0
    blurred = views._blur(image)
    assert blurred.sum().item() == pytest.approx(1, rel=1e-5)
    assert 0 < blurred.max() < 0.9
    torch.testing.assert_close(blurred, blurred.transpose(2, 3))


def test_contrast_and_gamma_keep_the_range():
    images = random(4, 2, 8, 8)
    for kind in (views._contrast, views._gamma):
        changed = kind(images)
        assert (changed.amax((2, 3)) <= images.amax((2, 3)) + 1e-5).all()
        assert (changed.amin((2, 3)) >= images.amin((2, 3)) - 1e-5).all()


def test_seed():
    images = random(2, 1, 8, 8)
    assert torch.equal(view(images, 1), view(images, 1))
    assert not torch.equal(view(images, 1), view(images, 2))
