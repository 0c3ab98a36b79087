"""What the tiny downloads of all data sets share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import SimpleITK
from scipy.ndimage import gaussian_filter

from nnunet_semisup.cli.convert import main


@dataclass
class Tree:
    """A download on disk, the split that names its cases, and the command's first words."""

    dataset: str
    root: Path
    lists: dict[str, list[str]]
    options: tuple[str, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def split(self) -> Path:
        """The split's file, outside of the download."""
        return self.root.with_name(f"{self.root.name}_split.json")

    def write_split(self, **lists: list[str]) -> None:
        """Write the split, changed by ``lists``."""
        self.lists |= lists
        self.split.write_text(json.dumps(self.lists))

    def arguments(self, *extra: str, dataset_id: int = 501) -> list[str]:
        """The command line; the tree's own split unless ``extra`` names one."""
        line = [self.dataset, str(self.root), "-d", str(dataset_id), "-np", "1", *self.options]
        if "--split" not in extra:
            line += ["--split", str(self.split)]
        return [*line, *extra]

    def convert(self, *extra: str, dataset_id: int = 501) -> int:
        """Exit code of the command in this process."""
        try:
            main(self.arguments(*extra, dataset_id=dataset_id))
        except SystemExit as end:
            return int(end.code or 0)
        raise AssertionError("the command did not end through sys.exit")


def smooth(seed: int, shape: Sequence[int], sigma: float = 2) -> np.ndarray:
    """Smooth noise of mean 0 and standard deviation 1, different for every seed: float32."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def blob(seed: int, shape: Sequence[int]) -> np.ndarray:
    """A label off the middle of every axis, so that its mirror images do not overlap it: bool.

    Different seeds have different labels.
    """
    inside = tuple(slice(1 + n // 10, n // 2 - 1) for n in shape)
    label = np.zeros(shape, bool)
    label[inside] = smooth(seed + 2000, shape)[inside] > -0.7
    return label


def ct_scan(seed: int, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield units (int16) and a label (uint8) on soft tissue whose mirror images lie in air.

    Different seeds do not correlate.
    """
    image = 300 * smooth(seed, shape) - 300
    label = blob(seed, shape)
    mirrored = np.zeros(shape, bool)
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        mirrored |= np.flip(label, axes)
    detail = 20 * smooth(seed + 1000, shape, 1)
    image[mirrored] = -850 + detail[mirrored]
    image[label] = 80 + detail[label]
    image[0, 0, 0] = -1000
    return image.astype(np.int16), label.astype(np.uint8)


def write_nifti(
    array: np.ndarray,
    path: Path,
    spacing: Sequence[float] = (1, 1, 1),
    origin: Sequence[float] = (0, 0, 0),
    direction: Sequence[float] = (1, 0, 0, 0, 1, 0, 0, 0, 1),
) -> Path:
    """Write ``array``, ``(z, y, x)``, in any format that ITK knows."""
    image = SimpleITK.GetImageFromArray(array, isVector=False)
    if array.ndim == 3:
        image.SetSpacing([float(v) for v in spacing])
        image.SetOrigin([float(v) for v in origin])
        image.SetDirection([float(v) for v in direction])
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path), useCompression=True)
    return path


def write_h5(image: np.ndarray, label: np.ndarray, path: Path, axes: str = "xyz") -> Path:
    """Arrays ``(z, y, x)``, stored with the axes in the given order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in (("image", image.astype(np.float32)), ("label", label)):
            data = array.T if axes == "xyz" else array
            file.create_dataset(key, data=data, compression="gzip")
    return path


def z_scored(image: np.ndarray) -> np.ndarray:
    """As float32 of mean 0 and standard deviation 1."""
    image = image.astype(np.float32)
    return (image - image.mean()) / image.std()


def read(path: Path) -> np.ndarray:
    """Voxels as ``(z, y, x)``."""
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def names(folder: Path) -> list[str]:
    """Names in a folder; none where there is no such folder."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def report_of(folder: Path) -> dict:
    """The report of a converted data set."""
    return json.loads((folder / "conversion_report.json").read_text(encoding="utf-8"))


def dataset_json_of(folder: Path) -> dict:
    """``dataset.json`` of a converted data set."""
    return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
