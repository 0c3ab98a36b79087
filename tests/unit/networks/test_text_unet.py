from __future__ import annotations

import copy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn
from torch.nn import functional as F

from nnunet_semisup.networks.text_unet import TextTrainingNetwork, TextUNet, other_decoder


def plain(dims=3, residual=False, deep_supervision=False):
    torch.manual_seed(1)
    arguments = {
        "input_channels": 1,
        "n_stages": 3,
        "features_per_stage": [4, 6, 8],
        "conv_op": nn.Conv3d if dims == 3 else nn.Conv2d,
        "kernel_sizes": 3,
        "strides": [1, 2, 2],
        "num_classes": 3,
        "n_conv_per_stage_decoder": 1,
        "norm_op": nn.InstanceNorm3d if dims == 3 else nn.InstanceNorm2d,
        "norm_op_kwargs": {"affine": True},
        "nonlin": nn.LeakyReLU,
        "deep_supervision": deep_supervision,
    }
    if residual:
        return ResidualEncoderUNet(n_blocks_per_stage=1, **arguments)
    return PlainConvUNet(n_conv_per_stage=1, **arguments)


def network(dims=3, reading="paper", text_dim=12, **options):
    made = TextUNet(plain(dims, **options), [2] * dims, 3, text_dim, reading)
    made.text_features.copy_(F.normalize(torch.randn(3, text_dim), dim=-1))
    return made


def stir(module):
    """Gives the zero-initialised output layers some weight."""
    for layer in module.interaction.outputs:
        nn.init.normal_(layer.weight)
    return module


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_starts_as_the_plain_network(dims, residual, deep_supervision):
    base = plain(dims, residual, deep_supervision)
    ours = TextUNet(copy.deepcopy(base), [2] * dims, 3, 12)
    x = torch.randn(2, 1, *[8] * dims)
    for got, expected in zip(
        *((out if deep_supervision else [out]) for out in (ours(x), base(x))), strict=True
    ):
        assert torch.equal(got, expected)


def test_text_changes_the_logits():
    made = stir(network())
    x = torch.randn(1, 1, 8, 8, 8)
    own = made(x)
    other = made(x, F.normalize(torch.randn(3, 12), dim=-1))
    assert float((own - other).norm() / own.norm()) > 1e-4
    assert torch.equal(own, made(x, made.text_features))


@pytest.mark.parametrize(("text_dim", "reading"), [(7, "paper"), (12, "visual_query"), (5, "gate")])
def test_state_dict_brings_its_text_width_and_reading(text_dim, reading):
    trained = stir(network(reading=reading, text_dim=text_dim))
    fresh = network()
    wrapped = nn.ModuleDict({"inner": fresh})
    wrapped.load_state_dict({f"inner.{k}": v for k, v in trained.state_dict().items()})
    x = torch.randn(1, 1, 8, 8, 8)
    assert fresh.interaction.reading == reading
    assert torch.equal(fresh(x), trained(x))


@pytest.mark.parametrize(("text_dim", "reading"), [(7, "paper"), (12, "gate"), (None, "paper")])
def test_nothing_is_replaced_in_a_network_in_training(text_dim, reading):
    training = TextTrainingNetwork(network(), two_decoders=False)
    interaction = training.predictor.interaction
    parameters = {name: id(p) for name, p in training.named_parameters()}
    state = training.state_dict()
    other = network()
    other.set_text(text_dim, reading)
    for name in [n for n in state if n.startswith("predictor.")]:
        del state[name]
    state.update({f"predictor.{name}": value for name, value in other.state_dict().items()})
    with pytest.raises(RuntimeError, match="in training"):
        training.load_state_dict(state)
    assert training.predictor.interaction is interaction
    assert {name: id(p) for name, p in training.named_parameters()} == parameters


@pytest.mark.parametrize("two_decoders", [False, True])
def test_parts_of_equal_shape_start_equal_whatever_the_text(two_decoders):
    """So that a row of a comparison and its control differ in the texts only."""

    def made(*changes):
        base = plain()
        predictor = TextUNet(base, [2, 2, 2], 3)
        for change in changes:
            predictor.set_text(*change)
        return TextTrainingNetwork(predictor, two_decoders).state_dict()

    reference = made()
    for changes in ([(384, "paper")], [(512, "gate")], [(None,)], [(384, "paper"), (512, "paper")]):
        state = made(*changes)
        texts = ("projection", "cross_attention.query", "text_features", "reading_number")
        for name in state.keys() & reference.keys():
            if not any(part in name for part in texts):
                assert torch.equal(state[name], reference[name]), (changes, name)
    assert any(name.startswith("second_decoder") for name in reference) == two_decoders


def test_the_random_numbers_after_an_interaction_do_not_depend_on_it():
    def following(*change):
        base = plain()
        torch.manual_seed(5)
        predictor = TextUNet(base, [2, 2, 2], 3)
        predictor.set_text(*change)
        return torch.rand(3)

    assert torch.equal(following(384, "gate"), following(None))


def test_state_dict_without_text_gives_the_plain_network():
    base = plain()
    trained = TextUNet(copy.deepcopy(base), [2, 2, 2], 3)
    trained.set_text(None)
    fresh = network()
    fresh.load_state_dict(trained.state_dict())
    x = torch.randn(1, 1, 8, 8, 8)
    assert torch.equal(fresh(x), base(x))
    assert not any("interaction" in name or "text" in name for name in trained.state_dict())


@pytest.mark.parametrize("dims", [2, 3])
def test_second_decoder_differs_and_shares_nothing(dims):
    base = plain(dims)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    other = other_decoder(base.decoder)
    assert list(base.state_dict()) == list(before)
    own = {id(p) for p in base.parameters()}
    assert not own & {id(p) for p in other.parameters()}
    kinds = {type(module) for module in other.modules()}
    assert not kinds & {nn.ConvTranspose3d, nn.ConvTranspose2d}
    skips = base.encoder(torch.randn(1, 1, *[12] * dims))
    assert other(skips).shape == base.decoder(skips).shape


def test_second_decoder_follows_anisotropic_strides():
    base = PlainConvUNet(
        1, 3, [4, 4, 4], nn.Conv3d, [[1, 3, 3], 3, 3], [1, [1, 2, 2], 2], 1, 2, 1,
        norm_op=nn.InstanceNorm3d, nonlin=nn.LeakyReLU,
    )  # fmt: skip
    skips = base.encoder(torch.randn(1, 1, 4, 8, 8))
    assert other_decoder(base.decoder)(skips).shape == (1, 2, 4, 8, 8)


def test_training_network_runs_the_decoders_asked_for():
    made = TextTrainingNetwork(network(), two_decoders=True)
    x, text = torch.randn(1, 1, 8, 8, 8), torch.randn(3, 12)
    both = made(x, text, (0, 1))
    assert both.visual.shape == (1, 12, 2, 2, 2)
    assert len(both.logits) == 2
    assert torch.equal(made(x, text, (1,)).logits[0], both.logits[1])
    assert torch.equal(made(x, text), both.logits[0])


def test_only_the_decoder_that_ran_gets_a_gradient():
    made = TextTrainingNetwork(network(), two_decoders=True)
    made(torch.randn(1, 1, 8, 8, 8), torch.randn(3, 12), (1,)).logits[0].square().sum().backward()
    assert all(p.grad is None for p in made.decoder.seg_layers.parameters())
    assert all(p.grad is not None for p in made.second_decoder.transpconvs.parameters())
    assert any(p.grad is not None for p in made.encoder.parameters())
