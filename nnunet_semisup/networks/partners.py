"""A second network of the same plans, to learn with the first."""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunet_semisup.architectures.planned_unet import NETWORK, UNETS
from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.planned import PlannedNetwork

PLAIN, RESIDUAL = UNETS

_FIRST_BLOCKS = (1, 3, 4)
_DEEP_BLOCKS = 6
_CONVOLUTIONS = 2


def partner_of(plan: PlannedNetwork, residual: bool) -> nn.Module:
    """Return a second network of the plan, with fresh weights drawn from torch's generator.

    Args:
        plan: what the first network is built from.
        residual: the two differ in kind, as a pair of V-Net and 3D ResNet does (MCF, CVPR 2023):
            residual encoder where the plan's is plain, plain encoder where it is residual. Stages,
            features, kernels, strides and the decoder are the plan's; depths of the stages are
            nnU-Net's own for that kind (2.8.1: ``UNet_blocks_per_stage_encoder`` of
            ``ExperimentPlanner`` and ``ResEncUNetPlanner``).

    Raises:
        UserError: ``residual``, and the plans name a network of neither kind.
    """
    if not residual:
        return plan.build()
    configuration = plan.configuration_manager
    kind, arguments = configuration.network_arch_class_name, configuration.network_arch_init_kwargs
    other, its_arguments = other_network(kind, arguments)
    return get_network_from_plans(
        other,
        its_arguments,
        configuration.network_arch_init_kwargs_req_import,
        plan.input_channels,
        plan.output_channels,
        deep_supervision=plan.deep_supervision,
    )


def other_network(kind: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the class name and arguments of the other kind's network, with the same inserts.

    Args:
        kind: class name in the plans.
        arguments: its arguments there.

    Raises:
        UserError: it is of neither kind.
    """
    base = arguments["base"] if kind == NETWORK else kind
    other, its_arguments = other_kind(base), _other_arguments(base, arguments)
    return (
        (NETWORK, {**its_arguments, "base": other}) if kind == NETWORK else (other, its_arguments)
    )


def other_kind(kind: str) -> str:
    """Return the class name of networks that are residual where ``kind`` is plain, or plain.

    Raises:
        UserError: it is of neither kind.
    """
    others = {PLAIN: RESIDUAL, RESIDUAL: PLAIN}
    if kind not in others:
        raise UserError(
            f"The plans' network is {kind}, and a partner of another kind is known for "
            f"{' and '.join(others)}. Plan with nnU-Net's own planners, for example "
            "-pl nnUNetPlannerResEncM."
        )
    return others[kind]


def _other_arguments(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of the plan's arguments with the depths of the other kind's stages."""
    kept = {
        name: value
        for name, value in arguments.items()
        if name not in ("n_conv_per_stage", "n_blocks_per_stage")
    }
    stages = arguments["n_stages"]
    if kind == RESIDUAL:
        return {**kept, "n_conv_per_stage": [_CONVOLUTIONS] * stages}
    deep = [_DEEP_BLOCKS] * (stages - len(_FIRST_BLOCKS))
    return {**kept, "n_blocks_per_stage": [*_FIRST_BLOCKS, *deep][:stages]}
