"""Preprocessed unlabeled cases as nnU-Net data sets that never open a mask."""

from __future__ import annotations

import os
from typing import Any

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from nnunet_semisup.data.copy_on_write import open_array
from nnunet_semisup.data.valid import nothing_outside


class UnlabeledDataset(nnUNetBaseDataset):
    """Read images of several folders of preprocessed cases, without their masks.

    ``load_case`` gives the image (lazily read), a segmentation of zeros for what will be marked in
    it (:mod:`nnunet_semisup.data.valid`), ``None`` and properties with no class locations: what
    nnU-Net's loader needs for random patches. Neither the ``_seg`` file nor the properties of a
    case are opened, so neither need exist.

    Args:
        folders: case id to the folder that holds ``<id>.b2nd`` or ``<id>.npy`` or ``<id>.npz``.
    """

    labeled = False
    """Whether segmentations have classes in them (:mod:`nnunet_semisup.data.scan_labels`)."""
    foreground = 0.0
    """Share of the patches that are drawn around a class."""

    def __init__(self, folders: dict[str, str]) -> None:
        self.folders = folders
        self.identifiers = sorted(folders)
        self.mmap: dict[str, str] = {} if os.name == "nt" else {"mmap_mode": "r"}
        blosc2.set_nthreads(1)

    def load_case(self, identifier: str) -> tuple[Any, np.ndarray, None, dict[str, Any]]:
        """Return image ``(C, *spatial)``, zeros ``(1, *spatial)``, ``None``, properties."""
        stem = os.path.join(self.folders[identifier], identifier)
        if os.path.isfile(stem + ".b2nd"):
            image = blosc2.open(
                urlpath=stem + ".b2nd", mode="r", dparams={"nthreads": 1}, **self.mmap
            )
        elif os.path.isfile(stem + ".npy"):
            image = open_array(stem + ".npy")
        else:
            image = np.load(stem + ".npz")["data"]
        return image, nothing_outside(image.shape[1:]), None, {"class_locations": {}}

    @staticmethod
    def save_case(*args: Any, **kwargs: Any) -> None:
        """Refuse: unlabeled cases are written by the plan's preprocessor alone."""
        raise TypeError("UnlabeledDataset only reads")

    @staticmethod
    def get_identifiers(folder: str) -> list[str]:
        """Return the case ids of a folder of preprocessed cases."""
        files = os.listdir(folder)
        stems = {f.rsplit(".", 1)[0] for f in files if f.endswith((".b2nd", ".npz", ".npy"))}
        return sorted(stem for stem in stems if not (stem.endswith("_seg") and stem[:-4] in stems))
