"""Parts that go into the U-Net of existing plans, by their name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from nnunet_semisup.errors import UserError

INSERTS = ("nsda", "home", "gaussian_field", "kmax", "uxnet")
"""Names of the inserts; each has a module here that defines it under its name in capitals."""


@dataclass(frozen=True)
class Insert:
    """Describe a part that goes into a network.

    Attributes:
        name: as plans and the command name it.
        title: what it is, in a few words.
        dims: spatial dimensions of the networks that it goes into.
        options: function of the network's arguments in the plans, of the patch size and of what
            the user set by keyword; returns what ``install`` is to be told, as JSON can hold it,
            so that training and prediction build the same. It raises UserError where the part
            cannot serve.
        install: function of a U-Net of dynamic_network_architectures and of those options; changes
            the network in place, before nnU-Net initialises its weights.
        is_head: whether it is the network's last layer, of which there is one.
        goes_first: whether it puts stages of its own in the place of those that others change.
    """

    name: str
    title: str
    dims: tuple[int, ...]
    options: Callable[..., dict[str, Any]]
    install: Callable[..., None]
    is_head: bool = False
    goes_first: bool = False


def find_insert(name: str) -> Insert:
    """Return an insert by its name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in INSERTS:
        raise UserError(f"There is no insert {name!r}. Possible: {', '.join(INSERTS)}.")
    found: Insert = getattr(import_module(f"nnunet_semisup.architectures.{name}"), name.upper())
    return found


def stage_shapes(
    architecture: Mapping[str, Any], patch_size: Sequence[int]
) -> list[tuple[int, ...]]:
    """Return the spatial shape of each encoder stage's features for a patch, shallow to deep.

    Args:
        architecture: arguments of the network in the plans; ``strides`` counts.
        patch_size: of the plans.
    """
    shape = np.array(patch_size)
    shapes = []
    for stride in architecture["strides"]:
        shape = np.ceil(shape / np.array(stride)).astype(int)
        shapes.append(tuple(int(length) for length in shape))
    return shapes
