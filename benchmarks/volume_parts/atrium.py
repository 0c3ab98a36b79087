"""Made-up scans and masks of the size and kind of the 2018 Atrial Segmentation Challenge's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK
from scipy.ndimage import gaussian_filter

SPACING = 0.625
"""Millimetres along each axis."""
_ATRIUM = (60, 110, 130)
_ISLAND = 12


def masks(shape: tuple[int, ...], kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make a prediction and a reference, bool of ``shape`` (z, y, x), around an atrium.

    Args:
        shape: at least 70 x 140 x 160.
        kind: ``good`` has a Dice of about 0.94, ``poor`` of 0.88 with a part missed and an island.
        seed: of the random surfaces.
    """
    generator = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1.15, 1.15, n) for n in _ATRIUM], indexing="ij")
    common = 1 - sum(axis**2 for axis in axes) + _rough(generator, 6, 0.18)
    corner = [(n - a) // 2 for n, a in zip(shape, _ATRIUM, strict=True)]
    place = tuple(slice(c, c + a) for c, a in zip(corner, _ATRIUM, strict=True))
    made = []
    for _ in range(2):
        mask = np.zeros(shape, bool)
        mask[place] = common + _rough(generator, 4, 0.08) > 0
        made.append(mask)
    prediction, reference = made
    if kind == "poor":
        prediction[:, : corner[1] + 28] = False
        rows, columns = (
            np.arange(n) - m for n, m in zip(shape[1:], (shape[1] - 15, 20), strict=True)
        )
        slices = np.arange(shape[0]) - shape[0] // 2
        squares = slices[:, None, None] ** 2 + rows[:, None] ** 2 + columns**2
        prediction |= squares < _ISLAND**2
    return prediction, reference


def scan(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make an image and its label, uint8 of ``shape``; beyond a disk in each slice it is 0."""
    generator = np.random.default_rng(seed)
    smooth = gaussian_filter(generator.standard_normal(shape, np.float32), 2)
    smooth -= smooth.min()
    image = smooth * np.float32(180 / smooth.max())
    label = masks(shape, "good", seed)[1]
    image[label] += 40
    rows, columns = (np.linspace(-1, 1, n) for n in shape[1:])
    image[:, rows[:, None] ** 2 + columns**2 > 0.9] = 0
    return image.astype(np.uint8), label.astype(np.uint8)


def write(array: np.ndarray, path: Path) -> None:
    """Write an array, compressed, in the format of the path."""
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((SPACING,) * 3)
    SimpleITK.WriteImage(image, str(path), useCompression=True)


def _rough(generator: np.random.Generator, width: float, height: float) -> np.ndarray:
    noise = gaussian_filter(generator.normal(size=_ATRIUM), width)
    return noise * (height / noise.std())
