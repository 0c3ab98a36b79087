"""Checkpoints of self-supervised pretraining by nnssl, in the names of nnU-Net's networks.

nnssl (https://github.com/MIC-DKFZ/nnssl; the OpenMind weights are published in this form) keeps the
weights under ``network_weights`` as nnU-Net does, and says in ``nnssl_adaptation_plan`` which
network they are of (``architecture_plans``) and where its encoder is among them
(``key_to_encoder``, ``key_to_stem``; in checkpoints of early 2025 ``state_dict_key_to_...``). What
pretraining has beside the encoder, such as projections and mask tokens, has no counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nnunet_semisup.errors import UserError

ADAPTATION = "nnssl_adaptation_plan"
"""Key of what nnssl says of its weights."""
ENCODER, STEM = "encoder.stages", "encoder.stem"
"""Names of both in nnU-Net's U-Nets (dynamic_network_architectures 0.4)."""
REMEDY = (
    "nnssl's ResEncL has 6 stages of 32, 64, 128, 256, 320 and 320 features and kernels of 3x3x3; "
    "nnU-Net plans it for large images at equal spacing: nnUNetv2_plan_experiment -d DATASET -pl "
    "nnUNetPlannerResEncL -overwrite_target_spacing 1 1 1 -overwrite_plans_name NAME, then "
    "preprocess with -plans_name NAME and train with -p NAME"
)
"""What to do where such weights do not fit."""


def architecture_of(plan: Mapping[str, Any]) -> str:
    """Return the name of the network that was pretrained.

    Args:
        plan: ``nnssl_adaptation_plan`` of a checkpoint, here as below.
    """
    named = _at(plan, "architecture_plans", "arch_class_name") or plan.get("architecture_name")
    return str(named or "an unnamed network")


def refuse_transformer(plan: Mapping[str, Any]) -> None:
    """Refuse weights that no U-Net has.

    Raises:
        UserError: the network is one of the Primus family.
    """
    kind, encoder = architecture_of(plan), str(_key(plan, "key_to_encoder", ENCODER))
    if kind.startswith("Primus") or "eva" in encoder.split("."):
        raise UserError(
            f"These are weights of {kind}, a transformer (under {encoder}), and the trainers here "
            "have the plan's U-Net. Take nnssl's weights of a ResEncL, with plans of "
            "nnUNetPlannerResEncL."
        )


def renamed(weights: Mapping[str, Tensor], plan: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return weights by the names of nnU-Net's U-Nets.

    Args:
        weights: of the checkpoint, each tensor once.
        plan: says where the encoder is. A stem that lies in it, as in plain U-Nets, goes with it.
    """
    encoder, stem = _key(plan, "key_to_encoder", ENCODER), _key(plan, "key_to_stem", STEM)
    prefixes = {f"{encoder}.": f"{ENCODER}."}
    if not f"{stem}.".startswith(f"{encoder}."):
        prefixes[f"{stem}."] = f"{STEM}."
    result = {}
    for name, value in weights.items():
        there = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        result[prefixes.get(there, "") + name.removeprefix(there)] = value
    return result


def with_channels(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """Return weights whose first layer takes as many channels as the network's, and a line.

    Pretraining has one channel. Each channel gets its weights, divided by their number, as in
    nnU-Net's own use of these checkpoints (git, July 2026): channels that are alike give what the
    one gave.

    Args:
        own: tensors of the network.
        weights: of the file, in its names.
    """
    result, told = dict(weights), ""
    for name, tensor in own.items():
        given = weights.get(name)
        if given is None or not name.startswith("encoder.") or given.ndim != tensor.ndim:
            continue
        channels = tensor.shape[1] if tensor.ndim > 1 else 1
        if given.shape[1:2] == (1,) and channels > 1 and given[:, 0].shape == tensor[:, 0].shape:
            result[name] = given.expand_as(tensor) / channels
            told = f"{name}, of one channel, is repeated for {channels} and divided by {channels}"
    return result, told


def described(content: Mapping[str, Any]) -> list[str]:
    """Return lines for the log: on what was pretrained, and what the file asks to be cited.

    Args:
        content: of the checkpoint.
    """
    lines = []
    configurations = _at(content, ADAPTATION, "pretrain_plan", "configurations") or {}
    for name, one in configurations.items():
        facts = {
            "spacing": _at(one, "spacing"),
            "normalization": _at(one, "normalization_schemes"),
            "patch": _at(one, "patch_size"),
        }
        known = ", ".join(f"{what} {value}" for what, value in facts.items() if value is not None)
        lines.append(f"pretrained on images with {known or 'unknown properties'} ({name})")
    given = content.get("citations")
    entries = given if isinstance(given, (list, tuple)) else []
    names = [str(name) for entry in entries if (name := _at(entry, "name"))]
    if names:
        lines.append(f"the file asks to cite {', '.join(names)}")
    return lines


def _key(plan: Mapping[str, Any], name: str, default: str) -> Any:
    return plan.get(name) or plan.get(f"state_dict_{name}") or default


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
