"""Noise in the direction that changes a prediction most."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_semisup.losses.adversarial import adversarial_noise


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1))


def deviation_of(noise):
    return noise.square().flatten(1).mean(1).sqrt()


def test_each_image_has_noise_of_the_same_size():
    network, image = small_network(), torch.randn(3, 2, 9, 7)
    with torch.no_grad():
        image[1] *= 100
        before = network(image)
    noise = adversarial_noise(
        lambda noise: (network(image + noise) - before).square().mean(), image, 0.01
    )
    torch.testing.assert_close(deviation_of(noise), torch.full((3,), 0.01))
    assert not noise.requires_grad


def test_prediction_changes_more_than_by_random_noise():
    network, image = small_network(), torch.randn(4, 2, 9, 9)
    before = network(image).detach()

    def distance(noise):
        return (network(image + noise) - before).square().mean()

    ours = float(distance(adversarial_noise(distance, image, 0.01)).detach())
    for seed in range(20):
        torch.manual_seed(seed)
        noise = torch.randn_like(image)
        noise = 0.01 * noise / deviation_of(noise).view(-1, 1, 1, 1)
        assert float(distance(noise).detach()) < ours


def test_finds_the_direction_of_a_single_feature():
    """Where one direction alone matters, a single step of the power iteration finds it."""
    direction = torch.randn(1, 1, 8, 8)
    noise = adversarial_noise(
        lambda noise: (noise * direction).sum((1, 2, 3)).square().sum(),
        torch.zeros(2, 1, 8, 8),
        0.5,
    )
    unit = 0.5 * direction / deviation_of(direction)
    for one in noise:
        sign = torch.sign((one * unit[0]).sum())
        torch.testing.assert_close(one, sign * unit[0])


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12])
def test_the_size_of_the_gradient_does_not_matter(scale):
    """Squares of what is left of a small gradient would be 0 in float32."""
    direction = torch.randn(1, 1, 8, 8)
    torch.manual_seed(3)
    noise = adversarial_noise(
        lambda noise: scale * (noise * direction).sum(), torch.zeros(1, 1, 8, 8), 0.1
    )
    torch.testing.assert_close(noise, 0.1 * direction / deviation_of(direction))


def test_nothing_to_change_is_no_noise():
    """Padding alone, say: then no direction is better than another."""
    noise = adversarial_noise(lambda noise: (noise * 0).sum(), torch.randn(2, 1, 4, 4), 0.1)
    assert torch.equal(noise, torch.zeros(2, 1, 4, 4))


def test_an_overflow_is_no_noise_there():
    limits = torch.tensor([float("inf"), float("nan"), 1.0, -2.0]).view(1, 1, 2, 2)
    noise = adversarial_noise(lambda noise: (noise * limits).sum(), torch.zeros(1, 1, 2, 2), 1.0)
    expected = torch.tensor([0.0, 0.0, 1.0, -2.0]).view(1, 1, 2, 2) / (5 / 4) ** 0.5
    torch.testing.assert_close(noise, expected)


def test_a_scaler_changes_nothing_and_weights_get_no_gradient():
    network, image = small_network(), torch.randn(2, 2, 6, 6)
    before = network(image).detach()

    def distance(noise):
        return (network(image + noise) - before).square().mean()

    found = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**16)):
        torch.manual_seed(1)
        found.append(adversarial_noise(distance, image, 0.01, scaler))
    torch.testing.assert_close(*found)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_no_step_waits_for_the_device():
    image = torch.zeros(2, 1, 4, 4, device="meta")
    assert adversarial_noise(lambda noise: noise.sum(), image, 0.1).shape == image.shape
