"""Tiny trees in the exact layouts of the LA downloads, and one call of the command."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import SimpleITK
from scipy.ndimage import gaussian_filter

from nnunet_semisup.cli.convert import main

SHAPE = (88, 20, 24)
SPACING = (0.625, 0.625, 0.625)
ORIGIN = (-3.0, 5.0, 7.5)
LABELED = ["AAAA", "BBBB"]
UNLABELED = ["CCCC", "DDDD"]
VALIDATION = ["EEEE"]
IDS = LABELED + UNLABELED + VALIDATION


def texture(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A smooth random uint8 image, different for every seed."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = gaussian_filter(noise, 2)
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def ball(seed: int, value: int = 255) -> np.ndarray:
    """A label with one box whose place depends on the seed."""
    label = np.zeros(SHAPE, np.uint8)
    label[20 + seed : 50 + seed, 5:12, 4 + seed % 5 : 14] = value
    return label


def write_nrrd(
    array: np.ndarray,
    path: Path,
    spacing: tuple[float, ...] = SPACING,
    origin: tuple[float, ...] = ORIGIN,
    direction: tuple[float, ...] | None = None,
) -> None:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path), useCompression=True)


def write_h5(image: np.ndarray, label: np.ndarray, path: Path) -> None:
    """Arrays of shape ``(z, y, x)``, stored as ``(x, y, z)`` as the community's files are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=image.T.astype(np.float32), compression="gzip")
        file.create_dataset("label", data=label.T.astype(np.uint8), compression="gzip")


def read(path: Path) -> np.ndarray:
    """Voxels as ``(z, y, x)``."""
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, hidden ones too, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass
class Download:
    """A download on disk with the split that names its cases."""

    root: Path
    training: Path
    split: Path
    lists: dict[str, list[str]] = field(default_factory=dict)

    def image(self, case: str) -> Path:
        return self.training / case / "lgemri.nrrd"

    def label(self, case: str) -> Path:
        return self.training / case / "laendo.nrrd"

    def h5(self, case: str) -> Path:
        return self.training / case / "mri_norm2.h5"

    def write_split(self, **lists: list[str]) -> None:
        self.lists |= lists
        self.split.write_text(json.dumps(self.lists))


def make_download(folder: Path, form: str = "raw") -> Download:
    """Five cases: two that may be labeled, two unlabeled, one for validation, all with labels."""
    name = "Training Set" if form == "raw" else "2018LA_Seg_Training Set"
    made = Download(folder, folder / name, folder / "split.json")
    for seed, case in enumerate(IDS):
        if form == "raw":
            write_nrrd(texture(seed), made.image(case))
            write_nrrd(ball(seed), made.label(case))
        else:
            image = texture(seed).astype(np.float32)
            write_h5((image - image.mean()) / image.std(), ball(seed, 1), made.h5(case))
    made.write_split(labeled=LABELED, unlabeled=UNLABELED, validation=VALIDATION)
    return made


def convert(download: Download, *extra: str, dataset_id: int = 501) -> int:
    """Exit code of the command in this process."""
    arguments = ["la", str(download.root), "-d", str(dataset_id), "-np", "1"]
    if "--split" not in extra:
        arguments += ["--split", str(download.split)]
    try:
        main([*arguments, *extra])
    except SystemExit as end:
        return int(end.code or 0)
    raise AssertionError("the command did not end through sys.exit")
