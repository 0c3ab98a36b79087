"""Write the phantom's cases in nnU-Net's raw layout, few of them with labels."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK

from nnunet_semisup.demo.phantom import LABELED_REACH, LABELS, SPACING, make_case
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.layout import IMAGES_UNLABELED

ENDING = ".nii.gz"
FOLDERS = {"labeled": "imagesTr", "unlabeled": IMAGES_UNLABELED, "test": "imagesTs"}


@dataclass(frozen=True)
class Counts:
    """Count the cases with labels, without labels, and for testing."""

    labeled: int = 4
    unlabeled: int = 60
    test: int = 40


@dataclass(frozen=True)
class Phantom:
    """Name a data set on disk and the ids of its cases."""

    folder: Path
    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    test: tuple[str, ...]


def write_phantom(folder: Path, counts: Counts, seed: int) -> Phantom:
    """Write ``imagesTr``, ``labelsTr``, ``imagesUn`` and the test set.

    The folder appears complete or not at all. The masks of ``imagesUn`` are not written. A case
    depends on the seed, its group and its number only, so that more cases change no other.

    Args:
        folder: the data set's folder ``DatasetXXX_Name``.
        counts: number of cases of each group.
        seed: the same seed gives the same voxels.

    Raises:
        UserError: the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder} exists: remove it or write to another folder")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    ids: dict[str, tuple[str, ...]] = {}
    try:
        for number, group in enumerate(FOLDERS):
            ids[group] = tuple(f"{group}_{index:02d}" for index in range(getattr(counts, group)))
            for index, case in enumerate(ids[group]):
                reach = LABELED_REACH if group == "labeled" else 1.0
                _write_case(temporary, group, case, *make_case([seed, number, index], reach))
        content = {
            "channel_names": {"0": "MR"},
            "labels": LABELS,
            "numTraining": counts.labeled,
            "file_ending": ENDING,
        }
        (temporary / "dataset.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Phantom(folder, **ids)


def image_path(folder: Path, group: str, case: str) -> Path:
    """Return the path of a case's image in the data set's folder."""
    return folder / FOLDERS[group] / f"{case}_0000{ENDING}"


def label_path(folder: Path, group: str, case: str) -> Path:
    """Return the path of the label map of a case of ``labeled`` or ``test``."""
    return folder / FOLDERS[group].replace("images", "labels") / f"{case}{ENDING}"


def _write_case(
    folder: Path,
    group: str,
    case: str,
    image: npt.NDArray[np.int16],
    label: npt.NDArray[np.uint8],
) -> None:
    _write(image_path(folder, group, case), image)
    if group != "unlabeled":
        _write(label_path(folder, group, case), label)


def _write(path: Path, array: npt.NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((SPACING, SPACING))
    SimpleITK.WriteImage(image, str(path), True)
