"""The U-Net that sees the structure, and the noise beside it."""

from __future__ import annotations

import copy

import pytest
import torch

from nnunet_semisup.networks.decode import decode, encode
from nnunet_semisup.networks.decomposition import DecomposingNetwork, StructureUNet
from tests.unit.networks.shared import small_unet


@pytest.fixture
def network():
    torch.manual_seed(0)
    return StructureUNet(small_unet(2, deep_supervision=True), 2)


IMAGE = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(1))


def test_evaluation_is_deterministic_and_training_is_not(network):
    assert not torch.equal(network(IMAGE)[0], network(IMAGE)[0])
    network.eval()
    assert torch.equal(network(IMAGE)[0], network(IMAGE)[0])


def test_evaluation_segments_the_mean(network):
    network.eval()
    mean = network.structure(IMAGE).mean
    assert torch.equal(network(IMAGE)[0], network.decoder(network.encoder(mean))[0])
    assert torch.equal(decode(network.decoder, encode(network, IMAGE)).logits[0], network(IMAGE)[0])


def test_the_structure_begins_as_the_image(network):
    structure = network.structure(IMAGE)
    assert 0 < (structure.mean - IMAGE).abs().max() < 0.1
    torch.testing.assert_close(structure.log_variance.mean(), torch.tensor(-4.0), atol=0.1, rtol=0)


def test_the_random_numbers_are_those_of_any_precision_and_memory_order(network):
    """As float16, torch would draw others; channels-last, in another order."""
    structure = network.structure(IMAGE)
    other = structure._replace(mean=structure.mean.to(memory_format=torch.channels_last))
    torch.manual_seed(0)
    sample = structure.sample()
    torch.manual_seed(0)
    assert torch.equal(other.sample(), sample)
    with torch.autocast("cpu", torch.float16):
        half = network.structure(IMAGE)
    assert half.mean.dtype == half.log_variance.dtype == torch.float32
    torch.manual_seed(0)
    torch.testing.assert_close(half.sample(), sample, atol=1e-2, rtol=0)


def test_training_network_gives_the_noise_and_features_without_gradient(network):
    training = DecomposingNetwork(network, 2)
    output = training(IMAGE)
    structure, noise, features = output.parts
    assert structure.mean.shape == noise.mean.shape == IMAGE.shape
    assert not features.requires_grad
    assert [len(list(one.parameters())) for one in training.networks()] == [
        len(list(network.parameters())),
        len(list(training.noise.parameters())),
    ]
    twin = copy.deepcopy(training).eval()
    assert torch.equal(twin(IMAGE).logits[0], training.eval()(IMAGE).logits[0])


def test_a_network_that_changes_its_features_is_refused(network):
    with pytest.raises(TypeError, match="StructureUNet"):
        StructureUNet(network, 2)
