"""Checks of headers that must come before ITK reads a file.

ITK trusts the headers it reads. A damaged one may announce more voxels than there is memory for,
and a MetaImage header whose lists of numbers have the wrong length makes its reader write beyond
its buffers, which ends the whole process without a message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

META_ENDINGS = (".mha", ".mhd")
_META_HEADER_LIMIT = 1 << 16
_META_LINE = re.compile(r"[A-Za-z][A-Za-z0-9_]* ?=[\t\x20-\x7e]*")
_META_LISTS = {
    **dict.fromkeys(("DimSize", "ElementSpacing", "ElementSize"), 1),
    **dict.fromkeys(("Offset", "Position", "Origin", "CenterOfRotation"), 1),
    **dict.fromkeys(("TransformMatrix", "Rotation", "Orientation"), 2),
}
"""Lists of numbers with a length of ``NDims`` to this power."""
_META_TYPE = re.compile(r"MET_(U?(CHAR|SHORT|INT|LONG|LONG_LONG)|FLOAT|DOUBLE)(_ARRAY)?")
_MAXIMAL_COMPRESSION = 1100
"""Deflate shrinks nothing by more than 1032."""


def check_announced_size(path: Path, reader: sitk.ImageFileReader) -> str | None:
    """Why the voxels that a header announces cannot be in the file.

    Args:
        path: the file with header and voxels; headers of voxels elsewhere (.mhd) are not judged.
        reader: after ``ReadImageInformation``.
    """
    if path.suffix.lower() == ".mhd":
        return None
    voxels = math.prod(reader.GetSize()) * reader.GetNumberOfComponents()
    if voxels == 0:
        return "its header announces no voxel"
    there = path.stat().st_size
    if voxels > _MAXIMAL_COMPRESSION * there:
        return f"its header announces {voxels} voxels, which {there} bytes cannot hold"
    return None


def contradicting_headers(paths: Sequence[Path]) -> str | None:
    """A line about NIfTI files whose two affines differ; ``None`` if there is no such file."""
    nifti = [path for path in paths if path.name.endswith((".nii", ".nii.gz"))]
    number = sum(_contradicts_itself(path) for path in nifti)
    if not number:
        return None
    return (
        f"{number} of {len(nifti)} NIfTI files have a sform that contradicts their qform; the "
        "voxel size is that of the qform, as SimpleITK and so nnU-Net read it. Other programs may "
        "show these files otherwise"
    )


def _contradicts_itself(path: Path) -> bool:
    """Whether a header has two different affines; unreadable files are judged elsewhere."""
    try:
        header: Any = nibabel.load(path).header
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except Exception:  # whatever is wrong with the file is named when it is read as a whole
        return False
    return sform is not None and qform is not None and not np.allclose(sform, qform, atol=1e-2)


def check_meta_header(path: Path) -> str | None:
    """What is wrong with the text header of a MetaImage file; ``None`` if nothing is."""
    with path.open("rb") as file:
        start = file.read(_META_HEADER_LIMIT)
    values: dict[str, str] = {}
    for line in start.split(b"\n"):
        try:
            text = line.decode("ascii").rstrip()
        except UnicodeDecodeError:
            return "its header is no text"
        if not _META_LINE.fullmatch(text):
            return f"its header has the line {text[:40]!r}"
        key, _, value = text.partition("=")
        if key.strip() in values:
            return f"its header has {key.strip()} twice"
        values[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return _meta_fault(values)
    return "its header does not end with ElementDataFile"


def _meta_fault(values: dict[str, str]) -> str | None:
    dimensions = values.get("NDims", "")
    if not re.fullmatch(r"[1-4]", dimensions):
        return f"its header says NDims = {dimensions or 'nothing'}"
    if not _META_TYPE.fullmatch(values.get("ElementType", "")):
        return f"its header says ElementType = {values.get('ElementType', 'nothing')}"
    if not re.fullmatch(r"[1-9]\d{0,3}", values.get("ElementNumberOfChannels", "1")):
        return "its header has no usable ElementNumberOfChannels"
    for key, power in _META_LISTS.items():
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
