"""NRRD headers and their voxel size (https://teem.sourceforge.net/nrrd/format.html).

SimpleITK 2.5.7 takes 1 for a voxel size that is absent or NaN, also where ``axis mins`` and
``axis maxs`` give the extent, and the numbers of ``space units: "m"`` for millimetres.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunet_semisup.headers.axes import are_sheared, sheared_fault

ENDINGS = (".nrrd", ".nhdr")
_LIMIT = 1 << 20
_NO_LENGTH = frozenset(
    ("time", "list", "vector", "point", "normal", "scalar", "stub", "complex", "quaternion")
)
"""Kinds of axes that need no length; those with a number, such as ``RGB-color``, need none."""
_UNKNOWN = ("", "???", "none")
_MILLIMETRE = {"", "mm", "millimeter", "millimeters", "millimetre", "millimetres", "???", "none"}


def nrrd_fields(path: Path) -> dict[str, str]:
    """Read the fields of a header, names in lower case; key/value pairs (``:=``) are left out."""
    fields = {}
    with path.open("rb") as file:
        while text := file.readline(_LIMIT).decode("latin-1").rstrip("\r\n"):
            name, separator, value = text.partition(":")
            if separator and not value.startswith("=") and not name.startswith("#"):
                fields[name.strip().lower()] = value.strip()
    return fields


def misreading(path: Path) -> str | None:
    """Return why SimpleITK, and so nnU-Net, would take other lengths than the header gives."""
    fields = nrrd_fields(path)
    axes = _axes_with_length(fields)
    absent = [axis for axis in axes if axis not in _lengths(fields)]
    number = len(fields.get("sizes", "").split())
    if (absent and len(axes) - len(absent) < min(number, 3)) or not axes:
        extent = "axis mins" in fields or "axis maxs" in fields or "axismins" in fields
        more = "; of axis mins and maxs alone nnU-Net's reader makes 1 mm" if extent else ""
        return (
            "its header gives no voxel size (space directions or spacings) for axis "
            f"{', '.join(str(axis) for axis in absent) or '0'}{more}. Save it with one"
        )
    units = re.findall(r'"([^"]*)"', fields.get("space units", ""))
    by_axis = re.findall(r'"([^"]*)"', fields.get("units", ""))
    units += [unit for axis, unit in enumerate(by_axis) if axis in axes]
    other = [unit for unit in units if unit.strip().lower() not in _MILLIMETRE]
    if other:
        return (
            f"its header gives lengths in '{other[0]}' (space units), SimpleITK and so nnU-Net "
            "takes the numbers for millimetres; save it in mm"
        )
    vectors = [vector for vector in _directions(fields) if vector]
    if len(vectors) > 1 and are_sheared(np.array(vectors).T):
        return sheared_fault("space directions", "takes them for perpendicular")
    return None


def _axes_with_length(fields: Mapping[str, str]) -> list[int]:
    """Return the axes of space: all but those whose kind or absent direction says otherwise."""
    number = len(fields.get("sizes", "").split())
    kinds = fields.get("kinds", "").split()
    directions = _directions(fields)
    dimensions = max((len(vector) for vector in directions if vector), default=number)
    found = []
    for axis in range(number):
        kind = kinds[axis].lower() if axis < len(kinds) else ""
        if kind in _NO_LENGTH or "-" in kind:
            continue
        has_none = axis < len(directions) and directions[axis] is None
        if has_none and kind in _UNKNOWN and number > dimensions:
            continue
        found.append(axis)
    return found


def _directions(fields: Mapping[str, str]) -> list[tuple[float, ...] | None]:
    """Return the vectors of ``space directions``; ``None`` where an axis has none."""
    parts = re.findall(r"none|\([^)]*\)", fields.get("space directions", "").lower())
    return [None if part == "none" else _floats(part.strip("()").split(",")) for part in parts]


def _lengths(fields: Mapping[str, str]) -> dict[int, float]:
    """Return the length of every axis that has a finite one."""
    lengths = [math.nan if v is None else float(np.linalg.norm(v)) for v in _directions(fields)]
    lengths = lengths or list(_floats(fields.get("spacings", "").split()))
    return {axis: abs(n) for axis, n in enumerate(lengths) if math.isfinite(n) and n != 0}


def _floats(parts: Sequence[str]) -> tuple[float, ...]:
    """Return numbers; NaN for what is none."""
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        return (math.nan,)
