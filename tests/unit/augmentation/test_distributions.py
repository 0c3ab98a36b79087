"""What the device does to patches has the distribution of batchgeneratorsv2's transforms.

Each transform acts on a small patch again and again, nnU-Net's own on the host and the device's by
what a worker would send. What it did is read off the result: how often, with which mean and which
standard deviation of its number. Seeds are fixed.
"""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform

from nnunet_semisup.augmentation.recipes import apply_drawn, drawn_by
from nnunet_semisup.augmentation.spatial import looked_at, on_box
from nnunet_semisup.augmentation.without_waiting import without_waiting
from nnunet_semisup.data.two_stream import seeded
from tests.unit.augmentation.patches import transforms_of

DRAWS, OFTEN = 300, 16000
"""Patches of each side of a comparison of numbers, and of one of a probability."""
LIMIT = 3.5
"""Standard errors between the two sides, at most."""
SHAPE = (2, 48, 4, 4)
"""Of a patch: an axis with so many voxels that a lower resolution shows."""


@functools.cache
def image():
    """Two channels, unlike each other and skewed."""
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return noise + 0.3 * noise**2


def spread(result):
    """The standard deviation of each channel, over the image's."""
    return (result.std((1, 2, 3)) / image().std((1, 2, 3))).log().tolist()


def deviation(result):
    return (result - image()).std((1, 2, 3)).tolist()


def factor(result):
    return (result / image()).mean((1, 2, 3)).log().tolist()


def skewness(result):
    centred = result - result.mean((1, 2, 3), keepdim=True)
    return ((centred**3).mean((1, 2, 3)) / result.std((1, 2, 3)) ** 3).tolist()


TRANSFORMS = {
    "noise": (GaussianNoiseTransform, deviation, "noise_variance"),
    "blur": (GaussianBlurTransform, spread, "blur_sigma"),
    "brightness": (MultiplicativeBrightnessTransform, factor, "multiplier_range"),
    "contrast": (ContrastTransform, spread, "contrast_range"),
    "low resolution": (SimulateLowResolutionTransform, deviation, "scale"),
    "gamma, inverted": (GammaTransform, skewness, "gamma"),
    "gamma": (GammaTransform, skewness, "gamma"),
}
"""Kind, what reads its number off a result, and where the range of it is."""


def both(name):
    """nnU-Net's random transform of a name, and the device's."""
    kind = TRANSFORMS[name][0]
    found = [
        t
        for t in copy.deepcopy(transforms_of(3)).transforms
        if isinstance(getattr(t, "transform", None), kind)
    ]
    stock = found[0 if name != "gamma" else 1]
    assert stock.transform.__dict__.get("p_invert_image", 0) == (name == "gamma, inverted")
    wrapped = type(transforms_of(3))([copy.deepcopy(stock)])
    return stock, without_waiting(wrapped).transforms[0]


def numbers(act, read, seed, given=image):
    """What is read off the results of many draws, ``(draws, numbers)``."""
    with seeded(seed):
        return np.array([read(act(given().clone())) for _ in range(DRAWS)])


def on_host(transform):
    return lambda values: transform(image=values)["image"]


def on_device(transform):
    def act(values):
        drawn = drawn_by([transform], values.shape)
        return apply_drawn([transform], drawn, {"image": values})["image"]

    return act


def far(one, other):
    """Standard errors between the means, and between the variances, of two samples."""
    distances = []
    for a, b in zip(one.T, other.T, strict=True):
        centre = np.concatenate([a, b]).mean()
        for c, d in ((a, b), ((a - centre) ** 2, (b - centre) ** 2)):
            error = np.sqrt(c.var() / len(c) + d.var() / len(d))
            distances.append(abs(c.mean() - d.mean()) / max(error, 1e-12))
    return max(distances)


def wider(scale):
    """A range a fifth wider around its middle, of a pair or of nnU-Net's contrast."""
    pair = getattr(scale, "contrast_range", scale)
    middle, half = sum(pair) / 2, 1.2 * (pair[1] - pair[0]) / 2
    result = (middle - half, middle + half) if pair[0] != 0 else (0, 1.2 * pair[1])
    return type(scale)(result) if hasattr(scale, "contrast_range") else result


CHANGED = pytest.mark.parametrize("changed", [False, True], ids=["as it is", "changed by a fifth"])


@CHANGED
@pytest.mark.parametrize("name", TRANSFORMS)
def test_numbers(name, changed):
    stock, ours = (one.transform for one in both(name))
    _, read, attribute = TRANSFORMS[name]
    stock.p_per_channel = ours.p_per_channel = 1
    if changed:
        setattr(ours, attribute, wider(getattr(ours, attribute)))
    found = [numbers(act, read, n) for n, act in enumerate((on_host(stock), on_device(ours)))]
    assert (far(*found) > LIMIT) == changed


