"""A row of the matrix: a valid file, and what the standard of its format says that it means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

COMMANDS = ("convert", "verify", "preprocess", "evaluate")
NNUNET = ("verify", "preprocess", "evaluate")
"""Commands for which a file must be what nnU-Net's reader makes of it."""
VOLUME = (7, 5, 6)
PICTURE = (14, 16)
SPACING = (2.0, 2.5, 3.0)


def identity(stored: np.ndarray) -> np.ndarray:
    """The stored values are the values."""
    return stored


@dataclass(frozen=True)
class Row:
    """One way to write a file.

    Attributes:
        format: a heading of the table.
        says: what the header says, in words.
        ending: of the file.
        write: writes stored values, ``(z, y, x)`` or ``(y, x)``, perhaps with colours.
        means: what the standard says, in words.
        spacing: voxel size along x, y, z in mm by the standard; ``None`` where it gives none.
        direction: columns are the axes x, y, z in right-to-left, anterior-to-posterior and
            inferior-to-superior (LPS); ``None`` where the standard leaves them open.
        values: the standard's values of stored ones.
        dtype: of stored values.
        refused: commands that name the file as a fault; all others must read it right.
        labels: whether the file can hold a label map.
        channels: values a voxel.
        reader: of nnU-Net, as named in ``dataset.json``.
        trust_affine: converted and evaluated with that option.
        fault: part of the message of those that refuse.
        volume: shape of an image with three axes.
        by_nnunet: whether nnU-Net reads files of this ending.
    """

    format: str
    says: str
    ending: str
    write: Callable[[Path, np.ndarray], object]
    means: str = ""
    spacing: tuple[float, ...] | None = SPACING
    direction: tuple[tuple[float, ...], ...] | None = None
    values: Callable[[np.ndarray], np.ndarray] = identity
    dtype: type = np.int16
    refused: tuple[str, ...] = ()
    labels: bool = True
    channels: int = 1
    reader: str = ""
    trust_affine: bool = False
    fault: str = ""
    by_nnunet: bool = True
    volume: tuple[int, ...] = VOLUME

    @property
    def name(self) -> str:
        """Of a test."""
        return f"{self.ending or 'DICOM'} {self.says}" + (
            f" ({self.reader})" if self.reader else ""
        )

    @property
    def is_picture(self) -> bool:
        """Whether there is no third axis."""
        return self.ending in (".png", ".bmp", ".tif", ".jpg", ".gif") and self.spacing == (1, 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image, without its colours."""
        return PICTURE if self.is_picture else self.volume

    def image(self, seed: int = 0) -> np.ndarray:
        """Stored values that fit into 7 bits, or into one."""
        rng = np.random.default_rng(seed)
        colours = (self.channels,) if self.channels > 1 else ()
        if self.dtype is bool:
            return rng.integers(0, 2, (*self.shape, *colours)).astype(bool)
        return rng.integers(0, 4 if self.ending == ".gif" else 100, (*self.shape, *colours)).astype(
            self.dtype
        )

    def label(self, shift: int = 0) -> np.ndarray:
        """Stored values 0 and 1: a box, moved by ``shift`` along x."""
        box = np.zeros(self.shape, self.dtype)
        if self.is_picture:
            box[3:8, 4 + shift : 9 + shift] = 1
        else:
            box[1:3, 1:4, 1 + shift : 3 + shift] = 1
        return box
