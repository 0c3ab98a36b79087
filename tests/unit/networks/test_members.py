"""Members of equal rank: one call, the ones asked for, gradients to them alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from nnunet_semisup.networks.decoders import decoder_like
from nnunet_semisup.networks.members import Members
from tests.unit.networks.shared import small_unet


def made(shared, dims=2, residual=False, deep_supervision=False):
    """Three decoders on one encoder, or three networks."""
    predictor = small_unet(dims, residual, deep_supervision)
    if shared:
        others = [decoder_like(predictor.decoder, mode) for mode in ("linear", "nearest")]
    else:
        others = [small_unet(dims, not residual, deep_supervision) for _ in range(2)]
    return Members(predictor, others, shared_encoder=shared)


def image(dims=2):
    return torch.randn(2, 2, *[8] * dims)


def full(logits):
    return logits[0] if isinstance(logits, list) else logits


def reached(module):
    """Whether a gradient has reached any, and all, of a module's parameters."""
    grads = [p.grad is not None for p in module.parameters()]
    return any(grads), all(grads)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_members_are_those_asked_for_in_that_order(shared, dims, residual, deep_supervision):
    members = made(shared, dims, residual, deep_supervision)
    x = image(dims)
    every = members(x, features=True)
    assert len(every.parts) == 3
    assert full(every.logits) is full(every.parts[0].logits)
    assert isinstance(every.logits, list) == deep_supervision
    assert torch.equal(full(every.logits), full(members.predictor(x)))
    some = members(x, (2, 0), features=True)
    assert full(some.logits) is full(some.parts[0].logits)
    for number, part in zip((2, 0), some.parts, strict=True):
        assert torch.equal(full(part.logits), full(every.parts[number].logits))
        assert torch.equal(part.features[0], every.parts[number].features[0])
    assert not torch.equal(full(some.logits), full(every.logits))
    other = members.others[1]
    theirs = other(members.encoder(x)) if shared else other(x)
    assert torch.equal(full(some.logits), full(theirs))


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_networks_can_see_images_of_their_own(deep_supervision):
    members = made(shared=False, deep_supervision=deep_supervision)
    one, other = image(), image()
    parts = members(torch.cat([one, other]), (2, 0), apart=True).parts
    for part, number, seen in zip(parts, (2, 0), (one, other), strict=True):
        assert torch.equal(full(part.logits), full(members.networks()[number](seen)))


def test_decoders_on_one_encoder_see_the_same_images():
    with pytest.raises(TypeError, match="the same images"):
        made(shared=True)(image(), apart=True)


def test_features_are_given_when_asked_for():
    members = made(shared=True)
    assert [part.features for part in members(image()).parts] == [(), (), ()]
    assert [len(part.features) for part in members(image(), features=True).parts] == [2, 2, 2]


@pytest.mark.parametrize("shared", [False, True])
def test_gradients_reach_the_members_asked_for_and_no_other(shared):
    members = made(shared, deep_supervision=True)
    output = members(image(), (0, 2))
    sum(level.square().sum() for part in output.parts for level in part.logits).backward()
    assert reached(members.predictor) == (True, True)
    assert reached(members.others[0]) == (False, False)
    assert reached(members.others[1]) == (True, True)


@pytest.mark.parametrize("shared", [False, True])
def test_members_not_asked_for_do_not_run(shared):
    members = made(shared)
    ran = []
    for number, module in enumerate([members.decoder, *members.others]):
        stage = (module if number == 0 or shared else module.decoder).stages[0]
        stage.register_forward_hook(lambda *_, number=number: ran.append(number))
    members(image(), (1,))
    assert ran == [1]


@pytest.mark.parametrize("shared", [False, True])
def test_state_dict_has_the_predictors_keys_under_one_prefix(shared):
    members = made(shared)
    keys = list(members.state_dict())
    own = [key.removeprefix("predictor.") for key in keys if key.startswith("predictor.")]
    assert own == list(members.predictor.state_dict())
    rest = [key for key in keys if not key.startswith("predictor.")]
    assert rest
    assert all(key.startswith(("others.0.", "others.1.")) for key in rest)
    assert shared != any(".encoder." in key for key in rest)


def test_encode_of_the_predictor_serves_all_decoders():
    members = made(shared=True)
    members.predictor.encode = lambda x: [0 * f for f in members.encoder(x)]
    first, second, third = (part.logits for part in members(image()).parts)
    flat = torch.zeros(2, 2, 8, 8)
    skips = [0 * f for f in members.encoder(image())]
    assert torch.equal(first, members.decoder(skips))
    assert torch.equal(second, members.others[0](skips))
    assert torch.equal(third, members.others[1](skips))
    assert first.shape == flat.shape


@pytest.mark.parametrize("shared", [False, True])
def test_an_average_copies_every_member(shared):
    members = made(shared)
    average = AveragedModel(members, use_buffers=True)
    x = image()
    before = members(x).parts
    for parameter in members.parameters():
        nn.init.zeros_(parameter)
    after = average(x).parts
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(after, before, strict=True))


def distributed(module):
    """Return what the trainers make of a network in distributed training."""
    return DistributedDataParallel(module, find_unused_parameters=True)


def total(parts):
    return sum(level.square().mean() for part in parts for level in part.logits)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("which", [(0, 1), (1, 2)])
def test_distributed_training_takes_several_members_in_one_call(one_process, shared, which):
    members = made(shared, deep_supervision=True)
    network = distributed(members)
    for _ in range(2):
        network.zero_grad()
        total(network(image(), which).parts).backward()
    every = [members.decoder if shared else members.predictor, *members.others]
    for number, member in enumerate(every):
        expected = number in which
        own = member.seg_layers if shared else member
        assert reached(own) == (expected, expected)


def test_distributed_training_takes_a_loss_on_a_part_of_what_it_returns(one_process):
    members = made(shared=True, deep_supervision=True)
    network = distributed(members)
    for _ in range(2):
        network(image(), (0, 1)).parts[1].logits[0].square().mean().backward()
    assert reached(members.others[0].seg_layers[-1]) == (True, True)
    assert reached(members.others[0].seg_layers[0]) == (False, False)
    assert reached(members.decoder.seg_layers) == (False, False)


def test_distributed_training_refuses_the_same_members_in_two_calls(one_process):
    """The reason for one call, torch 2.14."""
    network = distributed(made(shared=True, deep_supervision=True))
    x = image()
    parts = [network(x, (number,)).parts[0] for number in (0, 1)]
    with pytest.raises(RuntimeError, match="Expected to mark a variable ready only once"):
        total(parts).backward()


def test_distributed_training_copies_what_it_returns(one_process):
    """The reason for features on demand, torch 2.14."""
    members = made(shared=True)
    seen = []
    members.decoder.seg_layers[-1].register_forward_hook(lambda _, __, output: seen.append(output))
    logits = distributed(members)(image(), (0,)).logits
    assert torch.equal(logits, seen[0])
    assert logits.data_ptr() != seen[0].data_ptr()


def test_compiled_members_give_the_same():
    torch.compiler.reset()
    members = made(shared=True)
    x = image()
    expected = members(x, (0, 1))
    got = torch.compile(members, backend="eager", fullgraph=True)(x, (0, 1))
    for part, same in zip(got.parts, expected.parts, strict=True):
        assert torch.equal(part.logits, same.logits)
