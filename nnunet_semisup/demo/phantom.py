"""A made-up data set in nnU-Net's raw layout: two organs in noise, few of the cases with labels.

Every case has its own shapes, position, contrast, texture, bias field and noise, and blobs that
look like the small organ but lie elsewhere. A case depends on the seed, its group and its number
only, so that more cases can be asked for without changing the others.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy import ndimage

from nnunet_semisup.data.layout import IMAGES_UNLABELED
from nnunet_semisup.errors import UserError

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LABELS = {"background": 0, "large organ": 1, "small organ": 2}
SHAPES = {2: (64, 64), 3: (32, 48, 48)}
SPACINGS = {2: (1.5, 1.5), 3: (2.0, 1.5, 1.5)}
ENDINGS = (".nii.gz", ".png")
GROUPS = ("labeled", "unlabeled", "test")
SMALLEST_AXIS = 12
DISTRACTORS = 3


@dataclass(frozen=True)
class Counts:
    """Cases with labels, without labels, and for testing."""

    labeled: int = 4
    unlabeled: int = 12
    test: int = 6


@dataclass(frozen=True)
class Phantom:
    """A data set on disk and the ids of its cases."""

    folder: Path
    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    test: tuple[str, ...]


def make_case(
    shape: Sequence[int], seed: int | Sequence[int]
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """One image and its label map.

    Args:
        shape: size in voxels, two or three axes.
        seed: anything that ``numpy.random.default_rng`` takes.

    Returns:
        Gray values around 100 and the labels 0, 1, 2, both ``(*shape)``. Either organ is one
        face-connected component.
    """
    rng = np.random.default_rng(seed)
    size = tuple(shape)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij"))
    large, small = _organs(rng, grid)
    clean = 0.3 * _random_field(rng, size, 0.05)
    for _ in range(DISTRACTORS):
        centre = rng.uniform(-0.85, 0.85, len(size))
        blob = _blob(rng, grid, centre, np.full(len(size), rng.uniform(0.1, 0.2)))
        clean[blob & ~large & ~small] += rng.uniform(-1.0, -0.4)
    clean[large] = (
        rng.uniform(0.6, 1.1) + rng.uniform(0.1, 0.4) * _random_field(rng, size, 0.04)[large]
    )
    clean[small] = rng.uniform(-1.3, -0.7) + 0.2 * _random_field(rng, size, 0.04)[small]
    clean = ndimage.gaussian_filter(clean, 0.6)
    noisy = clean + rng.uniform(0.2, 0.4) * rng.standard_normal(size)
    bias = np.exp(0.15 * _random_field(rng, size, 0.35))
    image = np.clip(np.round((100 + 35 * noisy) * bias), 1, 255).astype(np.int16)
    label = large.astype(np.uint8)
    label[small] = 2
    return image, label


def _organs(rng: np.random.Generator, grid: Array) -> tuple[Mask, Mask]:
    """A large organ near the middle and a small one at its side, without overlap."""
    dim: int = grid.shape[0]
    centre = rng.uniform(-0.25, 0.15, dim)
    radii = rng.uniform(0.38, 0.58, dim)
    large = _blob(rng, grid, centre, radii)
    direction = rng.normal(0, 0.45, dim)
    direction[-1] = 1.0
    direction /= np.linalg.norm(direction)
    small_radii = rng.uniform(0.26, 0.38, dim)
    away = 1 / np.linalg.norm(direction / radii) + 0.7 * small_radii.mean()
    limit = 0.95 - small_radii
    small = _blob(rng, grid, np.clip(centre + away * direction, -limit, limit), small_radii)
    return _largest_component(large & ~small), small


def _blob(rng: np.random.Generator, grid: Array, centre: Array, radii: Array) -> Mask:
    """A rotated ellipsoid with a smoothly displaced surface; coordinates run from -1 to 1."""
    dim, shape = grid.shape[0], grid.shape[1:]
    rotation, _ = np.linalg.qr(np.eye(dim) + 0.3 * rng.standard_normal((dim, dim)))
    offset = np.tensordot(rotation, grid - centre.reshape(-1, *[1] * dim), axes=1)
    scaled = offset / radii.reshape(-1, *[1] * dim)
    distance = np.sqrt((scaled**2).sum(axis=0)) + 0.15 * _random_field(rng, shape, 0.08)
    return _largest_component(distance <= 1)


def _largest_component(mask: Mask) -> Mask:
    """The largest face-connected component, its holes filled; an empty mask stays empty."""
    components, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(components.ravel())[1:]
    filled: Mask = ndimage.binary_fill_holes(components == 1 + int(sizes.argmax()))
    return filled


def _random_field(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Array:
    """Gaussian field of mean 0 and variance 1; ``scale``: smoothness as a fraction of the image."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), [scale * n for n in shape])
    standardized: Array = (field - field.mean()) / field.std()
    return standardized


