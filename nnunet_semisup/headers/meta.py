"""MetaImage headers, checked before ITK sees them.

A header whose lists of numbers have the wrong length makes ITK's reader write beyond its buffers,
which ends the whole process without a message. Keys that MetaIO does not know are copies of another
file's header (``dim[0] = 3`` of NIfTI, ``0008|0016 = ...`` of DICOM), which SimpleITK writes along.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nnunet_semisup.headers.axes import are_sheared, sheared_fault

ENDINGS = (".mha", ".mhd")
_HEADER_LIMIT = 1 << 22
_LINE = re.compile(rb"[\x21-\x7e][\x20-\x7e]* *=[\t\x20-\xff]*")
_MATRICES = ("TransformMatrix", "Rotation", "Orientation")
_LISTS = {
    **dict.fromkeys(("DimSize", "ElementSpacing", "ElementSize"), 1),
    **dict.fromkeys(("Offset", "Position", "Origin", "CenterOfRotation"), 1),
    **dict.fromkeys(_MATRICES, 2),
}
"""Lists of numbers with a length of ``NDims`` to this power."""
_SCALING = {"ElementToIntensityFunctionSlope": 1.0, "ElementToIntensityFunctionOffset": 0.0}
_OWN = {*_LISTS, *_SCALING, "NDims", "ElementType", "ElementNumberOfChannels", "DistanceUnits"}
_TYPE = re.compile(r"MET_(U?(CHAR|SHORT|INT|LONG|LONG_LONG)|FLOAT|DOUBLE)(_ARRAY)?")


def check_meta_header(path: Path) -> str | None:
    """Return what is damaged in the text header of a file; ``None`` if nothing is."""
    fields = _fields(path)
    return fields if isinstance(fields, str) else _damage(fields)


def misreading(path: Path) -> str | None:
    """Return why SimpleITK, and so nnU-Net, would read another scan than the header says.

    SimpleITK 2.5.7 takes 1 mm for an absent voxel size and looks neither at ``DistanceUnits`` nor
    at the function from stored values to intensities.
    """
    fields = _fields(path)
    if isinstance(fields, str) or _damage(fields):
        return None
    if not fields.keys() & {"ElementSpacing", "ElementSize"}:
        return (
            "its header gives no voxel size (ElementSpacing), of which nnU-Net makes 1 mm. Save it "
            "with one"
        )
    unit = fields.get("DistanceUnits", "mm")
    if unit.lower() not in ("mm", "?", ""):
        return (
            f"its header gives lengths in '{unit}' (DistanceUnits), SimpleITK and so nnU-Net takes "
            "the numbers for millimetres; save it in mm"
        )
    for key, neutral in _SCALING.items():
        if key in fields and not (_are_numbers(fields[key], 1) and float(fields[key]) == neutral):
            return (
                f"its header says {key} = {fields[key]}, which SimpleITK and so nnU-Net does not "
                f"apply; save it with the intensities themselves, and {key} = {neutral:g}"
            )
    matrix = next((fields[key] for key in _MATRICES if key in fields), None)
    if matrix is not None and are_sheared(_square(matrix)):
        return sheared_fault("TransformMatrix", "takes them for perpendicular")
    return None


def _square(text: str) -> np.ndarray:
    """Return the matrix of numbers that were checked; its rows are the axes, so it is turned."""
    numbers = np.array([float(part) for part in text.split()])
    side = math.isqrt(len(numbers))
    return numbers.reshape(side, side).T


def _fields(path: Path) -> dict[str, str] | str:
    """Return MetaIO's own fields, or what keeps the header from being one."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while file.tell() < _HEADER_LIMIT and (line := file.readline(_HEADER_LIMIT)):
            line = line.rstrip(b"\r\n")
            if not _LINE.fullmatch(line):
                return f"its header has the line {line[:40].decode('ascii', 'replace')!r}"
            name, _, rest = line.partition(b"=")
            key, value = name.decode("ascii").strip(), rest.decode("latin-1").strip()
            if key == "ElementDataFile":
                return fields
            if key in _OWN and key in fields:
                return f"its header has {key} twice"
            if key in _OWN:
                fields[key] = value
    return "its header does not end with ElementDataFile"


def _damage(values: Mapping[str, str]) -> str | None:
    dimensions = values.get("NDims", "")
    if not re.fullmatch(r"[1-4]", dimensions):
        return f"its header says NDims = {dimensions or 'nothing'}"
    if not _TYPE.fullmatch(values.get("ElementType", "")):
        return f"its header says ElementType = {values.get('ElementType', 'nothing')}"
    if not re.fullmatch(r"[1-9]\d{0,3}", values.get("ElementNumberOfChannels", "1")):
        return "its header has no usable ElementNumberOfChannels"
    for key, power in _LISTS.items():
        if key in values and not _are_numbers(values[key], int(dimensions) ** power):
            return f"its header says {key} = {values[key][:40]}"
    if not all(re.fullmatch(r"[1-9]\d{0,9}", n) for n in values.get("DimSize", "-").split()):
        return f"its header says DimSize = {values.get('DimSize', 'nothing')[:40]}"
    return None


def _are_numbers(text: str, count: int) -> bool:
    try:
        numbers = [float(part) for part in text.split()]
    except ValueError:
        return False
    return len(numbers) == count and all(math.isfinite(n) for n in numbers)
