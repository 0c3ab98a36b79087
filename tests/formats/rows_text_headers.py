"""NRRD and MetaImage written line by line by their specifications, and GIPL by its header."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.formats.row import COMMANDS, Row

_NRRD_TYPES = {np.uint8: "uchar", np.int16: "short", np.uint16: "ushort", np.float32: "float"}
_META_TYPES = {np.uint8: "UCHAR", np.int16: "SHORT", np.uint16: "USHORT", np.float32: "FLOAT"}
_IDENTITY = ((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0))
_FROM_RAS = ((-1.0, 0, 0), (0, -1.0, 0), (0, 0, 1.0))


def write_nrrd(path: Path, stored: np.ndarray, lines: Sequence[str], **options: str) -> None:
    """Write a file with ``lines`` after type and sizes."""
    encoding, endian = options.get("encoding", "raw"), options.get("endian", "little")
    start = [
        "NRRD0005",
        f"type: {_NRRD_TYPES[stored.dtype.type]}",
        f"dimension: {stored.ndim}",
        f"sizes: {' '.join(map(str, stored.shape[::-1]))}",
        f"encoding: {encoding}",
        f"endian: {endian}",
    ]
    data = stored.astype(stored.dtype.newbyteorder("<" if endian == "little" else ">")).tobytes()
    data = gzip.compress(data) if encoding == "gzip" else data
    path.write_bytes(("\n".join([*start, *lines]) + "\n\n").encode() + data)


def write_meta(path: Path, stored: np.ndarray, lines: Sequence[str], **options: bool) -> None:
    """Write a file with ``lines`` between the dimension and the type."""
    big, compressed = options.get("big", False), options.get("compressed", False)
    data = stored.astype(stored.dtype.newbyteorder(">" if big else "<")).tobytes()
    data = zlib.compress(data) if compressed else data
    start = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        f"BinaryDataByteOrderMSB = {big}",
        f"CompressedData = {compressed}",
        *([f"CompressedDataSize = {len(data)}"] if compressed else []),
        f"DimSize = {' '.join(map(str, stored.shape[::-1]))}",
    ]
    end = [f"ElementType = MET_{_META_TYPES[stored.dtype.type]}", "ElementDataFile = LOCAL"]
    path.write_bytes(("\n".join([*start, *lines, *end]) + "\n").encode("latin-1") + data)


def write_gipl(path: Path, stored: np.ndarray, spacing: Sequence[float]) -> None:
    """Write a file: 256 bytes of header, everything big endian."""
    made = bytearray(256)
    struct.pack_into(">4H", made, 0, *stored.shape[::-1], 1)
    struct.pack_into(">H", made, 8, {np.uint8: 8, np.int16: 15}[stored.dtype.type])
    struct.pack_into(">4f", made, 10, *spacing, 1)
    struct.pack_into(">I", made, 252, 0xEFFFE9B0)
    path.write_bytes(bytes(made) + stored.astype(stored.dtype.newbyteorder(">")).tobytes())


def _nrrd(says: str, lines: Sequence[str], means: str = "", **options: Any) -> Row:
    options.setdefault("direction", _IDENTITY)
    how = {name: options.pop(name) for name in ("encoding", "endian") if name in options}
    return Row("NRRD", says, ".nrrd", partial(write_nrrd, lines=lines, **how), means, **options)


def _meta(says: str, lines: Sequence[str], means: str = "", **options: Any) -> Row:
    options.setdefault("direction", _IDENTITY)
    how = {name: options.pop(name) for name in ("big", "compressed") if name in options}
    return Row("MetaImage", says, ".mha", partial(write_meta, lines=lines, **how), means, **options)


def _refuse(word: str) -> dict[str, Any]:
    return {"refused": COMMANDS, "fault": word, "direction": None}


_VECTORS = "space directions: (2,0,0) (0,2.5,0) (0,0,3)"
_LPS = ["space: left-posterior-superior", _VECTORS, "space origin: (5,6,7)"]
_SPACINGS = "ElementSpacing = 2 2.5 3"
_NIFTI_KEYS = ["dim[0] = 3", "pixdim[1] = 9", "qform_code_name = NIFTI_XFORM_UNKNOWN",
               "scl_slope = 0", "srow_x = -9 0 0 5", "xyzt_units = 3", "bitpix = 16",
               "vox_offset = 352", "descrip = "]  # fmt: skip
_DICOM_KEYS = ["0008|0016 = 1.2.840.10008.5.1.4.1.1.2", "0010|0010 = M\xfcller^Eva",
               "0018|0050 = 5", "0028|0030 = 9\\9"]  # fmt: skip
_UNTOLD: Callable[[str], dict[str, Any]] = lambda word: {"spacing": None, **_refuse(word)}  # noqa: E731

ROWS = [
    _nrrd("space directions, LPS", _LPS),
    _nrrd("space directions, RAS", ["space: right-anterior-superior", *_LPS[1:]], "x, y mirrored",
          direction=_FROM_RAS),
    _nrrd("space directions, LAS", ["space: left-anterior-superior", *_LPS[1:]], "y mirrored",
          direction=((1.0, 0, 0), (0, -1.0, 0), (0, 0, 1.0))),
    _nrrd("space directions, oblique",
          [_LPS[0], "space directions: (0,2,0) (-2.5,0,0) (0,0,3)", _LPS[2]],
          direction=((0, -1.0, 0), (1.0, 0, 0), (0, 0, 1.0))),
    _nrrd("space directions, space dimension alone", ["space dimension: 3", *_LPS[1:]],
          "axes open", direction=None),
    _nrrd("spacings", ["spacings: 2 2.5 3"], "axes open", direction=None),
    _nrrd("spacings and axis mins", ["spacings: 2 2.5 3", "axis mins: 1 1 1"], "axes open",
          direction=None),
    _nrrd("spacings, one negative", ["spacings: -2 2.5 3"], "axes open", direction=None),
    _nrrd("no spacing", [], "no voxel size", **_UNTOLD("gives no voxel size")),
    _nrrd("spacings NaN", ["spacings: nan 2.5 3"], "no voxel size",
          **_UNTOLD("gives no voxel size")),
    _nrrd("space without directions", [_LPS[0]], "no voxel size", **_UNTOLD("gives no voxel size")),
    _nrrd("space directions, one none", [_LPS[0], "space directions: none (0,2.5,0) (0,0,3)"],
          "no voxel size", **_UNTOLD("gives no voxel size")),
    _nrrd("axis mins and maxs alone", ["axis mins: 0 0 0", "axis maxs: 12 12.5 21"],
          "extent of 6 x 5 x 7 voxels", **_refuse("axis mins and maxs")),
    _nrrd("thicknesses alone", ["thicknesses: 2 2.5 3"], "no voxel size",
          **_UNTOLD("gives no voxel size")),
    _nrrd("space directions, sheared", [_LPS[0],
          "space directions: (2,0,0) (0.5,2.5,0) (0,0,3)"], "axes not perpendicular",
          spacing=(2, float(np.hypot(2.5, 0.5)), 3), **_refuse("not perpendicular")),
    _nrrd('space units "mm"', [*_LPS, 'space units: "mm" "mm" "mm"']),
    _nrrd('space units "m"', [_LPS[0], "space directions: (.002,0,0) (0,.0025,0) (0,0,.003)",
          'space units: "m" "m" "m"'], "x 1000", **_refuse("'m' (space units)")),
    _nrrd('space units "um"', [_LPS[0], "space directions: (2000,0,0) (0,2500,0) (0,0,3000)",
          'space units: "um" "um" "um"'], "/ 1000", **_refuse("'um' (space units)")),
    _nrrd('spacings, units "m"', ["spacings: .002 .0025 .003", 'units: "m" "m" "m"'], "x 1000",
          **_refuse("'m'")),
    _nrrd("key/value pairs that look like fields", [*_LPS, "spacings:=9 9 9", "# a comment"]),
    _nrrd("kinds, centerings", [*_LPS, "kinds: domain domain domain",
          "centerings: cell cell cell"]),
    _nrrd("gzip", _LPS, encoding="gzip"),
    _nrrd("big endian", _LPS, endian="big"),
    _nrrd("old min, old max", [*_LPS, "old min: -1024", "old max: 3071"], "values as stored"),
    *[_nrrd(np.dtype(t).name, _LPS, dtype=t) for t in _NRRD_TYPES if t is not np.int16],
    _meta("ElementSpacing", [_SPACINGS]),
    _meta("ElementSize alone", ["ElementSize = 2 2.5 3"]),
    _meta("TransformMatrix", [_SPACINGS, "TransformMatrix = 0 1 0 -1 0 0 0 0 1"],
          direction=((0, -1.0, 0), (1.0, 0, 0), (0, 0, 1.0))),
    _meta("TransformMatrix, sheared",
          [_SPACINGS, "TransformMatrix = 1 0 0 0.6 0.8 0 0 0 1"], "axes not perpendicular",
          **_refuse("not perpendicular")),
    _meta("no ElementSpacing", [], "no voxel size", **_UNTOLD("gives no voxel size")),
    _meta("DistanceUnits = mm", [_SPACINGS, "DistanceUnits = mm"]),
    _meta("DistanceUnits = cm", ["ElementSpacing = .2 .25 .3", "DistanceUnits = cm"], "x 10",
          **_refuse("'cm' (DistanceUnits)")),
    _meta("DistanceUnits = um", ["ElementSpacing = 2000 2500 3000", "DistanceUnits = um"], "/ 1000",
          **_refuse("'um' (DistanceUnits)")),
    _meta("ElementToIntensityFunction 2 v + 10",
          [_SPACINGS, "ElementToIntensityFunctionSlope = 2",
           "ElementToIntensityFunctionOffset = 10"], "2 v + 10",
          values=lambda stored: stored * 2.0 + 10, **_refuse("ElementToIntensityFunctionSlope")),
    _meta("keys copied from NIfTI", [_SPACINGS, *_NIFTI_KEYS], "of no effect"),
    _meta("keys copied from DICOM", [_SPACINGS, *_DICOM_KEYS], "of no effect"),
    _meta("compressed", [_SPACINGS], compressed=True),
    _meta("big endian", [_SPACINGS], big=True),
    *[_meta(np.dtype(t).name, [_SPACINGS], dtype=t) for t in _META_TYPES if t is not np.int16],
    *[Row("GIPL", np.dtype(t).name, ".gipl", partial(write_gipl, spacing=(2, 2.5, 3)),
          direction=None, dtype=t) for t in (np.uint8, np.int16)],
    Row("GIPL", "voxel size 0", ".gipl", partial(write_gipl, spacing=(2, 0, 3)), "no voxel size",
        spacing=None, refused=COMMANDS, fault=""),
]  # fmt: skip
