"""The network that plans with inserts name, and plans that name it."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from nnunet_semisup.architectures.insert import Insert, find_insert
from nnunet_semisup.errors import UserError

NETWORK = "nnunet_semisup.architectures.planned_unet.planned_unet"
"""Name of :func:`planned_unet` in plans."""
UNETS = tuple(
    f"dynamic_network_architectures.architectures.unet.{kind}"
    for kind in ("PlainConvUNet", "ResidualEncoderUNet")
)
"""Networks that inserts go into."""


def planned_unet(
    input_channels: int,
    num_classes: int,
    base: str,
    inserts: Sequence[Mapping[str, Any]],
    **arguments: Any,
) -> nn.Module:
    """Return a network of nnU-Net's with parts inserted.

    nnU-Net calls it as it calls the classes of its own networks: by the name in the plans, with
    their arguments, and it initialises the weights afterwards.

    Args:
        input_channels: of the images.
        num_classes: segmentation heads.
        base: class of the network, with its package.
        inserts: name and options of each part, as the plans have them.
        arguments: of the network.

    Raises:
        UserError: an unknown insert or network.
    """
    kind: Any = pydoc.locate(base)
    if kind is None:
        raise UserError(f"The plans' network {base} is not in the installed packages.")
    network: nn.Module = kind(input_channels=input_channels, num_classes=num_classes, **arguments)
    for insert in inserts:
        options = {key: value for key, value in insert.items() if key != "name"}
        find_insert(insert["name"]).install(network, **options)
    return network


def base_of(architecture: Mapping[str, Any]) -> str:
    """Return the class of the network in the plans, without inserts.

    Args:
        architecture: ``network_class_name`` and ``arch_kwargs`` of a configuration.
    """
    name = str(architecture["network_class_name"])
    return str(architecture["arch_kwargs"]["base"]) if name == NETWORK else name


def inserts_of(architecture: Mapping[str, Any]) -> list[str]:
    """Return the names of the inserts in the plans' network.

    Args:
        architecture: ``arch_kwargs`` of a configuration, and more.
    """
    return [part["name"] for part in architecture["arch_kwargs"].get("inserts", ())]


def refuse_with_others(insert: Insert, others: Sequence[str]) -> None:
    """Refuse an insert that does not go into a network behind others.

    Args:
        insert: that is to go in.
        others: names of those that the network has already.

    Raises:
        UserError: it is one of them, a second last layer, or would undo what they do.
    """
    name = insert.name
    if name in others:
        raise UserError(f"the network of these plans already has {name}")
    heads = [other for other in others if find_insert(other).is_head]
    if insert.is_head and heads:
        raise UserError(f"{name} and {heads[0]} are both the network's last layer: leave one out.")
    if insert.goes_first and others:
        raise UserError(
            f"{name} puts stages of its own in the place of those that {', '.join(others)} changed:"
            f" put {name} first, into plans without them."
        )


def with_insert(
    configuration: Mapping[str, Any], name: str, settings: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the ``architecture`` of a configuration of plans with a part more in its network.

    Args:
        configuration: of the plans: ``architecture`` and ``patch_size``.
        name: of the insert.
        settings: what the user set of it, as text.

    Raises:
        UserError: an unknown insert or setting, one that does not go with those that the network
            has already or does not serve as many dimensions, or a network that is no U-Net of
            nnU-Net's.
    """
    insert = find_insert(name)
    architecture, patch_size = configuration["architecture"], configuration["patch_size"]
    given = dict(architecture["arch_kwargs"])
    base, before = base_of(architecture), given.pop("inserts", [])
    given.pop("base", None)
    if base not in UNETS:
        raise UserError(
            f"{name} goes into nnU-Net's U-Nets ({', '.join(UNETS)}); these plans name {base}."
        )
    if len(patch_size) not in insert.dims:
        dims = " and ".join(f"{number}D" for number in insert.dims)
        raise UserError(f"{name} is for {dims} networks; this one is {len(patch_size)}D.")
    refuse_with_others(insert, inserts_of(architecture))
    possible = list(inspect.signature(insert.options).parameters)[2:]
    if unknown := [key for key in settings or {} if key not in possible]:
        raise UserError(
            f"{name} has no option {', '.join(unknown)}. Possible: {', '.join(possible) or 'none'}."
        )
    options = insert.options(given, patch_size, **(settings or {}))
    inserts = [*before, {"name": name, **options}]
    return {
        **architecture,
        "network_class_name": NETWORK,
        "arch_kwargs": {**given, "base": base, "inserts": inserts},
    }
