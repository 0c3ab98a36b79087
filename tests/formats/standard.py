"""NIfTI read by its standard alone (nifti1.h), without any of the libraries that are compared."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8",
    256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


@dataclass(frozen=True)
class Reading:
    """Values ``(z, y, x)``, voxel size along x, y, z in mm, axes as columns in LPS."""

    values: np.ndarray
    spacing: tuple[float, ...]
    direction: np.ndarray | None
    origin: np.ndarray | None


def read_nifti(path: Path) -> Reading:
    """Read a NIfTI-1 file of three dimensions.

    Methods 1 to 3 of nifti1.h: pixdim alone, the quaternion with pixdim, the three rows. Where
    both of the last are coded the rows are taken.
    """
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    order = "<" if struct.unpack_from("<i", content)[0] == 348 else ">"

    def get(code: str, offset: int) -> tuple:
        return struct.unpack_from(order + code, content, offset)

    dim, pixdim = get("8h", 40), get("8f", 76)
    slope, intercept = get("2f", 112)
    qform, sform = get("2h", 252)
    factor = _MM.get(content[123] & 7, 1.0)
    dtype = np.dtype(order + _TYPES[get("h", 70)[0]])
    count = int(np.prod(dim[1 : 1 + dim[0]]))
    stored = np.frombuffer(content, dtype, count, int(get("f", 108)[0])).reshape(dim[3:0:-1])
    values = stored.astype(np.float64)
    if slope != 0 and np.isfinite(slope):
        values = values * slope + intercept
    if sform > 0:
        rows = np.array([get("4f", 280 + 16 * i) for i in range(3)])
        affine, offset = rows[:, :3], rows[:, 3]
    elif qform > 0:
        affine = rotation(get("3f", 256)) * np.abs(pixdim[1:4])
        affine[:, 2] *= -1 if pixdim[0] < 0 else 1
        offset = np.array(get("3f", 268))
    else:
        return Reading(values, tuple(abs(p) * factor for p in pixdim[1:4]), None, None)
    lengths = np.linalg.norm(affine, axis=0)
    lps = np.array([-1.0, -1.0, 1.0])
    spacing = tuple(float(length) * factor for length in lengths)
    return Reading(values, spacing, lps[:, None] * affine / lengths, lps * offset * factor)


def rotation(quaternion: tuple[float, ...]) -> np.ndarray:
    """The matrix of nifti1.h; a quaternion that is too long by rounding is a half turn."""
    b, c, d = np.array(quaternion, dtype=float)
    square = b * b + c * c + d * d
    if square > 1:
        b, c, d = (v / np.sqrt(square) for v in (b, c, d))
    a = np.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * b * c - 2 * a * d, 2 * b * d + 2 * a * c],
            [2 * b * c + 2 * a * d, a * a + c * c - b * b - d * d, 2 * c * d - 2 * a * b],
            [2 * b * d - 2 * a * c, 2 * c * d + 2 * a * b, a * a + d * d - c * c - b * b],
        ]
    )
