"""Tiny copies of the forms in which ACDC goes around."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from tests.unit.dataset_conversion.trees_common import Tree, smooth, write_h5

SHAPE = (6, 24, 28)
SPACING = (1.5, 1.25, 10.0)
LABELED, UNLABELED = ["patient099", "patient038"], ["patient090", "patient050"]
VALIDATION, TEST = ["patient028"], ["patient011"]
PATIENTS = LABELED + UNLABELED + VALIDATION + TEST
FRAMES = dict.fromkeys(PATIENTS, (1, 12)) | {"patient090": (4, 11)}
"""Numbers of the annotated frames in the film."""


def both_frames(patients: list[str]) -> list[str]:
    return [f"{patient}_frame0{k}" for patient in patients for k in (1, 2)]


def scan(patient: str, frame: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """An image (int16) and a label with nested structures, of shape ``(z, y, x)``."""
    seed = 100 * int(patient[-3:]) + frame
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    distance = np.hypot(grid[1] - 0.2, grid[2]) + 0.05 * smooth(seed, shape)
    label = np.zeros(shape, np.uint8)
    label[np.hypot(grid[1] + 0.4, grid[2]) < 0.25] = 1
    label[distance < 0.4] = 2
    label[distance < 0.25] = 3
    image = 100 + 25 * smooth(seed + 1, shape) + 60 * label
    return np.clip(image, 0, None).astype(np.int16), label


def write_acdc(array: np.ndarray, path: Path, spacing: tuple[float, ...] = SPACING) -> None:
    """A NIfTI file as the challenge's: true voxel size in the qform, unit scale in the sform."""
    stored = array.T
    header = nibabel.Nifti1Header()
    header.set_data_shape(stored.shape)
    header.set_data_dtype(stored.dtype)
    header.set_qform(np.diag([-spacing[0], -spacing[1], spacing[2], 1]), code=1)
    header["sform_code"] = 2
    for row, values in zip(("srow_x", "srow_y", "srow_z"), np.diag([-1, -1, 1, 0]), strict=False):
        header[row] = values
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(stored, None, header)
    image.header["qform_code"], image.header["sform_code"] = 1, 2
    nibabel.save(image, path)


def make_acdc(folder: Path, form: str = "raw", shape: tuple[int, ...] = SHAPE) -> Tree:
    """Six patients with two frames each."""
    lists = {
        "labeled": both_frames(LABELED),
        "unlabeled": both_frames(UNLABELED),
        "validation": both_frames(VALIDATION),
        "test": both_frames(TEST),
    }
    tree = Tree("acdc", folder, lists)
    for patient in PATIENTS:
        add_patient(tree, patient, form, shape)
    tree.write_split()
    return tree


def add_patient(
    tree: Tree, patient: str, form: str = "raw", shape: tuple[int, ...] = SHAPE
) -> None:
    """All files of one patient."""
    numbers = FRAMES.get(patient, (1, 12))
    for k, number in enumerate(numbers, 1):
        image, label = scan(patient, number, shape)
        if form == "h5":
            scaled = (image - image.min()) / (image.max() - image.min())
            write_h5(scaled, label, tree.root / "data" / f"{patient}_frame0{k}.h5", "zyx")
            slices = tree.root / "data" / "slices" / f"{patient}_frame0{k}_slice_1.h5"
            write_h5(scaled[0], label[0], slices, "zyx")
        else:
            write_acdc(image, frame(tree, patient, number))
            write_acdc(label, frame(tree, patient, number, "_gt"))
    if form == "raw":
        (folder_of(tree, patient) / "Info.cfg").write_text(
            f"ED: {max(numbers)}\nES: {min(numbers)}\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\n"
        )
        (folder_of(tree, patient) / "MANDATORY_CITATION.md").write_text("cite")
        (folder_of(tree, patient) / f"{patient}_4d.nii.gz").write_bytes(b"not read")


def folder_of(tree: Tree, patient: str) -> Path:
    part = "training" if int(patient[-3:]) <= 100 else "testing"
    return tree.root / "database" / part / patient


def frame(tree: Tree, patient: str, number: int, suffix: str = "") -> Path:
    return folder_of(tree, patient) / f"{patient}_frame{number:02d}{suffix}.nii.gz"
