"""Label files that say what their values mean, as several programs write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from nibabel.nifti1 import Nifti1Extension

from tests.unit.dataset_conversion.trees_generic import LABELED, SHAPE, Folders, scan, write

Names = Mapping[int, str]
LIVER_FIRST: Names = {1: "liver", 2: "spleen"}
SPLEEN_FIRST: Names = {1: "spleen", 2: "liver"}
SPACING = (1.0, 1.0, 2.0)


def organs(seed: int, names: Names = LIVER_FIRST, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A large liver and a small spleen with the values that ``names`` gives them."""
    value = {name.lower(): v for v, name in names.items()}
    liver = value.get("liver", value.get("leber", 1))
    label = np.zeros(shape, np.uint8)
    label[2:8, 2:12, 2 : 10 + seed % 3] = liver
    label[2:5, 14:18, 14:20] = value.get("spleen", 3 - liver)
    return label


def slicer(names: Names) -> dict[str, str]:
    """The keys of a ``.seg.nrrd`` of one layer."""
    keys = {}
    for index, (value, name) in enumerate(names.items()):
        keys |= {
            f"Segment{index}_Name": name,
            f"Segment{index}_LabelValue": str(value),
            f"Segment{index}_Layer": "0",
        }
    return keys


def mitk(names: Names) -> dict[str, str]:
    """The keys of a segmentation of MITK."""
    labels = [{"name": name, "value": value} for value, name in names.items()]
    return {
        "modality": "org.mitk.multilabel.segmentation",
        "org.mitk.multilabel.segmentation.labelgroups": json.dumps([{"labels": labels}]),
    }


def write_nrrd(
    label: np.ndarray,
    path: Path,
    keys: Mapping[str, str],
    spacing: tuple[float, ...] = SPACING,
) -> None:
    image = SimpleITK.GetImageFromArray(label)
    image.SetSpacing(spacing)
    for key, value in keys.items():
        image.SetMetaData(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))


def write_layers(layers: list[np.ndarray], names: list[str], path: Path, old: bool = False) -> None:
    """A ``.seg.nrrd`` with a layer a segment; ``old`` as Slicer wrote it before 4.11."""
    keys = {}
    for index, name in enumerate(names):
        keys[f"Segment{index}_Name"] = name
        if not old:
            keys |= {f"Segment{index}_LabelValue": "1", f"Segment{index}_Layer": str(index)}
    stacked = np.stack(layers).transpose(0, 3, 2, 1)
    lines = [
        "NRRD0004",
        "type: unsigned char",
        "dimension: 4",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, stacked.shape))}",
        "space directions: none (1,0,0) (0,1,0) (0,0,2)",
        "kinds: list domain domain domain",
        "encoding: raw",
        "space origin: (0,0,0)",
        *(f"{key}:={value}" for key, value in keys.items()),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + "\n\n").encode() + stacked.tobytes("F"))


def label_table(names: Names) -> bytes:
    """The extension's text as Connectome Workbench and TotalSegmentator write it."""
    labels = "".join(
        f'<Label Key="{value}" Red="1" Green="0" Blue="0" Alpha="1"><![CDATA[{name}]]></Label>\n'
        for value, name in names.items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?> <CaretExtension> <VolumeInformation Index="0"> '
        f"<LabelTable>{labels}</LabelTable></VolumeInformation></CaretExtension>\n              "
    ).encode()


def write_nifti(
    label: np.ndarray,
    path: Path,
    names: Names | None,
    code: int = 30,
    spacing: tuple[float, ...] = SPACING,
) -> None:
    """A label, with a label table in an extension of the given code."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    image = nibabel.Nifti1Image(label.T, affine)
    if names is not None:
        image.header.extensions.append(Nifti1Extension(code, label_table(names)))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def make_named(root: Path, second: Names = SPLEEN_FIRST, ending: str = ".seg.nrrd") -> Folders:
    """Three labels with names in their headers, of which ``p2`` has those of ``second``."""
    made = Folders(root, ".nii.gz")
    for seed, case in enumerate((*LABELED, "p4")):
        write(scan(seed), made.image(case))
    for seed, case in enumerate(LABELED):
        names = second if case == "p2" else LIVER_FIRST
        if ending == ".nii.gz":
            write_nifti(organs(seed, names), made.labels / f"{case}.nii.gz", names)
        else:
            write_nrrd(organs(seed, names), made.labels / f"{case}{ending}", slicer(names))
    return made