def channels(transform):
    """Whether the first channel is changed, where each has its own chance."""
    chosen = transform.get_parameters(image=torch.empty(1, 4, 4, 4))["apply_to_channel"]
    return bool(chosen.all()) if chosen.dtype is torch.bool else len(chosen) > 0


def differ(stock, ours, chance):
    """Whether two transforms have another chance of something."""
    found = []
    for seed, transform in enumerate((stock, ours)):
        with seeded(seed):
            found.append(sum(chance(transform) for _ in range(OFTEN)) / OFTEN)
    p = sum(found) / 2
    return abs(found[0] - found[1]) > LIMIT * np.sqrt(2 * p * (1 - p) / OFTEN)


@CHANGED
@pytest.mark.parametrize("name", TRANSFORMS)
def test_probabilities(name, changed):
    stock, ours = both(name)
    ours.apply_probability *= 1.2 if changed else 1
    assert differ(stock, ours, lambda one: one.get_parameters()["apply_transform"]) == changed


@CHANGED
@pytest.mark.parametrize("name", ["blur", "low resolution"])
def test_probabilities_of_a_channel(name, changed, monkeypatch):
    monkeypatch.setattr(f"{__name__}.OFTEN", 3000)
    stock, ours = (one.transform for one in both(name))
    ours.p_per_channel *= 1.2 if changed else 1
    assert differ(stock, ours, channels) == changed


@functools.cache
def coordinates():
    axes = [torch.arange(16.0)] * 3
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def matrix(result):
    """Scale and, of the rotation, the entries above the diagonal."""
    steps = [result[:, 3, 2, 2] - result[:, 2, 2, 2], result[:, 2, 3, 2] - result[:, 2, 2, 2]]
    steps.append(result[:, 2, 2, 3] - result[:, 2, 2, 2])
    columns = torch.stack(steps, 1)
    scale = columns.norm(dim=0).mean()
    turn = columns / scale
    return [float(scale), float(turn[0, 1]), float(turn[0, 2]), float(turn[1, 2])]


def turned_on_device(spatial):
    """The image alone, cut out and interpolated as for a patch of a case."""

    def act(values):
        shape = values.shape[1:]
        drawn = spatial.get_parameters(image=values)
        box = looked_at(spatial.patch_size, drawn["affine"], shape)
        place = drawn["affine"], spatial.patch_size, box, shape, torch.device("cpu")
        return on_box(*place)(values[box.index], "bilinear")

    return act


def both_spatial():
    found = transforms_of(3)
    pair = [next(iter(one.transforms)) for one in (found, without_waiting(found))]
    for one in pair:
        one.patch_size = (5, 5, 5)
    return pair


@CHANGED
@pytest.mark.parametrize("attribute", ["rotation", "scaling"])
def test_numbers_of_rotation_and_scaling(attribute, changed):
    stock, ours = both_spatial()
    for one in (stock, ours):
        one.p_rotation = one.p_scaling = 1
    if changed:
        setattr(ours, attribute, wider(getattr(ours, attribute)))
    acts = on_host(stock), turned_on_device(ours)
    found = [numbers(act, matrix, seed, coordinates) for seed, act in enumerate(acts)]
    assert (far(*found) > LIMIT) == changed


@CHANGED
@pytest.mark.parametrize(
    ("attribute", "other"), [("p_rotation", "p_scaling"), ("p_scaling", "p_rotation")]
)
def test_probabilities_of_rotation_and_scaling(attribute, other, changed, monkeypatch):
    monkeypatch.setattr(f"{__name__}.OFTEN", 4000)
    stock, ours = both_spatial()
    for one in (stock, ours):
        setattr(one, other, 0)
        one.patch_size = (1, 1, 1)
    setattr(ours, attribute, getattr(ours, attribute) * (1.2 if changed else 1))
    image = torch.empty((1, 4, 4, 4), device="meta")
    chance = lambda one: one.get_parameters(image=image)["affine"] is not None  # noqa: E731
    assert differ(stock, ours, chance) == changed


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2)])
def test_mirroring(axes):
    def flipped(result):
        totals = [result.sum([other for other in range(4) if other != a]) for a in (1, 2, 3)]
        before = [image().sum([other for other in range(4) if other != a]) for a in (1, 2, 3)]
        return [float(torch.allclose(a, b.flip(0))) for a, b in zip(totals, before, strict=True)]

    acts = on_host(MirrorTransform((0, 1, 2))), on_device(MirrorTransform(axes))
    found = [numbers(act, flipped, seed) for seed, act in enumerate(acts)]
    assert (far(*found) > LIMIT) == (axes != (0, 1, 2))
