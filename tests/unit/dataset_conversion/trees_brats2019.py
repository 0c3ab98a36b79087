"""Tiny copies of the forms in which BraTS 2019 goes around."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.unit.dataset_conversion.trees_common import Tree, smooth, write_h5, write_nifti

SHAPE = (15, 24, 24)
KINDS = ("flair", "t1", "t1ce", "t2")
LABELED = ["BraTS19_TCIA02_370_1", "BraTS19_CBICA_ASA_1"]
UNLABELED = ["BraTS19_2013_8_1", "BraTS19_TCIA01_429_1"]
VALIDATION = ["BraTS19_CBICA_AAP_1"]
TEST = ["BraTS19_CBICA_AYA_1"]
CASES = LABELED + UNLABELED + VALIDATION + TEST
LOW_GRADE = (CASES[1], CASES[3])


def scan(seed: int, shape: tuple[int, ...] = SHAPE) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Four int16 images that are 0 outside of the brain, and a label with the values 0, 1, 2, 4."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    brain = (grid**2).sum(axis=0) < 0.9
    distance = np.sqrt(((grid - 0.2) ** 2).sum(axis=0)) + 0.05 * smooth(seed, shape)
    label = np.zeros(shape, np.uint8)
    for radius, value in ((0.5, 2), (0.35, 1), (0.2, 4)):
        label[distance < radius] = value
    images = {}
    for number, kind in enumerate(KINDS):
        image = 300 + 60 * smooth(10 * seed + number, shape) + 40 * label
        images[kind] = np.where(brain, np.clip(image, 1, None), 0).astype(np.int16)
    return images, label


def make_brats2019(
    folder: Path, form: str = "raw", shape: tuple[int, ...] = SHAPE, ending: str = ".nii.gz"
) -> Tree:
    """Six cases; the low-grade ones have no enhancing tumor."""
    lists = {"labeled": LABELED, "unlabeled": UNLABELED, "validation": VALIDATION, "test": TEST}
    tree = Tree("brats2019", folder, lists)
    for seed, case in enumerate(CASES):
        images, label = scan(seed, shape)
        if form == "h5":
            flair = images["flair"].astype(np.float32)
            flair = (flair - flair[flair > 0].mean()) / flair[flair > 0].std()
            path = folder / "data" / f"{case}.h5"
            tree.files[case] = write_h5(flair, (label > 0).astype(np.uint8), path, "zyx")
            continue
        label = np.where(label == 4, 1, label) if case in LOW_GRADE else label
        add_raw_case(case_folder(tree, case), case, images, label, ending)
    if form == "raw":
        (folder / top(tree) / "name_mapping.csv").write_text("Grade,BraTS_2019_subject_ID\n")
    tree.write_split()
    return tree


def top(tree: Tree) -> Path:
    return tree.root / "MICCAI_BraTS_2019_Data_Training"


def case_folder(tree: Tree, case: str) -> Path:
    return top(tree) / ("LGG" if case in LOW_GRADE else "HGG") / case


def add_raw_case(
    folder: Path,
    case: str,
    images: dict[str, np.ndarray],
    label: np.ndarray | None,
    ending: str = ".nii.gz",
) -> None:
    """The files of one case; those of the validation set have no label."""
    for kind, image in images.items():
        write_nifti(image, folder / f"{case}_{kind}{ending}")
    if label is not None:
        write_nifti(label, folder / f"{case}_seg{ending}")
