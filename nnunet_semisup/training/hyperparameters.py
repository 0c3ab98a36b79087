"""Hyper-parameters are typed class attributes; ``nnUNet_semisup_set`` overrides them.

``nnUNet_semisup_set="num_epochs=250,qpm_epsilon=0.5,confidence_threshold=None"``: names and values
as in the class body. Unknown names and values of the wrong type are errors that list what is valid.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import sys
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Union, get_args, get_origin

from nnunet_semisup.errors import UserError

VARIABLE = "nnUNet_semisup_set"

CONFIG_NAME = "semisup_config.json"
"""File in a fold's folder that records what was used."""

STOCK: dict[str, Any] = {
    "num_epochs": int,
    "num_iterations_per_epoch": int,
    "num_val_iterations_per_epoch": int,
    "initial_lr": float,
    "weight_decay": float,
    "oversample_foreground_percent": float,
    "probabilistic_oversampling": bool,
    "enable_deep_supervision": bool,
    "save_every": int,
}
"""The attributes that nnUNetTrainer sets in its constructor and that a run may override."""

POSITIVE = (
    "num_epochs",
    "num_iterations_per_epoch",
    "num_val_iterations_per_epoch",
    "save_every",
    "unlabeled_batch_size",
    "cpu_threads",
)
OF_THE_MACHINE = ("cpu_threads",)
"""What a continued run takes from its own machine, not from the run before."""

OF_THE_TEACHER = ("ema_decay", "predict_with_teacher")
"""What a trainer without a teacher does not have."""

FRACTIONS = ("oversample_foreground_percent",)

NOT_NEGATIVE = ("initial_lr", "weight_decay", "oversample_foreground_percent", "seed")


def split_assignments(text: str) -> dict[str, str]:
    """``"a=1,b=(2,3)"`` as ``{"a": "1", "b": "(2,3)"}``; commas inside brackets do not separate.

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


def declared(cls: type) -> dict[str, Any]:
    """The hyper-parameters of a trainer class: name to type, nnU-Net's own included."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.split(".")[0] in ("builtins", "nnunetv2"):
            continue
        for name, kind in _annotations(base).items():
            if name[0] != "_" and hasattr(base, name) and get_origin(kind) is not ClassVar:
                found[name] = kind
    if not getattr(cls, "use_teacher", True):
        found = {name: kind for name, kind in found.items() if name not in OF_THE_TEACHER}
    return {**STOCK, **found}


def _annotations(cls: type) -> dict[str, Any]:
    """The class's own annotations as types.

    nnU-Net forgets the modules of ``nnUNet_extTrainer``; what they import is found in methods.
    """
    module = sys.modules.get(cls.__module__)
    methods = (inspect.unwrap(m) for m in vars(cls).values() if inspect.isfunction(m))
    names = vars(module) if module else next((m.__globals__ for m in methods), {})
    return inspect.get_annotations(cls, globals={**vars(typing), **names}, eval_str=True)


def defaults(cls: type) -> dict[str, Any]:
    """The values that a trainer class itself gives its hyper-parameters, nnU-Net's included."""
    return {name: getattr(cls, name) for name in declared(cls) if hasattr(cls, name)}


def convert(name: str, text: str, kind: Any) -> Any:
    """``text`` as a value of type ``kind``.

    Raises:
        UserError: it is not one.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    if kind is str and not isinstance(value, str):
        value = text
    result, fits = _coerce(value, kind)
    if not fits:
        raise UserError(f"{VARIABLE}: {name}={text} is not of type {describe(kind)}.")
    return result


def _coerce(value: Any, kind: Any) -> tuple[Any, bool]:
    if get_origin(kind) in (Union, types.UnionType):
        for option in get_args(kind):
            result, fits = _coerce(value, option)
            if fits:
                return result, True
        return value, False
    if get_origin(kind) is tuple:
        items = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        converted = [_coerce(item, get_args(kind)[0]) for item in items]
        return tuple(c[0] for c in converted), all(c[1] for c in converted)
    if kind is type(None):
        return value, value is None
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return (float(value) if number else value), number
    return value, type(value) is kind


def describe(kind: Any) -> str:
    """A type as a person writes it: ``float``, ``float or None``, ``list of int``."""
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(describe(k) for k in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list of {describe(get_args(kind)[0])}"
    return "None" if kind is type(None) else kind.__name__


def read_overrides(cls: type, text: str | None = None) -> dict[str, Any]:
    """What ``nnUNet_semisup_set`` (or ``text``) overrides in ``cls``: name to typed value.

    Raises:
        UserError: naming every unknown name, or every value of the wrong type, count below 1,
            negative rate and negative seed; or an unreadable part.
    """
    assignments = split_assignments(os.environ.get(VARIABLE, "") if text is None else text)
    known = declared(cls)
    unknown = [name for name in assignments if name not in known]
    if unknown:
        valid = "\n".join(f"  {name}: {describe(kind)}" for name, kind in known.items())
        raise UserError(
            f"{VARIABLE}: {cls.__name__} has no hyper-parameter {', '.join(unknown)}. "
            f"It has:\n{valid}"
        )
    values: dict[str, Any] = {}
    faults = []
    for name, value in assignments.items():
        try:
            values[name] = convert(name, value, known[name])
        except UserError as error:
            faults.append(str(error))
    for names, least in ((POSITIVE, 1), (NOT_NEGATIVE, 0)):
        faults += [
            f"{VARIABLE}: {name}={values[name]} must be at least {least}."
            for name in names
            if values.get(name) is not None and not values[name] >= least
        ]
    faults += [
        f"{VARIABLE}: {name}={values[name]} is a fraction, at most 1."
        for name in FRACTIONS
        if values.get(name, 0) > 1
    ]
    if faults:
        raise UserError("\n".join(faults))
    return values


def read_recorded(cls: type, folder: str) -> dict[str, Any]:
    """The hyper-parameters of a run that is continued, from :data:`CONFIG_NAME`.

    Only what ``cls`` declares and what has the declared type; nothing where the file is missing or
    unreadable, since the checkpoint itself has them too.
    """
    try:
        text = Path(folder, CONFIG_NAME).read_text(encoding="utf-8")
        recorded = json.loads(text)["hyperparameters"]
        known = declared(cls)
        pairs = {
            name: _coerce(value, known[name])
            for name, value in recorded.items()
            if name in known and name not in OF_THE_MACHINE
        }
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return {}
    return {name: value for name, (value, fits) in pairs.items() if fits}


def forced_patches(batch_size: int, fraction: float) -> int:
    """Return how many patches of a batch nnU-Net 2.8.1 centres on foreground: its last ones.

    Args:
        batch_size: labeled patches a step, of all GPUs.
        fraction: ``oversample_foreground_percent``, a step function of which the number is.
    """
    return batch_size - round(batch_size * (1 - fraction))


def require_range(values: Mapping[str, Any], name: str, low: float, high: float) -> None:
    """Raises a UserError unless ``low <= values[name] <= high``."""
    if not low <= values[name] <= high:
        raise UserError(f"{name}={values[name]} must be between {low:g} and {high:g}.")


def require_one_of(values: Mapping[str, Any], name: str, allowed: Collection[str]) -> None:
    """Raises a UserError unless ``values[name]`` is one of ``allowed``."""
    if values[name] not in allowed:
        raise UserError(f"{name}={values[name]} must be one of {', '.join(allowed)}.")
