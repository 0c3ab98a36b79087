"""Memory-mapped cases whose patches may be changed without the file being touched.

A patch that nnU-Net 2.8.1 cuts out of an unpacked ``.npy`` file and that batchgeneratorsv2 0.3.6
neither rotates nor mirrors is the file's memory itself, which transforms that work in place (the
nonzero mask, the removal of a label) then write to. The maps are read-only, so that the process is
ended by the system.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import (
    infer_dataset_class,
    nnUNetBaseDataset,
    nnUNetDatasetNumpy,
)


def open_array(path: str | Path) -> Any:
    """Open a ``.npy`` file so that what is written to the array stays in this process."""
    return np.load(path, mmap_mode="c")


class CopyOnWriteDataset(nnUNetDatasetNumpy):
    """Read nnU-Net's ``.npz`` and ``.npy`` cases, safe for transforms that work in place."""

    def load_case(self, identifier: str) -> tuple[Any, ...]:
        """Return image, segmentation, that of the previous stage or ``None``, properties."""
        *arrays, properties = super().load_case(identifier)
        return (*map(_reopened, arrays), properties)


def _reopened(array: Any) -> Any:
    """Return a memory map opened so; another array as it is."""
    if isinstance(array, np.memmap) and array.filename is not None:
        return open_array(array.filename)
    return array


def dataset_class(folder: str) -> type[nnUNetBaseDataset]:
    """Return the class for a folder of preprocessed cases, as nnU-Net infers it."""
    inferred: type[nnUNetBaseDataset] = infer_dataset_class(folder)
    return CopyOnWriteDataset if inferred is nnUNetDatasetNumpy else inferred
