"""Dropout by hooks: no keys, copies of its own, Monte-Carlo passes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_semisup.networks.dropout import add_dropout, only_dropout
from nnunet_semisup.training.ema import EMATeacher
from tests.unit.networks.shared import small_unet


def made(dims=2, residual=False, p=0.5, stages=None):
    network = small_unet(dims, residual)
    add_dropout(network, p, stages)
    return network


def differs(network, x):
    """Whether two passes differ, as random ones do."""
    torch.manual_seed(1)
    return not torch.equal(network(x), network(x))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_keys_stay_and_evaluation_is_untouched(dims, residual):
    plain = small_unet(dims, residual)
    network = made(dims, residual)
    assert list(network.state_dict()) == list(plain.state_dict())
    network.load_state_dict(plain.state_dict())
    x = torch.randn(1, 2, *[8] * dims)
    assert torch.equal(network.eval()(x), plain.eval()(x))
    assert differs(network.train(), x)


@pytest.mark.parametrize(("stages", "dropping"), [(None, [1, 2]), ([0], [0]), ([-1], [2])])
def test_whole_channels_of_the_chosen_stages_are_dropped(stages, dropping):
    network = made(stages=stages).train()
    torch.manual_seed(0)
    features = network.encoder(torch.randn(4, 2, 16, 16))
    dropped = [(f == 0).flatten(2).all(2) for f in features]
    assert [number for number, map_ in enumerate(dropped) if map_.any()] == dropping
    for number in dropping:
        assert not dropped[number].all()
        assert ((features[number] == 0).flatten(2).any(2) == dropped[number]).all()


def test_only_dropout_acts_inside_and_is_off_after():
    network = made().eval()
    x = torch.randn(1, 2, 8, 8)
    with only_dropout(network):
        assert differs(network, x)
        assert not any(module.training for module in network.modules())
        with only_dropout(network):
            assert differs(network, x)
        assert differs(network, x)
    assert not differs(network, x)
    with pytest.raises(KeyError), only_dropout(network):
        raise KeyError
    assert not differs(network, x)


def test_a_teachers_copy_has_dropout_of_its_own():
    student = made().train()
    teacher = EMATeacher(student, 0.9)
    x = torch.randn(1, 2, 8, 8)
    assert not differs(teacher, x)
    student.eval()
    with only_dropout(teacher):
        assert differs(teacher, x)
        assert not differs(student, x)
        assert not teacher.training
    assert not differs(teacher, x)


def test_dropout_of_the_plans_counts():
    network = nn.Sequential(nn.Conv2d(2, 8, 1), nn.Dropout2d(0.5)).eval()
    x = torch.randn(1, 2, 8, 8)
    with only_dropout(network):
        assert differs(network, x)
    assert not differs(network, x)


def test_passes_without_any_dropout_are_refused():
    with pytest.raises(ValueError, match="add_dropout"), only_dropout(small_unet(2)):
        pass


def test_compiled_networks_follow_the_context():
    """TorchDynamo guards on the hook's flag: no graph break, both states right, in any order."""
    torch.compiler.reset()
    network = made().eval()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    x = torch.randn(1, 2, 8, 8)
    for _ in range(2):
        assert not differs(compiled, x)
        assert torch.equal(compiled(x), network(x))
        with only_dropout(network):
            assert differs(compiled, x)
    with only_dropout(compiled):
        assert differs(compiled, x)
    assert differs(compiled.train(), x)
