"""Hyper-parameters: typed class attributes, which ``nnUNet_semisup_set`` overrides.

``nnUNet_semisup_set="num_epochs=250,qpm_epsilon=0.5,confidence_threshold=None"``: names and values
as in the class body. Unknown names, values of the wrong type and values out of range are errors
that list what is valid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from nnunet_semisup.errors import UserError
from nnunet_semisup.training.kinds import coerce, convert, declared, describe, range_fault
from nnunet_semisup.training.ranges import AtLeast, Count, Fraction, Weight

VARIABLE = "nnUNet_semisup_set"

CONFIG_NAME = "semisup_config.json"
"""File in a fold's folder that records what was used."""

Seed = Annotated[int, AtLeast(0)]

STOCK: dict[str, Any] = {
    "num_epochs": Count,
    "num_iterations_per_epoch": Count,
    "num_val_iterations_per_epoch": Count,
    "initial_lr": Weight,
    "weight_decay": Weight,
    "oversample_foreground_percent": Fraction,
    "probabilistic_oversampling": bool,
    "enable_deep_supervision": bool,
    "save_every": Count,
}
"""The attributes that nnUNetTrainer sets in its constructor and that a run may override."""

OF_THE_MACHINE = ("cpu_threads",)
"""What a continued run takes from its own machine, not from the run before."""


def split_assignments(text: str) -> dict[str, str]:
    """Split ``"a=1,b=(2,3)"`` into ``{"a": "1", "b": "(2,3)"}``; brackets keep their commas.

    Raises:
        UserError: a part without ``=``, or a name given twice.
    """
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    result: dict[str, str] = {}
    for part in (p.strip() for p in parts):
        if not part:
            continue
        name, equals, value = (s.strip() for s in part.partition("="))
        if not equals or not name or not value:
            raise UserError(
                f"{VARIABLE}: cannot read '{part}'. Write name=value, several separated by commas, "
                f'for example {VARIABLE}="num_epochs=250,ema_decay=0.99".'
            )
        if name in result:
            raise UserError(f"{VARIABLE}: '{name}' is given twice. Keep one of the two.")
        result[name] = value
    return result


def hyperparameters_of(cls: type) -> dict[str, Any]:
    """Return the hyper-parameters of a trainer class, nnU-Net's own included: name to type."""
    return declared(cls, STOCK)


@dataclass(frozen=True)
class Settings:
    """Hold the hyper-parameters of one training.

    Attributes:
        kinds: name to type.
        values: name to value; those that only nnU-Net's constructor gives a value are not in it.
        given: the part of them that ``nnUNet_semisup_set`` set.
    """

    kinds: Mapping[str, Any]
    values: Mapping[str, Any]
    given: Mapping[str, Any]

    @classmethod
    def of(cls, trainer: type, text: str | None = None) -> Settings:
        """Read a trainer class's values and what ``nnUNet_semisup_set`` (or ``text``) overrides.

        Raises:
            UserError: naming every unknown name, or every value of the wrong type or out of range;
                or an unreadable part.
        """
        assignments = split_assignments(os.environ.get(VARIABLE, "") if text is None else text)
        kinds = hyperparameters_of(trainer)
        given: dict[str, Any] = {}
        faults = []
        for name, value in assignments.items():
            if name not in kinds:
                continue
            try:
                given[name] = convert(value, kinds[name])
            except ValueError as error:
                faults.append(f"{VARIABLE}: {name}={value} {error}.")
        own = {name: getattr(trainer, name) for name in kinds if hasattr(trainer, name)}
        settings = cls(kinds, {**own, **given}, given)
        faults += settings.faults()
        if unknown := [name for name in assignments if name not in kinds]:
            valid = "\n".join(f"  {name}: {describe(kind)}" for name, kind in kinds.items())
            faults.append(
                f"{VARIABLE}: {trainer.__name__} has no hyper-parameter "
                f"{', '.join(map(partial(_with_close, kinds), unknown))}. It has:\n{valid}"
            )
        if faults:
            raise UserError("\n".join(faults))
        return settings

    def faults(self) -> list[str]:
        """Say which values are out of their range, and what is allowed."""
        found = ((name, range_fault(v, self.kinds[name])) for name, v in self.values.items())
        return [
            f"{f'{VARIABLE}: ' if name in self.given else ''}{name}={self.values[name]} must be "
            f"{demand}."
            for name, demand in found
            if demand is not None
        ]

    def continuing(self, recorded: Mapping[str, Any]) -> Settings:
        """Return the settings with which a recorded run goes on.

        Its values count, but for what ``nnUNet_semisup_set`` sets anew and what is the machine's;
        the seed is always the run's. Names and values of other releases that do not fit are left
        out.

        Args:
            recorded: name to value, from a checkpoint or from :func:`read_recorded`.

        Raises:
            UserError: a value is out of its range.
        """
        settings = replace(self, values={**self.values, **self.taken_from(recorded)})
        if faults := settings.faults():
            raise UserError("\n".join(faults))
        return settings

    def taken_from(self, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recorded values that count in a run that goes on, as :meth:`continuing`."""
        taken = {}
        for name, value in recorded.items():
            known = name in self.kinds and name not in OF_THE_MACHINE
            if known and (name not in self.given or name == "seed"):
                result, fits = coerce(value, self.kinds[name])
                if fits:
                    taken[name] = result
        return taken

    def with_defaults(self, values: Mapping[str, Any]) -> Settings:
        """Return the settings with ``values`` where neither the class nor the run has any."""
        return replace(self, values={**values, **self.values})

    def changes(self, recorded: Mapping[str, Any]) -> list[str]:
        """Say what ``nnUNet_semisup_set`` sets anew and to what, compared with a recorded run."""
        return [
            f"{name} was {recorded[name]} and is now {value}"
            for name, value in self.given.items()
            if name in recorded and name != "seed" and recorded[name] != value
        ]


def read_recorded(folder: str) -> dict[str, Any]:
    """Return the hyper-parameters of the run in a fold's folder, from :data:`CONFIG_NAME`.

    Empty where the file is missing or unreadable, since the checkpoint itself has them too.
    """
    try:
        recorded = json.loads(Path(folder, CONFIG_NAME).read_text(encoding="utf-8"))
        return dict(recorded["hyperparameters"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _with_close(kinds: Collection[str], name: str) -> str:
    """Return an unknown name with the one that may have been meant."""
    close = get_close_matches(name, kinds, 1)
    return f"{name} (is {close[0]} meant?)" if close else name


def forced_patches(batch_size: int, fraction: float) -> int:
    """Return how many patches of a batch nnU-Net 2.8.1 centres on foreground: its last ones.

    Args:
        batch_size: labeled patches a step, of all GPUs.
        fraction: ``oversample_foreground_percent``, a step function of which the number is.
    """
    return batch_size - round(batch_size * (1 - fraction))
