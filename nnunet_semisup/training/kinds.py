"""Types of hyper-parameters: read from a class body, converted from text, checked and described."""

from __future__ import annotations

import ast
import functools
import inspect
import operator
import sys
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from nnunet_semisup.training import ranges

_UNIONS = (Union, types.UnionType)


def declared(cls: type, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the annotated public attributes with a value of a class and its bases: name to type.

    nnU-Net's own classes are left out; so is what a class says to be a ``ClassVar``. A subclass
    that gives a name another default, ``unlabeled_weight: float = 0.5``, keeps its range.

    Args:
        cls: the class.
        known: types of names that it has from elsewhere; they come first.
    """
    found = dict(known or {})
    for base in reversed(cls.__mro__):
        if base.__module__.split(".")[0] in ("builtins", "nnunetv2"):
            continue
        for name, kind in _annotations(base).items():
            if name[0] == "_" or not hasattr(base, name) or get_origin(kind) is ClassVar:
                continue
            if name not in found or _without_range(found[name]) != kind:
                found[name] = kind
    return found


def _without_range(kind: Any) -> Any:
    if get_origin(kind) in _UNIONS:
        return functools.reduce(operator.or_, map(_without_range, get_args(kind)))
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _annotations(cls: type) -> dict[str, Any]:
    """Return the class's own annotations as types.

    nnU-Net forgets the modules of ``nnUNet_extTrainer``; what they import is found in methods.
    """
    module = sys.modules.get(cls.__module__)
    methods = (_function(member) for member in vars(cls).values())
    names = vars(module) if module else next((m.__globals__ for m in methods if m), {})
    known = {**vars(typing), **vars(ranges), **names}
    return inspect.get_annotations(cls, globals=known, eval_str=True)


def _function(member: Any) -> Any:
    """Return the function in a method of any kind, or ``None``."""
    inner = getattr(member, "__func__", getattr(member, "fget", member))
    return inspect.unwrap(inner) if inspect.isfunction(inner) else None


def convert(text: str, kind: Any) -> Any:
    """Return ``text`` as a value of type ``kind``.

    Raises:
        ValueError: it is not one; the message goes on after name and value.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    if kind is str and not isinstance(value, str):
        value = text
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if text in choices:
        return text
    result, fits = coerce(value, kind)
    if fits:
        return result
    if choices:
        raise ValueError(f"must be one of {', '.join(map(str, choices))}")
    raise ValueError(f"is not of type {describe(kind)}")


def coerce(value: Any, kind: Any) -> tuple[Any, bool]:
    """Return a value as one of type ``kind``, and whether it fits; ranges do not matter here."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return coerce(value, arguments[0])
    if origin is Literal:
        return value, any(value == one and type(value) is type(one) for one in arguments)
    if origin in _UNIONS:
        for option in arguments:
            result, fits = coerce(value, option)
            if fits:
                return result, True
        return value, False
    if origin is tuple:
        items = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        converted = [coerce(item, arguments[0]) for item in items]
        return tuple(c[0] for c in converted), all(c[1] for c in converted)
    if kind is type(None):
        return value, value is None
    if isinstance(origin, type):
        return value, isinstance(value, origin)
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return (float(value) if number else value), number
    return value, type(value) is kind


def range_fault(value: Any, kind: Any) -> str | None:
    """Return what a value of the right type must be and is not; ``None`` if it is in its range."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in _UNIONS:
        fitting = [option for option in arguments if coerce(value, option)[1]]
        return range_fault(value, fitting[0]) if fitting else None
    if origin is tuple:
        return next((f for item in value if (f := range_fault(item, arguments[0]))), None)
    if origin is Literal and value not in arguments:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is not Annotated or value is None:
        return None
    demands = (r.demand for r in arguments[1:] if hasattr(r, "allows") and not r.allows(value))
    return next(demands, None)


def describe(kind: Any) -> str:
    """Return a type as a person writes it: ``float (0 to 1) or None``, ``list of int``."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in _UNIONS:
        return " or ".join(describe(k) for k in arguments)
    if origin is Annotated:
        return f"{describe(arguments[0])} ({arguments[1]})"
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin is tuple:
        return f"list of {describe(arguments[0])}"
    return "None" if kind is type(None) else kind.__name__
