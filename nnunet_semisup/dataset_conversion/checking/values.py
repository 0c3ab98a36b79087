"""The values of an array and how often each occurs, without sorting where they are few."""

from __future__ import annotations

import numpy as np

_COUNTED_BYTES = 2
"""Integers of up to so many bytes are counted one by one."""
_BLOCK = 1 << 19
"""Voxels that are counted at a time, because counting takes them as 64 bits each."""


def counts_fast(dtype: np.dtype) -> bool:
    """Return whether :func:`value_counts` need not sort an array of this type."""
    return dtype.kind in "iub" and dtype.itemsize <= _COUNTED_BYTES and dtype.isnative


def value_counts(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what ``numpy.unique`` does with ``return_counts``: sorted values, and their counts."""
    dtype = array.dtype
    if not counts_fast(dtype):
        return np.unique(array, return_counts=True)
    flat = array.reshape(-1).view(f"u{dtype.itemsize}")
    number = 1 << 8 * dtype.itemsize
    counts = np.zeros(number, dtype=np.int64)
    for start in range(0, flat.size, _BLOCK):
        counts += np.bincount(flat[start : start + _BLOCK], minlength=number)
    there = np.flatnonzero(counts)
    values = there.astype(flat.dtype).view(dtype)
    order = np.argsort(values, kind="stable")
    return values[order], counts[there[order]]
