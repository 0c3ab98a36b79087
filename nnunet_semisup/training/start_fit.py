"""Fit of a file's weights to a network: what is taken, and what starts fresh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Size, Tensor

from nnunet_semisup.errors import UserError
from nnunet_semisup.training.nnssl import REMEDY, with_channels
from nnunet_semisup.training.start_files import FLAG, StartFile

HEADS = ".seg_layers."
"""In the names of what nnU-Net never takes from a file: the layers that belong to classes."""
OF_CLASSES = "segmentation layers"
SHOWN = 3
"""Names that a message lists."""


@dataclass(frozen=True)
class Fit:
    """Hold what a network takes from a file.

    Attributes:
        loaded: the file's tensors by name.
        fresh: parts that stay as they are.
        channels: what was done about another number of input channels, or an empty text.
    """

    loaded: dict[str, Tensor]
    fresh: list[str]
    channels: str


def fitted(
    own: Mapping[str, Tensor],
    plain: Mapping[str, Size],
    file: StartFile,
    stays: Iterable[str],
    place: str,
) -> Fit:
    """Return what the network that predicts takes from a file.

    The plan's own encoder and decoder have to be in the file; of a checkpoint of nnssl the encoder,
    whose decoder is taken as a whole or not at all. So is every other part.

    Args:
        own: tensors of the network.
        plain: shapes in the plan's network without inserts.
        file: the weights.
        stays: parts that do not come from this file.
        place: configuration and plans in training, for the message.

    Raises:
        UserError: what has to be there is not, or has another shape.
    """
    taken, channels = file.weights, ""
    if file.self_supervised:
        taken, channels = with_channels(own, file.weights)
    needed, groups = _sorted(own, plain)
    if file.self_supervised:
        groups["decoder"] = [n for n in needed if not n.startswith("encoder.")]
        needed = [n for n in needed if n.startswith("encoder.")]
    faults = [fault for n in needed if (fault := _fault(n, own[n], taken.get(n)))]
    if faults or not needed:
        raise UserError(_refusal(file, place, faults))
    never = {OF_CLASSES, *stays}
    whole = [
        part
        for part, names in groups.items()
        if part not in never and not any(_fault(n, own[n], taken.get(n)) for n in names)
    ]
    names = [*needed, *(name for part in whole for name in groups[part])]
    fresh = [part for part, names in groups.items() if names and part not in whole]
    return Fit({name: taken[name] for name in names}, fresh, channels)


def _sorted(
    own: Mapping[str, Tensor], plain: Mapping[str, Size]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the names that the plan's network has, too, and the others by their part."""
    needed: list[str] = []
    groups: dict[str, list[str]] = {OF_CLASSES: []}
    modules = prefixes(plain)
    for name, tensor in own.items():
        if HEADS in name:
            groups[OF_CLASSES].append(name)
        elif plain.get(name) == tensor.shape:
            needed.append(name)
        else:
            groups.setdefault(part_of(name, modules), []).append(name)
    return needed, groups


def prefixes(names: Iterable[str]) -> set[str]:
    """Return the names of all modules that tensors of these names are in."""
    words = [name.split(".") for name in names]
    return {".".join(one[:length]) for one in words for length in range(1, len(one))}


def part_of(name: str, known: set[str]) -> str:
    """Return the part that a tensor belongs to: the outermost module that is not ``known``."""
    words = name.split(".")
    modules = (".".join(words[:length]) for length in range(1, len(words)))
    return next((module for module in modules if module not in known), name)


def parts_of(names: Iterable[str], known: set[str]) -> list[str]:
    """Return the parts that tensors belong to, each with the number of its tensors."""
    parts: dict[str, int] = {}
    for name in names:
        part = OF_CLASSES if HEADS in name else part_of(name, known)
        parts[part] = parts.get(part, 0) + 1
    return [f"{part} ({number})" for part, number in parts.items()]


def _fault(name: str, needed: Tensor, given: Tensor | None) -> str | None:
    if given is None:
        return f"{name} is not there"
    if given.shape != needed.shape:
        return f"{name} is {_size(given)} there and {_size(needed)} here"
    return None


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _refusal(file: StartFile, place: str, faults: list[str]) -> str:
    listed = "; ".join(faults[:SHOWN]) or "none of its names is known"
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    if file.self_supervised:
        remedy = REMEDY
    elif file.plans:
        remedy = (
            f"Both have to have the same plans: the file's are {file.plans}, {file.configuration}, "
            f"of {file.dataset}. Train with those, or bring them here by "
            f"nnUNetv2_move_plans_between_datasets -s {file.dataset} -t DATASET -sp {file.plans} "
            "-tp NAME, preprocess with -plans_name NAME and train with -p NAME"
        )
    else:
        remedy = "Give weights of a network of the same plans"
    return f"{FLAG} {file.path} ({file.origin}) does not fit {place}: {listed}{more}. {remedy}."
