"""Tiny folders as users have them, and one call of the generic command."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from PIL import Image

from nnunet_semisup.cli.convert import main
from tests.unit.dataset_conversion.trees import texture

SHAPE = (10, 20, 24)
LABELED = ["p1", "p2", "p3"]
UNLABELED = ["p4", "p5"]
WHAT = ("--label-names", "background,organ", "--channel-names", "MR")


@dataclass
class Folders:
    """A folder ``images`` and a folder ``labels`` with fewer files."""

    root: Path
    ending: str = ".nii.gz"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def labels(self) -> Path:
        return self.root / "labels"

    def image(self, case: str) -> Path:
        return self.images / f"{case}{self.ending}"

    def label(self, case: str) -> Path:
        return self.labels / f"{case}{self.ending}"


def scan(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return texture(seed, shape)


def mask(seed: int, value: int = 1, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    label = np.zeros(shape, np.uint8)
    label[..., 4 : 9 + seed % 5, 3 + seed % 7 : 12] = value
    return label


def write(array: np.ndarray, path: Path, spacing: tuple[float, ...] = (1.0, 1.0, 2.0)) -> None:
    """Write a scan or a picture by its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".png", ".bmp", ".gif", ".jpg", ".tif", ".tiff"):
        Image.fromarray(array).save(path)
        return
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing[: image.GetDimension()])
    SimpleITK.WriteImage(image, str(path), useCompression=path.suffix not in (".gipl",))


def photo(seed: int, shape: tuple[int, int] = (60, 72)) -> np.ndarray:
    """A colour picture."""
    return np.stack([texture(10 * seed + c, shape) for c in range(3)], axis=-1)


def make_folders(root: Path, ending: str = ".nii.gz") -> Folders:
    """Three cases with a label, two without."""
    made = Folders(root, ending)
    for seed, case in enumerate(LABELED + UNLABELED):
        write(scan(seed), made.image(case))
        if case in LABELED:
            write(mask(seed), made.label(case))
    return made


def make_photos(root: Path, image: str = ".tif", label: str = ".gif") -> Folders:
    """Colour photographs ``21_training`` and masks ``21_manual`` with the values 0 and 255."""
    made = Folders(root, image)
    for seed, case in enumerate(LABELED + UNLABELED):
        write(photo(seed), made.images / f"{case}_training{image}")
        if case in LABELED:
            write(mask(seed, 255, (60, 72)), made.labels / f"{case}_manual{label}")
    return made


PHOTO_OPTIONS = (
    *("--image-suffix", "_training", "--label-suffix", "_manual"),
    *("--label-map", "255:1", "--label-names", "background,vessel"),
)


def convert(root: Path, *extra: str, command: str = "generic", dataset_id: int = 501) -> int:
    """Exit code of the command in this process."""
    try:
        main([command, str(root), "-d", str(dataset_id), "-np", "1", *extra])
    except SystemExit as end:
        return int(end.code or 0)
    raise AssertionError("the command did not end through sys.exit")


def made(roots: dict[str, Path]) -> Path:
    """The data set that :func:`convert` writes."""
    return roots["raw"] / "Dataset501_Generic"


def names(folder: Path) -> list[str]:
    """Cases in a folder, whatever the files' ending; none if there is no folder."""
    return sorted(path.name.split(".")[0] for path in folder.iterdir()) if folder.is_dir() else []


def content(roots: dict[str, Path]) -> Any:
    """``dataset.json`` of the data set."""
    return json.loads((made(roots) / "dataset.json").read_text(encoding="utf-8"))
