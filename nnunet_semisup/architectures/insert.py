"""Parts that go into the U-Net of existing plans, by their name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from nnunet_semisup.errors import UserError


class Summary(NamedTuple):
    """Say in a few words what an insert is, and into networks of which dimensions it goes."""

    title: str
    dims: tuple[int, ...]


INSERTS = {
    "nsda": Summary("neighborhood self-dissimilarity attention after every stage", (2, 3)),
    "home": Summary(
        "hierarchical mixture of experts behind the two deepest encoder stages; "
        "options mixer=none|mamba, slots=mean|sum",
        (2, 3),
    ),
    "gaussian_field": Summary(
        "a field of Gaussians as last layer and contour energy at the first, in GauSAM's manner, "
        "without SAM and without a box",
        (2,),
    ),
    "kmax": Summary("queries moved by k-means, which classify", (2, 3)),
    "uxnet": Summary("large depthwise kernels in the encoder", (2, 3)),
}
"""The inserts by name; each has a module here that defines it under its name in capitals."""


@dataclass(frozen=True)
class Insert:
    """Describe a part that goes into a network.

    Attributes:
        name: as plans and the command name it, one of :data:`INSERTS`.
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
    options: Callable[..., dict[str, Any]]
    install: Callable[..., None]
    is_head: bool = False
    goes_first: bool = False

    @property
    def dims(self) -> tuple[int, ...]:
        """Spatial dimensions of the networks that it goes into."""
        return INSERTS[self.name].dims


def describe_inserts() -> str:
    """Return a line on each insert."""
    width = max(map(len, INSERTS))
    return "\n".join(
        f"  {name:<{width}}  {title} ({' and '.join(f'{d}D' for d in dims)})"
        for name, (title, dims) in INSERTS.items()
    )


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
