"""Folders of small label files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

SPACING_ZYX = (3.0, 1.0, 0.5)


class Folders:
    """A reference, a prediction and an image folder, and functions that fill them."""

    def __init__(self, root: Path) -> None:
        self.reference, self.prediction, self.images = (root / n for n in ("labelsTs", "out", "im"))
        for folder in (self.reference, self.prediction, self.images):
            folder.mkdir()

    def write(self, folder, name, array, spacing=SPACING_ZYX, origin=(0.0, 0.0, 0.0)):
        image = SimpleITK.GetImageFromArray(np.asarray(array))
        image.SetSpacing([float(s) for s in spacing[-image.GetDimension() :]][::-1])
        image.SetOrigin(origin[: image.GetDimension()])
        SimpleITK.WriteImage(image, str(folder / f"{name}.nii.gz"))

    def case(self, name, reference, prediction, **geometry):
        self.write(self.reference, name, np.asarray(reference, np.uint8), **geometry)
        self.write(self.prediction, name, np.asarray(prediction, np.uint8), **geometry)

    def dataset_json(self, labels, folder=None, **other):
        content = {
            "channel_names": {"0": "MR"},
            "labels": labels,
            "file_ending": ".nii.gz",
            **other,
        }
        path = (folder or self.prediction) / "dataset.json"
        path.write_text(json.dumps(content))
        return path

    def written(self):
        """Every file and folder below the three folders."""
        return sorted(
            p for f in (self.reference, self.prediction, self.images) for p in f.rglob("*")
        )


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path)


@pytest.fixture
def cube():
    """A cube of label 1 in a volume of 8 x 8 x 8."""
    labels = np.zeros((8, 8, 8), dtype=np.uint8)
    labels[2:5, 2:5, 2:5] = 1
    return labels
