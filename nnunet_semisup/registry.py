"""The table of methods: one row a trainer, importable without torch.

The command line, the docs and the contract tests all read this table, so a trainer that is listed
here is documented and tested, and one that is not does not exist.
"""

from __future__ import annotations

from nnunet_semisup.method import FAMILIES, Method
from nnunet_semisup.rows.labels_alone import LABELS_ALONE
from nnunet_semisup.rows.members import MEMBERS
from nnunet_semisup.rows.one_network import ONE_NETWORK
from nnunet_semisup.rows.text import TEXT

__all__ = ["FAMILIES", "METHODS", "Method", "find_method", "method_of"]

METHODS: tuple[Method, ...] = (*LABELS_ALONE, *ONE_NETWORK, *MEMBERS, *TEXT)


def method_of(trainer: type) -> Method | None:
    """Return the row of a class, or of its nearest base with one; ``None`` where none has."""
    rows = {method.trainer: method for method in METHODS}
    names = (base.__name__ for base in trainer.__mro__)
    return next((rows[name] for name in names if name in rows), None)


def find_method(trainer: str) -> Method:
    """Return the row of ``trainer``.

    Raises:
        KeyError: no such trainer; the message lists those there are.
    """
    for method in METHODS:
        if method.trainer == trainer:
            return method
    raise KeyError(f"{trainer} is not one of {', '.join(m.trainer for m in METHODS)}")
