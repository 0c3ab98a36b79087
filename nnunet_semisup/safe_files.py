"""Read checkpoints and pickles without running code that they might hold."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Collection, Sequence
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_semisup import __version__
from nnunet_semisup.errors import UserError

KEY = "nnunet_semisup"
"""The one extra key of a checkpoint."""
LAYOUT = 1
"""Number of the layout of what is under it; a change that an earlier release misreads raises it."""

NUMBERS = "?bBhHiIlLqQefd"
"""Kinds of numpy's numbers that a checkpoint may hold."""
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_HARMLESS = {
    *(("numpy", name) for name in ("ndarray", "dtype")),
    *((module, name) for module in _MODULES for name in ("scalar", "_reconstruct")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    *(("builtins", name) for name in ("slice", "set", "frozenset", "complex", "range")),
    ("collections", "OrderedDict"),
}
"""What numbers, arrays and containers are made by in a pickle."""


def read_checkpoint_file(path: str | Path, device: Any = "cpu", mapped: bool = True) -> Any:
    """Return what ``torch.save`` wrote: tensors, numbers, texts, and containers of them.

    Args:
        path: of the file.
        device: where tensors are to be.
        mapped: leave tensors on the disk until they are used, where the format allows it.

    Raises:
        UserError: there is no such file, it is no checkpoint, it holds code, or a later release
            of this package wrote it in a layout that this one does not know.
    """
    if not isfile(path):
        raise UserError(f"{path}: there is no such file")
    import torch  # here, because commands that are asked for help have no use for it

    mmap = mapped and zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(_globals_of_numpy()):
            content = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    # Of other files, torch lets through whatever its unpickler meets.
    except Exception as error:
        raise UserError(f"{path}: cannot be read as a checkpoint ({_reason(error)})") from error
    _refuse_later_layout(path, content)
    return content


def lacking_keys(content: Any, needed: Sequence[str]) -> list[str]:
    """Return the keys that what was read has not; all of them where it is no checkpoint.

    Args:
        content: as :func:`read_checkpoint_file` returns it.
        needed: keys.
    """
    there = content if isinstance(content, dict) else {}
    return [key for key in needed if key not in there]


def _refuse_later_layout(path: str | Path, content: Any) -> None:
    """Refuse a checkpoint of an unknown layout; one that names none has the first."""
    own = content.get(KEY) if isinstance(content, dict) else None
    own = own if isinstance(own, dict) else {}
    layout = own.get("layout", 1)
    if not (isinstance(layout, int) and 1 <= layout <= LAYOUT):
        raise UserError(
            f"{path}: nnunet-semisup {own.get('version')} wrote it, in layout {layout} of its "
            f"checkpoints; {__version__}, installed here, reads layouts 1 to {LAYOUT}. Install "
            f"nnunet-semisup {own.get('version')} or a later release"
        )


def _reason(error: Exception) -> str:
    """Return in one line why a file was not read."""
    if culprit := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it holds {culprit[1]}, which is code"
    return (str(error) or type(error).__name__).splitlines()[0]


def _globals_of_numpy() -> list[Any]:
    """Return what numpy's numbers and arrays are made by, under the names of numpy 1 and 2.

    nnU-Net's log has numpy's numbers, and our random states have arrays; torch (2.5 to 2.14) takes
    neither by itself where ``weights_only`` is set.
    """
    scalar, array = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
    makers = [_named(make, module) for make in (scalar, array) for module in _MODULES]
    kinds = [type(np.dtype(kind)) for kind in NUMBERS]
    return [*makers, np.ndarray, np.dtype, *dict.fromkeys(kinds)]


def _named(make: Any, module: str) -> Callable[..., Any]:
    def made(*args: Any) -> Any:
        return make(*args)

    made.__module__, made.__qualname__, made.__name__ = module, make.__name__, make.__name__
    return made


class _Inert:
    """Stand for an object of a pickle whose class is not made."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def ignore(self, *args: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = ignore


class _Unpickler(pickle.Unpickler):
    """Make numbers, arrays and containers; whatever else is named becomes an inert object."""

    def __init__(self, file: Any, allowed: Collection[str]) -> None:
        super().__init__(file)
        self.allowed = allowed
        self.others: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        """Return what a harmless name stands for, else the inert class."""
        if (module, name) in _HARMLESS:
            return super().find_class(module, name)
        if f"{module}.{name}" not in self.allowed:
            self.others.add(f"{module}.{name}")
        return _Inert


def read_pickle(path: str | Path, allowed: Collection[str] = ()) -> tuple[Any, list[str]]:
    """Return a pickle's content, and the names in it that are neither numbers nor containers.

    Objects of those names are inert: nothing of them is imported or called.

    Args:
        path: of the file.
        allowed: names that are not returned; their objects are inert, too.

    Raises:
        UserError: the file cannot be read as a pickle.
    """
    try:
        with open(path, "rb") as file:
            unpickler = _Unpickler(file, allowed)
            return unpickler.load(), sorted(unpickler.others)
    # Damaged pickles raise nearly anything.
    except Exception as error:
        raise UserError(f"{path}: cannot be read as a pickle ({_reason(error)})") from error
