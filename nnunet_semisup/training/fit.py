"""Fit a trainer's settings to a GPU: unlabeled patches a step, and recomputed activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semisup.errors import UserError
from nnunet_semisup.networks.planned import PlannedNetwork
from nnunet_semisup.registry import METHODS, Method
from nnunet_semisup.training.memory import Step
from nnunet_semisup.training.settings import VARIABLE

GIB = 2**30
CONTEXT = 1.0
"""GiB of a GPU that are left to its driver and to the convolutions' working space."""


def fitting(step: Step, gigabytes: float) -> tuple[Step | None, float]:
    """Return the first choice that fits, and its GiB with :data:`CONTEXT`; of none the least.

    Activations are recomputed before fewer patches are taken, since that changes no result.

    Args:
        step: as the plans and the defaults have it.
        gigabytes: of the GPU, in GiB.
    """
    least = float("inf")
    choices = (False, True) if step.can_compute_again else (False,)
    for number in range(step.unlabeled, 0, -1):
        for again in choices:
            choice = replace(step, unlabeled=number, again=again)
            needed = choice.bytes() / GIB + CONTEXT
            if needed <= gigabytes:
                return choice, needed
            least = min(least, needed)
    return None, least


def rows_for(trainers: Sequence[str], dimensions: int) -> list[Method]:
    """Return rows of trainers, of none named all, that can be estimated in these dimensions.

    Raises:
        UserError: one of the named ones cannot.
    """
    there = [m for m in METHODS if m.uses_unlabeled and m.unlabeled_at_once]
    there = [m for m in there if dimensions in m.dims]
    chosen = [m for m in there if m.trainer in trainers]
    if absent := sorted(set(trainers) - {m.trainer for m in chosen}):
        listed = "\n".join(f"  {m.trainer}" for m in there)
        raise UserError(
            f"There is no estimate of the memory of {', '.join(absent)} in {dimensions}D. There "
            f"are those of:\n{listed}"
        )
    return chosen or there


def fit_lines(
    plans: PlansManager,
    configurations: Sequence[str],
    dataset_json: dict[str, Any],
    gigabytes: float,
    trainers: Sequence[str] = (),
) -> Iterator[str]:
    """Say of each configuration and trainer which settings fit, one line each.

    Args:
        plans: of the data set.
        configurations: names.
        dataset_json: content of the preprocessed data set's ``dataset.json``.
        gigabytes: of the GPU, in GiB.
        trainers: their names; none: all that can be estimated.

    Raises:
        UserError: a trainer cannot be estimated.
    """
    heads = plans.get_label_manager(dataset_json).num_segmentation_heads
    chosen = [
        (name, manager, rows_for(trainers, len(manager.patch_size)))
        for name, manager in ((name, plans.get_configuration(name)) for name in configurations)
    ]
    for name, manager, methods in chosen:
        channels = determine_num_input_channels(plans, manager, dataset_json)
        network = PlannedNetwork(plans, manager, channels, heads, True)
        yield f"{name}, patches of {' x '.join(map(str, manager.patch_size))}:"
        for method in methods:
            module = import_module(f"nnunet_semisup.trainers.{method.module}")
            trainer = getattr(module, method.trainer)
            batch = manager.batch_size
            step = Step(trainer, network, tuple(manager.patch_size), batch, batch)
            yield f"  {method.trainer}: {_told(*fitting(step, gigabytes), gigabytes)}"


def _told(choice: Step | None, needed: float, gigabytes: float) -> str:
    if choice is None:
        return (
            f"needs {needed:.1f} GiB at least, not {gigabytes:g}; plan for less with "
            "-gpu_memory_target and -overwrite_plans_name"
        )
    recomputed = f",recompute_activations={choice.again}" if choice.again else ""
    setting = f'{VARIABLE}="unlabeled_batch_size={choice.unlabeled}{recomputed}"'
    return f"{needed:.1f} GiB with {setting}"