def write_phantom(
    raw_folder: Path,
    dataset_id: int = 900,
    name: str = "Phantom",
    *,
    dim: int = 3,
    shape: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    counts: Counts | None = None,
    seed: int = 0,
    file_ending: str = ".nii.gz",
) -> Phantom:
    """Write ``DatasetXXX_Name`` with ``imagesTr``, ``labelsTr``, ``imagesUn`` and the test set.

    The folder appears complete or not at all. The masks of ``imagesUn`` are not written.

    Args:
        raw_folder: the folder ``nnUNet_raw``; created if missing.
        dataset_id: number of the data set.
        name: its name after the number.
        dim: 2 for single slices, 3 for volumes.
        shape: size in voxels ``(*spatial)``, default :data:`SHAPES`.
        spacing: voxel size in mm in the same order, default :data:`SPACINGS`.
        counts: number of cases of each group.
        seed: the same seed gives the same voxels.
        file_ending: ``.nii.gz``, or ``.png`` in 2D (8 bits, no spacing).

    Raises:
        UserError: the data set exists, or shape, spacing, counts or ending are unusable.
    """
    size = tuple(shape or SHAPES.get(dim, ()))
    voxel = tuple(spacing or SPACINGS.get(dim, ()))
    cases = counts or Counts()
    folder = Path(raw_folder) / f"Dataset{dataset_id:03d}_{name}"
    _check(folder, dim, size, voxel, cases, file_ending)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        ids = {group: _ids(group, getattr(cases, group)) for group in GROUPS}
        for number, group in enumerate(GROUPS):
            for index, identifier in enumerate(ids[group]):
                image, label = make_case(size, [seed, number, index])
                _write_case(temporary, group, identifier + file_ending, image, label, voxel)
        content = {
            "channel_names": {"0": "MR"},
            "labels": LABELS,
            "numTraining": cases.labeled,
            "file_ending": file_ending,
        }
        (temporary / "dataset.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Phantom(folder, **ids)


def _ids(group: str, count: int) -> tuple[str, ...]:
    return tuple(f"{group}_{index:02d}" for index in range(count))


def _write_case(
    folder: Path,
    group: str,
    file_name: str,
    image: npt.NDArray[np.int16],
    label: npt.NDArray[np.uint8],
    spacing: tuple[float, ...],
) -> None:
    images = {"labeled": "imagesTr", "unlabeled": IMAGES_UNLABELED, "test": "imagesTs"}[group]
    identifier, dot, ending = file_name.partition(".")
    _write(folder / images / f"{identifier}_0000{dot}{ending}", image, spacing)
    if group != "unlabeled":
        _write(folder / images.replace("images", "labels") / file_name, label, spacing)


def _write(path: Path, array: npt.NDArray[np.generic], spacing: tuple[float, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        array = array.astype(np.uint8)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in spacing][::-1])
    SimpleITK.WriteImage(image, str(path), True)


def _check(
    folder: Path,
    dim: int,
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    counts: Counts,
    file_ending: str,
) -> None:
    faults = []
    if folder.exists():
        faults.append(f"{folder} exists: remove it or take another id or name")
    if dim not in SHAPES:
        faults.append(f"dim={dim}: give 2 or 3")
    if len(shape) != dim or min(shape, default=0) < SMALLEST_AXIS:
        faults.append(f"shape={shape}: give {dim} numbers of {SMALLEST_AXIS} or more")
    if len(spacing) != dim or min(spacing, default=0) <= 0:
        faults.append(f"spacing={spacing}: give {dim} positive numbers")
    if min(counts.labeled, counts.unlabeled, counts.test) < 1:
        faults.append(f"{counts}: give at least 1 case of each group")
    if file_ending not in ENDINGS or (file_ending == ".png" and dim == 3):
        faults.append(f"file_ending={file_ending}: give .nii.gz, or .png with dim=2")
    if faults:
        raise UserError("\n".join(faults))
