"""NIfTI-1 written byte by byte by nifti1.h."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.formats.row import COMMANDS, NNUNET, SPACING, Row
from tests.formats.standard import rotation

_CODES = {
    np.uint8: 2, np.int16: 4, np.int32: 8, np.float32: 16, np.float64: 64,
    np.int8: 256, np.uint16: 512, np.uint32: 768,
}  # fmt: skip
OFFSET = (5.0, -6.0, 7.0)
STRAIGHT = np.eye(3)
TURN = (0.0, 0.0, 0.3)
QUARTER = (0.5, 0.5, 0.5)


def header(
    shape: Sequence[int],
    dtype: Any,
    sform: np.ndarray | None = None,
    quaternion: Sequence[float] | None = None,
    pixdim: Sequence[float] = SPACING,
    qfac: float = 1.0,
    unit: int = 2,
    scaling: tuple[float, float] = (1.0, 0.0),
    offset: Sequence[float] = OFFSET,
    order: str = "<",
    description: bytes = b"",
) -> bytes:
    """The 348 bytes; ``shape`` is ``(z, y, x)``, ``sform`` a 3 x 3 matrix to RAS in file units."""
    made = bytearray(348)

    def put(code: str, place: int, *values: float) -> None:
        struct.pack_into(order + code, made, place, *values)

    put("i", 0, 348)
    put("8h", 40, len(shape), *shape[::-1], *[1] * (7 - len(shape)))
    put("2h", 70, _CODES[dtype], np.dtype(dtype).itemsize * 8)
    put("8f", 76, qfac, *pixdim, 1, 1, 1, 1)
    put("f", 108, 352)
    put("2f", 112, *scaling)
    made[123] = unit
    made[148 : 148 + len(description)] = description
    put("2h", 252, int(quaternion is not None), int(sform is not None))
    if quaternion is not None:
        put("6f", 256, *quaternion, *offset)
    if sform is not None:
        for row in range(3):
            put("4f", 280 + 16 * row, *sform[row], offset[row])
    made[344:348] = b"n+1\0"
    return bytes(made)


def write(path: Path, stored: np.ndarray, **fields: Any) -> None:
    """Write a file with these fields of :func:`header`."""
    order = fields.get("order", "<")
    start = header(stored.shape, stored.dtype.type, **fields) + bytes(4)
    content = start + stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    compress: Callable[[bytes], bytes] = gzip.compress if path.suffix == ".gz" else bytes
    path.write_bytes(compress(content))


def affine(matrix: np.ndarray = STRAIGHT, spacing: Sequence[float] = SPACING) -> np.ndarray:
    """A sform of unit axes and a voxel size."""
    return matrix * np.asarray(spacing)


def _lps(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, np.array([-1.0, -1.0, 1.0])[:, None] * matrix))


def _row(says: str, means: str = "", ending: str = ".nii.gz", **options: Any) -> Row:
    names = ("sform", "quaternion", "pixdim", "qfac", "unit", "scaling", "order", "description")
    fields = {name: options.pop(name) for name in names if name in options}
    options.setdefault("direction", _lps(STRAIGHT))
    return Row("NIfTI", says, ending, partial(write, **fields), means, **options)


def _scaled(slope: float, intercept: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda stored: stored.astype(np.float64) * slope + intercept


_SHEAR = affine() + np.array([[0, 0.5, 0], [0, 0, 0], [0, 0, 0]])
_SHEARED = (2.0, float(np.hypot(2.5, 0.5)), 3.0)
_UNIT = "pixdim and affine in"
_BOTH = {"sform": affine(), "quaternion": (0, 0, 0)}
_MICRON = tuple(1000 * step for step in SPACING)

ROWS = [
    _row("sform alone", sform=affine()),
    _row("qform alone", quaternion=(0, 0, 0)),
    _row("sform and qform, equal", **_BOTH),
    _row("neither coded", "pixdim, axes open", direction=None),
    _row("the same, uncompressed", ending=".nii", reader="SimpleITKIO", **_BOTH),
    _row("sform of turned axes", sform=affine(rotation(QUARTER)),
         direction=_lps(rotation(QUARTER))),
    _row("sform of oblique axes", sform=affine(rotation(TURN)), direction=_lps(rotation(TURN))),
    _row("sform of mirrored x", sform=affine(np.diag([-1.0, 1, 1])),
         direction=_lps(np.diag([-1.0, 1, 1]))),
    _row("qform of oblique axes", quaternion=TURN, direction=_lps(rotation(TURN))),
    _row("qform, qfac -1", "third axis reversed", quaternion=TURN, qfac=-1,
         direction=_lps(rotation(TURN) * [1, 1, -1])),
    _row("qform, qfac 0", "counts as 1", quaternion=(0, 0, 0), qfac=0),
    _row("qform quaternion of norm 1.0001", "half turn", quaternion=(1.0001, 0, 0),
         direction=_lps(np.diag([1.0, -1, -1]))),
    _row("qform quaternion of norm 1.0001", "half turn", quaternion=(1.0001, 0, 0),
         direction=_lps(np.diag([1.0, -1, -1])), reader="NibabelIO",
         refused=NNUNET, fault="more than 1, which nibabel"),
    _row("sform alone, pixdim 1 1 1", "the sform", sform=affine(), pixdim=(1, 1, 1),
         refused=COMMANDS, fault="--trust-affine"),
    _row("sform alone, pixdim 1 1 1, --trust-affine", "the sform", sform=affine(rotation(TURN)),
         pixdim=(1, 1, 1), direction=_lps(rotation(TURN)), trust_affine=True,
         refused=("verify", "preprocess"), fault="--trust-affine"),
    _row("sform alone, pixdim 1 1 1", "the sform", sform=affine(), pixdim=(1, 1, 1),
         reader="NibabelIO", refused=COMMANDS, fault="--trust-affine"),
    _row("pixdim 0", "no voxel size", sform=affine(), pixdim=(2, 0, 3), spacing=None,
         refused=COMMANDS, fault="pixdim"),
    _row("pixdim NaN", "no voxel size", quaternion=(0, 0, 0), pixdim=(2, np.nan, 3), spacing=None,
         refused=COMMANDS, fault="pixdim"),
    _row("pixdim -2, sform", "not valid", sform=affine(), pixdim=(-2, 2.5, 3),
         refused=COMMANDS, fault="positive"),
    _row(f"{_UNIT} no unit", "mm", unit=0, **_BOTH),
    _row(f"{_UNIT} metres", "x 1000", unit=1, sform=affine() / 1000, quaternion=(0, 0, 0),
         pixdim=tuple(step / 1000 for step in SPACING)),
    _row(f"{_UNIT} micrometres", "/ 1000", unit=3, sform=affine() * 1000, quaternion=(0, 0, 0),
         pixdim=_MICRON),
    _row(f"{_UNIT} micrometres, others in mm", "/ 1000", unit=3, sform=affine() * 1000,
         pixdim=_MICRON, reader="NibabelIO", refused=("verify", "preprocess"),
         fault="declares its spacing in micrometre, the training images in mm"),
    _row(f"{_UNIT} metres, others in mm", "x 1000", unit=1, sform=affine() / 1000,
         pixdim=tuple(step / 1000 for step in SPACING), reader="NibabelIO",
         refused=("verify", "preprocess"),
         fault="declares its spacing in metre, the training images in mm"),
    _row("sheared sform", "axes not perpendicular", sform=_SHEAR, pixdim=_SHEARED,
         spacing=_SHEARED, direction=None, refused=("convert", "verify", "preprocess"),
         fault="orthonormal"),
    _row("sheared sform", "axes not perpendicular", sform=_SHEAR, pixdim=_SHEARED,
         spacing=_SHEARED, direction=None, reader="NibabelIO", refused=("convert",),
         fault="orthonormal"),
    _row("scl_slope 2, scl_inter 10", "2 v + 10", scaling=(2, 10), values=_scaled(2, 10),
         labels=False, **_BOTH),
    _row("scl_slope -1, scl_inter 0.5", "0.5 - v", scaling=(-1, 0.5), values=_scaled(-1, 0.5),
         labels=False, **_BOTH),
    _row("scl_slope 0.5 of float", "v / 2", scaling=(0.5, 0), values=_scaled(0.5, 0),
         dtype=np.float32, labels=False, **_BOTH),
    _row("scl_slope 0, scl_inter 0", "v", scaling=(0, 0), **_BOTH),
    _row("scl_slope NaN, scl_inter NaN", "v", scaling=(np.nan, np.nan), **_BOTH),
    _row("scl_slope 0, scl_inter 5", "v", scaling=(0, 5), refused=COMMANDS,
         fault="scl_slope 0 and scl_inter 5", **_BOTH),
    _row("scl_slope NaN, scl_inter 5", "v", scaling=(np.nan, 5), refused=COMMANDS,
         fault="scl_slope nan and scl_inter 5", **_BOTH),
    _row("scl_slope 0, scl_inter 5", "v", scaling=(0, 5), reader="NibabelIO",
         refused=("convert",), fault="scl_slope 0 and scl_inter 5", **_BOTH),
    *[_row(np.dtype(t).name, dtype=t, **_BOTH) for t in _CODES if t is not np.int16],
    _row("big endian", order=">", **_BOTH),
    _row("text in descrip", description=b"dim[0] = 3; unit=um", **_BOTH),
]  # fmt: skip
