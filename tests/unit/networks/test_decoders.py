"""Decoders that differ in upsampling."""

from __future__ import annotations

import copy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import nn

from nnunet_semisup.networks.decoders import ResizeConv, decoder_like
from tests.unit.networks.shared import small_unet

TRANSPOSED = {nn.ConvTranspose2d, nn.ConvTranspose3d}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("upsampling", ["transposed", "linear", "nearest"])
def test_differs_and_shares_nothing(dims, upsampling):
    base = small_unet(dims)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    other = decoder_like(base.decoder, upsampling)
    after = base.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not {id(p) for p in base.parameters()} & {id(p) for p in other.parameters()}
    assert bool(TRANSPOSED & {type(m) for m in other.modules()}) == (upsampling == "transposed")
    assert not any(name.startswith("encoder") for name in other.state_dict())
    skips = base.encoder(torch.randn(1, 2, *[12] * dims))
    assert other(skips).shape == base.decoder(skips).shape
    assert not torch.equal(other(skips), base.decoder(skips))


@pytest.mark.parametrize("upsampling", ["transposed", "linear", "nearest"])
def test_follows_anisotropic_strides(upsampling):
    base = PlainConvUNet(
        1, 3, [4, 4, 4], nn.Conv3d, [[1, 3, 3], 3, 3], [1, [1, 2, 2], 2], 1, 2, 1,
        norm_op=nn.InstanceNorm3d, nonlin=nn.LeakyReLU,
    )  # fmt: skip
    skips = base.encoder(torch.randn(1, 1, 4, 8, 8))
    assert decoder_like(base.decoder, upsampling)(skips).shape == (1, 2, 4, 8, 8)


def test_weights_are_fresh_even_where_the_decoder_is_trained():
    base = small_unet(2)
    nn.init.constant_(base.decoder.stages[0].convs[0].norm.weight, 7.0)
    other = decoder_like(base.decoder, "transposed")
    assert torch.equal(other.stages[0].convs[0].norm.weight, torch.ones(8))
    assert not other.seg_layers[0].bias.any()
    assert not torch.equal(
        other.stages[0].convs[0].conv.weight, base.decoder.stages[0].convs[0].conv.weight
    )


def test_linear_draws_the_numbers_of_its_layers_in_order():
    """Runs of a seed stay as they were: layers as torch makes them, then all by nnU-Net's rule."""
    base = small_unet(3)
    torch.manual_seed(11)
    other = decoder_like(base.decoder, "linear")
    following = torch.rand(())
    torch.manual_seed(11)
    expected = copy.deepcopy(base.decoder)
    del expected.encoder
    pairs = zip(expected.transpconvs, expected.stages, strict=True)
    expected.transpconvs = nn.ModuleList(ResizeConv(t, s.convs[0]) for t, s in pairs)
    expected.apply(InitWeights_He(1e-2))
    assert torch.equal(torch.rand(()), following)
    theirs = expected.state_dict()
    assert list(other.state_dict()) == list(theirs)
    assert all(torch.equal(value, theirs[name]) for name, value in other.state_dict().items())


def test_nearest_repeats_values():
    up = ResizeConv(nn.ConvTranspose2d(1, 1, (1, 2), (1, 2)), None, nearest=True)
    nn.init.zeros_(up.conv.weight)
    up.conv.weight.data[..., 1, 1] = 1.0
    nn.init.zeros_(up.conv.bias)
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert torch.equal(up(x), torch.tensor([[[[1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0]]]]))
