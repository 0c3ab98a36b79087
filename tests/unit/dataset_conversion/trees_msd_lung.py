"""Tiny copies of the forms in which the decathlon's Task06_Lung goes around."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.unit.dataset_conversion.trees_common import Tree, ct_scan, write_h5, write_nifti

SHAPE = (12, 20, 24)
SPACING = (0.8, 0.8, 1.2)
LABELED, UNLABELED, TEST = ["lung_001", "lung_003"], ["lung_004", "lung_005"], ["lung_071"]
CASES = LABELED + UNLABELED + TEST
WITHOUT_LABELS = ["lung_002", "lung_007"]


def make_msd_lung(folder: Path, form: str = "raw", shape: tuple[int, ...] = SHAPE) -> Tree:
    """Five labeled scans and two in imagesTs; every real file has a twin of macOS."""
    tree = Tree("msd_lung", folder, {"labeled": LABELED, "unlabeled": UNLABELED, "test": TEST})
    for seed, case in enumerate(CASES):
        image, label = ct_scan(seed, shape)
        if form == "h5":
            scaled = (np.clip(image, -500, 275) + 500) / 775
            write_h5(scaled, label, folder / "lung_h5" / f"{case}.h5")
        else:
            write_nifti(image, image_path(tree, case), SPACING)
            write_nifti(label, label_path(tree, case), SPACING)
    if form == "raw":
        for seed, case in enumerate(WITHOUT_LABELS):
            path = task(tree) / "imagesTs" / f"{case}.nii.gz"
            write_nifti(ct_scan(50 + seed, shape)[0], path, SPACING)
        for path in sorted(folder.rglob("*.nii.gz")):
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7 AppleDouble")
        (task(tree) / "dataset.json").write_text(json.dumps({"name": "LUNG"}))
    tree.write_split()
    return tree


def task(tree: Tree) -> Path:
    return tree.root / "Task06_Lung"


def image_path(tree: Tree, case: str) -> Path:
    return task(tree) / "imagesTr" / f"{case}.nii.gz"


def label_path(tree: Tree, case: str) -> Path:
    return task(tree) / "labelsTr" / f"{case}.nii.gz"
