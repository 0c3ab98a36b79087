from __future__ import annotations

import copy
from itertools import chain

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn
from torch.nn import functional as F

from nnunet_semisup.networks.decoders import decoder_like
from nnunet_semisup.networks.members import Members
from nnunet_semisup.networks.text_unet import TextUNet, WithText, text_readers
from nnunet_semisup.networks.vq_unet import VQUNet
from tests.unit.networks.shared import small_unet


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


@torch.no_grad()
def test_text_changes_the_logits():
    made = stir(network())
    x = torch.randn(1, 1, 8, 8, 8)
    own = made(x)
    texts = made.text_features.clone()
    made.text_features.copy_(F.normalize(torch.randn(3, 12), dim=-1))
    other = made(x)
    assert float((own - other).norm() / own.norm()) > 1e-4
    made.text = texts
    assert torch.equal(own, made(x)), "those of the pass go before the buffer"


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
    training = WithText(network())
    training.predictor.in_training = True
    interaction = training.predictor.interaction
    parameters = {name: id(p) for name, p in training.named_parameters()}
    state = training.state_dict()
    other = network()
    other.set_text(text_dim, reading)
    for name in [n for n in state if n.startswith("inner.")]:
        del state[name]
    state.update({f"inner.{name}": value for name, value in other.state_dict().items()})
    with pytest.raises(RuntimeError, match="in training"):
        training.load_state_dict(state)
    assert training.predictor.interaction is interaction
    assert {name: id(p) for name, p in training.named_parameters()} == parameters


def with_decoders(predictor, number):
    """The training network of a method with so many decoders, with texts."""
    others = [decoder_like(predictor.decoder, "linear") for _ in range(number - 1)]
    return WithText(Members(predictor, others, shared_encoder=True) if others else predictor)


@pytest.mark.parametrize("decoders", [1, 2])
def test_parts_of_equal_shape_start_equal_whatever_the_text(decoders):
    """So that a row of a comparison and its control differ in the texts only."""

    def made(*changes):
        base = plain()
        predictor = TextUNet(base, [2, 2, 2], 3)
        training = with_decoders(predictor, decoders)
        for change in changes:
            predictor.set_text(*change)
        return training.state_dict()

    reference = made()
    for changes in ([(384, "paper")], [(512, "gate")], [(None,)], [(384, "paper"), (512, "paper")]):
        state = made(*changes)
        texts = ("projection", "cross_attention.query", "text_features", "reading_number")
        for name in state.keys() & reference.keys():
            if not any(part in name for part in texts):
                assert torch.equal(state[name], reference[name]), (changes, name)
    assert any(name.startswith("inner.others.0") for name in reference) == (decoders == 2)


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


def test_taken_texts_bring_their_width_and_reading():
    made = TextUNet(plain(), [2, 2, 2], 3)
    first = made.interaction
    made.take_text(torch.ones(3, 512), "paper")
    assert made.interaction is first, "nothing to replace"
    assert made.text_features.sum() == 3 * 512
    made.take_text(torch.ones(3, 7), "gate")
    assert made.interaction.reading == "gate"
    assert made.text_features.shape == (3, 7)


def inputs():
    return torch.randn(1, 1, 8, 8, 8), torch.randn(3, 12)


def test_a_network_with_text_gives_logits_and_projected_features():
    made = WithText(network())
    x, text = inputs()
    seen = made(x, text)
    assert seen.parts is None
    assert seen.guests["visual"].shape == (1, 12, 2, 2, 2)
    assert made.predictor.text is made.predictor.visual is None, "of this pass alone"
    made.predictor.text_features.copy_(text)
    assert torch.equal(seen.logits, made.predictor(x))
    deepest = made.encoder(x)[-1]
    assert torch.equal(seen.guests["visual"], made.projection(deepest))


def test_decoders_asked_for_run_on_features_with_text():
    made = with_decoders(stir(network()), 2)
    x, text = inputs()
    both = made(x, text)
    assert len(both.parts) == 2
    assert both.guests["visual"].shape == (1, 12, 2, 2, 2)
    assert torch.equal(made(x, text, which=(1,)).logits, both.parts[1].logits)
    other = made(x, torch.randn(3, 12))
    for one, two in zip(both.parts, other.parts, strict=True):
        assert not torch.equal(one.logits, two.logits)


def test_only_the_decoder_that_ran_gets_a_gradient():
    made = with_decoders(network(), 2)
    made(*inputs(), which=(1,)).logits.square().sum().backward()
    assert all(p.grad is None for p in made.decoder.seg_layers.parameters())
    assert all(p.grad is not None for p in made.inner.others[0].transpconvs.parameters())
    assert any(p.grad is not None for p in made.encoder.parameters())


def test_two_networks_read_the_same_texts():
    first, second = stir(network()), stir(network())
    made = WithText(Members(first, [second], shared_encoder=False))
    assert text_readers(made) == [first, second]
    x, text = inputs()
    parts = made(x, text).parts
    assert second.text is second.visual is None
    for reader, part in zip((first, second), parts, strict=True):
        reader.text_features.copy_(text)
        assert torch.equal(part.logits, reader(x))


@pytest.mark.parametrize("two_networks", [False, True])
def test_every_parameter_belongs_to_exactly_one_network(two_networks):
    predictor = network()
    others = [network()] if two_networks else [decoder_like(predictor.decoder, "linear")]
    made = WithText(Members(predictor, others, shared_encoder=not two_networks))
    groups = [[id(p) for p in part.parameters()] for part in made.networks()]
    assert len(groups) == 2
    assert sorted(chain(*groups)) == sorted(id(p) for p in made.parameters())
    assert {id(p) for p in made.projection.parameters()} <= set(groups[0])


def test_a_copy_reads_its_own_texts():
    made = WithText(network())
    copied = copy.deepcopy(made)
    assert copied.readers == [copied.inner] != [made.inner]


@pytest.mark.parametrize("quantized", [False, True])
def test_a_network_that_changes_its_features_is_refused(quantized):
    base = VQUNet(small_unet(), (1,), (8,), 4) if quantized else network()
    with pytest.raises(TypeError, match=r"class texts cannot be added to (TextUNet|VQUNet)"):
        TextUNet(base, [2, 2, 2], 3)
    with pytest.raises(TypeError, match=r"quantizers cannot be added to (TextUNet|VQUNet)"):
        VQUNet(base, (1,), (8,), 4)
