"""Second networks of the same plans."""

from __future__ import annotations

import ast
import copy
import inspect
import re

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
    residual_encoder_unet_planners as residual_planners,
)
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.partners import PLAIN, RESIDUAL, partner_of
from nnunet_semisup.networks.planned import PlannedNetwork


def plan(kind=PLAIN, dims=2, stages=3, deep_supervision=True):
    depths = "n_conv_per_stage" if kind == PLAIN else "n_blocks_per_stage"
    configuration = {
        "architecture": {
            "network_class_name": kind,
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": [4, 6, 8, 8, 8][:stages],
                "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
                "kernel_sizes": [[3] * dims] * stages,
                "strides": [[1] * dims] + [[2] * dims] * (stages - 1),
                depths: [1] * stages,
                "n_conv_per_stage_decoder": [1] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }
    }
    return PlannedNetwork(None, ConfigurationManager(configuration), 1, 3, deep_supervision)


@pytest.mark.parametrize("kind", [PLAIN, RESIDUAL])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_partner_takes_and_gives_what_the_first_network_does(kind, dims, residual):
    planned = plan(kind, dims)
    before = copy.deepcopy(planned.configuration_manager.configuration)
    first, partner = planned.build(), partner_of(planned, residual)
    assert planned.configuration_manager.configuration == before
    kinds = {PLAIN: PlainConvUNet, RESIDUAL: ResidualEncoderUNet}
    other = RESIDUAL if kind == PLAIN else PLAIN
    assert type(first) is kinds[kind]
    assert type(partner) is kinds[other if residual else kind]
    x = torch.randn(1, 1, *[8] * dims)
    shapes = [[tuple(level.shape) for level in network(x)] for network in (first, partner)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(first.decoder.seg_layers[0].weight, partner.decoder.seg_layers[0].weight)


@pytest.mark.parametrize("stages", [2, 5])
def test_depths_are_those_of_nnunets_planners(stages):
    """nnU-Net 2.8.1: 2 convolutions a stage; 1, 3, 4, 6, 6 ... residual blocks."""

    def planned_depths(planner):
        source = inspect.getsource(planner.__init__)
        found = re.search(r"UNet_blocks_per_stage_encoder = (\(.*?\))", source)
        return ast.literal_eval(found[1])[:stages]

    residual = partner_of(plan(PLAIN, stages=stages), residual=True)
    assert tuple(len(s.blocks) for s in residual.encoder.stages) == planned_depths(
        residual_planners.ResEncUNetPlanner
    )
    plain = partner_of(plan(RESIDUAL, stages=stages), residual=True)
    assert tuple(len(s[-1].convs) for s in plain.encoder.stages) == planned_depths(
        ExperimentPlanner
    )


def test_deep_supervision_is_the_plans():
    assert isinstance(partner_of(plan(deep_supervision=True), True)(torch.randn(1, 1, 8, 8)), list)
    flat = partner_of(plan(deep_supervision=False), True)(torch.randn(1, 1, 8, 8))
    assert flat.shape == (1, 3, 8, 8)


def test_a_network_of_neither_kind_has_no_partner_of_another():
    planned = plan()
    planned.configuration_manager.configuration["architecture"]["network_class_name"] = "a.Net"
    with pytest.raises(UserError, match=r"a\.Net.*PlainConvUNet.*-pl"):
        partner_of(planned, residual=True)
