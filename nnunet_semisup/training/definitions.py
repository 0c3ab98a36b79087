"""Classes that define an attribute."""

from __future__ import annotations


def defining_classes(cls: type, name: str) -> list[type]:
    """Return the classes, ``cls`` first, in whose body an attribute is written."""
    return [base for base in cls.__mro__ if name in vars(base)]
