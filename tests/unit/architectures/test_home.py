"""Where HoME's layers go into a plan's network, and how large they are."""

from __future__ import annotations

import sys

import pytest
import torch

from nnunet_semisup.architectures.home import layer_of, options
from nnunet_semisup.architectures.planned_unet import with_insert
from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.decode import encode
from tests.unit.architectures.test_planned_unet import build, configuration, image


@pytest.mark.parametrize(
    ("size", "features", "expected"),
    [
        (64, 48, (2048, 4, 8)),
        (32, 96, (1024, 8, 16)),
        (16, 192, (512, 12, 24)),
        (8, 384, (256, 16, 32)),
    ],
)
def test_the_papers_stages_get_the_papers_layers(size, features, expected):
    found = layer_of(size**3, features)
    assert (found["group_size"], found["experts"], found["experts_above"]) == expected
    assert found["slots"] == 4


@pytest.mark.parametrize("tokens", [1, 2, 5, 27, 64, 100, 600])
def test_small_maps_have_groups_and_slots_that_fit(tokens):
    found = layer_of(tokens, 320)
    assert found["group_size"] <= tokens
    assert found["experts"] * found["slots"] <= max(4, tokens / 4)


def architecture(strides, features=None):
    return {"strides": strides, "features_per_stage": features or [8] * len(strides)}


@pytest.mark.parametrize(
    ("strides", "stages"),
    [
        ([[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]], [2, 3]),
        ([[1, 1, 1], [1, 2, 2], [1, 2, 2]], [2]),
        ([[1, 1], [2, 2], [2, 2], [2, 2], [2, 2]], [3, 4]),
    ],
)
def test_the_deepest_two_stages_of_a_quarter_or_less_get_one(strides, stages):
    patch = [32] * len(strides[0])
    assert options(architecture(strides), patch)["stages"] == stages


def test_what_it_cannot_do_is_refused(monkeypatch):
    shallow = architecture([[1, 1, 1], [2, 2, 2]])
    with pytest.raises(UserError, match="the deepest of this network has 1/2"):
        options(shallow, [16] * 3)
    planned = configuration()
    with pytest.raises(UserError, match=r"home:mixer=gru is unknown\. Possible: none, mamba"):
        with_insert(planned, "home", {"mixer": "gru"})
    with pytest.raises(UserError, match=r"home:slots=max is unknown\. Possible: mean, sum"):
        with_insert(planned, "home", {"slots": "max"})
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    with pytest.raises(UserError, match="needs the package mamba-ssm"):
        with_insert(planned, "home", {"mixer": "mamba"})


def test_sums_are_an_option_that_the_network_is_built_with():
    network = build(with_insert(configuration(), "home", {"slots": "sum"}))
    (moe,) = network.encoder.stages[2].part.parts
    assert moe.official_sum
    assert moe.above.official


@pytest.mark.parametrize("dims", [2, 3])
def test_a_network_starts_as_the_plans_own(dims):
    planned = configuration(dims)
    network, plain = build(with_insert(planned, "home")), build(planned["architecture"])
    weights = {name.replace("stage.", ""): v for name, v in network.state_dict().items()}
    plain.load_state_dict({k: v for k, v in weights.items() if ".part." not in k})
    with torch.no_grad():
        assert torch.equal(network(image(dims)), plain(image(dims)))
    assert len(encode(network, image(dims))) == 3
    assert network.compute_conv_feature_map_size([16] * dims) == (
        plain.compute_conv_feature_map_size([16] * dims)
    )
