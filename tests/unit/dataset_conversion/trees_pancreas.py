"""Tiny copies of the forms in which NIH Pancreas-CT goes around."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.unit.dataset_conversion.trees_common import (
    Tree,
    ct_scan,
    write_h5,
    write_nifti,
    z_scored,
)
from tests.unit.dataset_conversion.trees_dicom import FLIPPED_ROWS, write_series

SHAPE = (12, 20, 24)
SPACING = (0.7, 0.8, 1.0)
LAI = (1, 0, 0, 0, -1, 0, 0, 0, -1)
LABELED, UNLABELED, TEST = (1, 3), (26, 13), (64,)
NUMBERS = LABELED + UNLABELED + TEST


def patient(number: int) -> str:
    return f"PANCREAS_{number:04d}"


def scan(number: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Slices from head to foot and rows from back to front, as in the files (code LAI)."""
    return ct_scan(number, shape)


def make_pancreas(folder: Path, form: str = "raw", shape: tuple[int, ...] = SHAPE) -> Tree:
    """Five patients. ``raw`` has TCIA's folders, whose names tell nothing about the patient."""
    tree = Tree(
        "pancreas",
        folder,
        {
            "labeled": [patient(n) for n in LABELED],
            "unlabeled": [patient(n) for n in UNLABELED],
            "test": [patient(n) for n in TEST],
        },
    )
    for number in NUMBERS:
        add_case(tree, form, number, shape)
    tree.write_split()
    return tree


def add_case(
    tree: Tree, form: str, number: int, shape: tuple[int, ...] = SHAPE, voxels: int | None = None
) -> None:
    """One case; ``voxels`` is the number of the case whose scan it shows."""
    image, label = scan(voxels or number, shape)
    if form == "mcnet-h5":
        path = tree.root / "Pancreas_h5" / f"image{number:04d}_norm.h5"
        write_h5(z_scored(image), label.astype(np.float32), path)
    elif form == "coranet-h5":
        scaled = (np.clip(image, -125, 275) + 125) / 400
        write_h5(scaled, label, tree.root / f"{number:04d}.h5")
    elif form == "nii":
        path = tree.root / "data" / f"{patient(number)}.nii.gz"
        write_nifti(image, path, SPACING, direction=LAI)
    else:
        series_folder(tree, number).mkdir(parents=True, exist_ok=True)
        order = np.random.default_rng(number).permutation(len(image))
        write_series(
            series_folder(tree, number),
            image,
            patient(number),
            [f"1-{i + 1:03d}.dcm" for i in order],
            orientation=FLIPPED_ROWS,
            spacing=SPACING,
        )
    if form in ("raw", "nii"):
        write_nifti(label, label_path(tree, number), SPACING, direction=LAI)


def series_folder(tree: Tree, number: int) -> Path:
    """Folders in another order than the patients."""
    study = f"Pancreas-{18000 - number}"
    return tree.root / "Pancreas-CT" / f"folder{100 - number:03d}" / "11-24-2015" / study


def label_path(tree: Tree, number: int) -> Path:
    return tree.root / "TCIA_pancreas_labels-02-05-2017" / f"label{number:04d}.nii.gz"
