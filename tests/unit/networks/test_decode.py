"""Decoders run stage by stage: the same logits, and the features below them."""

from __future__ import annotations

import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualUNet
from torch import nn

from nnunet_semisup.networks.decode import decode, encode, feature_width
from nnunet_semisup.networks.decoders import decoder_like
from tests.unit.networks.shared import small_unet


def equal(got, expected):
    """Whether two outputs, tensors or lists of them, are equal to the last bit."""
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(torch.equal, got, expected))
    return torch.equal(got, expected)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("upsampling", [None, "transposed", "linear", "nearest"])
def test_equals_the_decoders_forward(dims, residual, deep_supervision, upsampling):
    network = small_unet(dims, residual, deep_supervision)
    decoder = network.decoder if upsampling is None else decoder_like(network.decoder, upsampling)
    skips = encode(network, torch.randn(2, 2, *[8] * dims))
    expected = decoder(skips)
    decoded = decode(decoder, skips)
    assert isinstance(expected, list) == deep_supervision
    assert equal(decoded.logits, expected)
    assert [tuple(f.shape) for f in decoded.features] == [
        (2, 8 if size == 4 else 4, *[size] * dims) for size in (8, 4)
    ]
    first = decoded.logits[0] if deep_supervision else decoded.logits
    assert torch.equal(decoder.seg_layers[-1](decoded.features[0]), first)


@pytest.mark.parametrize("residual", [False, True])
def test_the_width_of_the_features_is_known(residual):
    network = small_unet(2, residual)
    decoded = decode(network.decoder, encode(network, torch.randn(1, 2, 8, 8)))
    assert feature_width(network.decoder) == decoded.features[0].shape[1]


def test_equals_the_forward_of_residual_decoders():
    network = ResidualUNet(
        2, 3, [4, 8, 8], nn.Conv2d, 3, [1, 2, 2], 1, 2, 1, norm_op=nn.InstanceNorm2d,
        nonlin=nn.LeakyReLU, deep_supervision=True,
    )  # fmt: skip
    skips = network.encoder(torch.randn(1, 2, 8, 8))
    assert equal(decode(network.decoder, skips).logits, network.decoder(skips))


def test_a_networks_own_encode_goes_first():
    network = small_unet(2)
    x = torch.randn(1, 2, 8, 8)
    assert equal(list(encode(network, x)), network.encoder(x))
    network.encode = lambda x: [torch.zeros_like(f) for f in network.encoder(x)]
    assert all(not f.any() for f in encode(network, x))
