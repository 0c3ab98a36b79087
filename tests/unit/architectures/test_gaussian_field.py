"""How the field of Gaussians goes into a plan's network."""

from __future__ import annotations

import copy

import pytest
import torch

from nnunet_semisup.architectures.planned_unet import with_insert
from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.decode import encode, feature_width
from nnunet_semisup.networks.decoders import decoder_like
from tests.unit.architectures.test_planned_unet import build, configuration, image


@pytest.mark.parametrize("residual", [False, True])
def test_features_are_the_plans_own_at_first_until_contours_count(residual):
    planned = configuration(2, residual)
    network, plain = build(with_insert(planned, "gaussian_field")), build(planned["architecture"])
    encoder = {
        k.replace("stem.stage", "stem").replace("stages.0.stage", "stages.0"): v
        for k, v in network.encoder.state_dict().items()
        if ".part." not in k
    }
    plain.encoder.load_state_dict(encoder)
    x = image(2)
    with torch.no_grad():
        for found, expected in zip(encode(network, x), encode(plain, x), strict=True):
            assert torch.equal(found, expected)
        (scale,) = (v for k, v in network.encoder.named_parameters() if k.endswith("part.scale"))
        scale.fill_(1)
        assert not torch.equal(encode(network, x)[0], encode(plain, x)[0])


def test_the_head_tells_its_width_and_a_second_decoder_has_one_of_its_own():
    network = build(with_insert(configuration(2), "gaussian_field"), deep_supervision=True)
    assert feature_width(network.decoder) == 8
    other = decoder_like(network.decoder, "linear")
    ours, theirs = network.decoder.seg_layers[-1], other.seg_layers[-1]
    assert type(ours) is type(theirs)
    assert not torch.equal(ours.to_values.weight, theirs.to_values.weight)
    assert torch.equal(theirs.drift_scale, torch.zeros_like(theirs.drift_scale))
    for layer, plain in zip(network.decoder.seg_layers[:-1], other.seg_layers[:-1], strict=True):
        assert type(layer) is type(plain) is torch.nn.Conv2d


def test_it_is_refused_in_3d_and_where_no_stage_has_full_resolution():
    with pytest.raises(UserError, match="gaussian_field is for 2D networks; this one is 3D"):
        with_insert(configuration(3), "gaussian_field")
    planned = configuration(2)
    planned["architecture"]["arch_kwargs"]["strides"][0] = [2, 2]
    with pytest.raises(UserError, match=r"first stage at full resolution; .* strides \[2, 2\]"):
        with_insert(planned, "gaussian_field")


@pytest.mark.parametrize(
    "names", [("nsda", "home", "gaussian_field"), ("gaussian_field", "home", "nsda")]
)
def test_it_goes_in_with_others_in_either_order(names):
    planned = configuration(2)
    for name in names:
        planned = {**planned, "architecture": with_insert(planned, name)}
    network = build(planned["architecture"])
    assert copy.deepcopy(network)(image(2)).isfinite().all()
    assert network.compute_conv_feature_map_size([16, 16]) > 0
