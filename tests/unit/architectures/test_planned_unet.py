"""Networks with inserts, as nnU-Net builds them from plans."""

from __future__ import annotations

import copy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunet_semisup.architectures.insert import INSERTS, find_insert
from nnunet_semisup.architectures.nsda import window
from nnunet_semisup.architectures.planned_unet import NETWORK, UNETS, with_insert
from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.decode import decode, encode
from nnunet_semisup.networks.decoders import decoder_like

PAIRS = [(name, dims) for name in INSERTS for dims in find_insert(name).dims]


def configuration(dims: int = 3, residual: bool = False) -> dict:
    """What plans say of a network of three stages for patches of 16."""
    kind = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    operators = {
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
        "nonlin": "torch.nn.LeakyReLU",
    }
    arguments = {
        "n_stages": 3,
        "features_per_stage": [8, 16, 16],
        "kernel_sizes": [[3] * dims] * 3,
        "strides": [[1] * dims, [2] * dims, [2] * dims],
        kind: [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "patch_size": [16] * dims,
        "architecture": {
            "network_class_name": UNETS[residual],
            "arch_kwargs": {**arguments, **operators},
            "_kw_requires_import": [*operators, "dropout_op"],
        },
    }


def build(architecture: dict, deep_supervision: bool = False, classes: int = 3) -> torch.nn.Module:
    """Build as nnU-Net does."""
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        2,
        classes,
        deep_supervision=deep_supervision,
    )


def image(dims: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((2, 2, *[16] * dims), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "dims"), PAIRS)
@pytest.mark.parametrize("residual", [False, True])
def test_every_insert_keeps_the_shapes_and_acts(name, dims, residual):
    planned = configuration(dims, residual)
    network = build(with_insert(planned, name), deep_supervision=True)
    plain = build(planned["architecture"], deep_supervision=True)
    found, expected = network(image(dims)), plain(image(dims))
    assert [each.shape for each in found] == [each.shape for each in expected]
    loss = sum(each.square().mean() for each in found)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(("name", "dims"), PAIRS)
def test_decoding_apart_and_a_copy_are_the_network(name, dims):
    """Trainers with several decoders run encoder and decoder apart; a teacher is a copy."""
    network = build(with_insert(configuration(dims), name)).eval()
    x = image(dims)
    with torch.no_grad():
        expected = network(x)
        assert torch.equal(decode(network.decoder, encode(network, x)).logits, expected)
        assert torch.equal(copy.deepcopy(network)(x), expected)
        other = decoder_like(network.decoder, "linear").eval()
        assert decode(other, encode(network, x)).logits.shape == expected.shape


@pytest.mark.parametrize(("name", "dims"), PAIRS)
def test_the_same_weights_predict_the_same_in_training_and_evaluation(name, dims):
    network = build(with_insert(configuration(dims), name))
    with torch.no_grad():
        torch.testing.assert_close(network.train()(image(dims)), network.eval()(image(dims)))


@pytest.mark.parametrize(("name", "dims"), PAIRS)
def test_memory_is_estimated_as_of_any_network(name, dims):
    """nnU-Net's planners ask for it."""
    network = build(with_insert(configuration(dims), name))
    assert network.compute_conv_feature_map_size([16] * dims) > 0


def test_nsda_keeps_the_keys_and_changes_the_result():
    planned = configuration()
    network, plain = build(with_insert(planned, "nsda")), build(planned["architecture"])
    network.load_state_dict(plain.state_dict())
    assert isinstance(network, PlainConvUNet)
    with torch.no_grad():
        assert not torch.allclose(network(image(3)), plain(image(3)))


def test_nsdas_windows_follow_the_patch_and_leave_few_slices_apart():
    lengths = [256, 128, 64, 32, 16, 8, 4]
    assert [window([n, n], [3, 3])[0] for n in lengths] == [33, 17, 9, 5, 3, 3, 3]
    assert window([5, 40, 40], [3, 3, 3]) == [1, 7, 7]
    assert window([20, 320, 320], [1, 3, 3]) == [1, 41, 41]
    assert window([4, 4, 1], [3, 3, 3]) == [3, 3, 1]


def test_inserts_are_refused_where_they_cannot_go():
    planned = configuration()
    with pytest.raises(UserError, match=r"no insert 'nsd'\. Possible: .*nsda"):
        with_insert(planned, "nsd")
    once = {**planned, "architecture": with_insert(planned, "nsda")}
    with pytest.raises(UserError, match="already has nsda"):
        with_insert(once, "nsda")
    other = copy.deepcopy(planned)
    other["architecture"]["network_class_name"] = "a.package.Transformer"
    with pytest.raises(UserError, match=r"these plans name a\.package\.Transformer"):
        with_insert(other, "nsda")
    assert planned == configuration(), "the plans given are not changed"


@pytest.mark.parametrize("first", ["kmax", "gaussian_field"])
def test_a_network_has_one_last_layer(first):
    """The second one would take the place of the first, which no one asked for."""
    second = "gaussian_field" if first == "kmax" else "kmax"
    planned = configuration(2)
    planned["architecture"] = with_insert(planned, first)
    with pytest.raises(UserError, match=f"{second} and {first} are both the network's last layer"):
        with_insert(planned, second)


@pytest.mark.parametrize("first", ["nsda", "kmax"])
def test_what_would_undo_another_insert_goes_first(first):
    planned = configuration(2)
    planned["architecture"] = with_insert(planned, "uxnet")
    build(with_insert(planned, first))
    planned["architecture"] = with_insert(configuration(2), first)
    with pytest.raises(UserError, match=f"those that {first} changed: put uxnet first"):
        with_insert(planned, "uxnet")


def test_a_network_that_is_not_installed_is_named():
    architecture = with_insert(configuration(), "nsda")
    architecture["arch_kwargs"]["base"] = "a.package.UNet"
    with pytest.raises(UserError, match=r"a\.package\.UNet is not in the installed packages"):
        build(architecture)
    assert architecture["network_class_name"] == NETWORK
