"""Labels of whole unlabeled scans, given by a network and kept on disk, and patches of them.

A label is what nnU-Net calls a segmentation of a preprocessed case, with :data:`DOUBTFUL` where the
network was not sure. It goes through the spatial augmentation with its image, and patches can be
drawn around its classes as nnU-Net draws them around annotated ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from torch import Tensor

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.data.unlabeled import UnlabeledDataset
from nnunet_semisup.data.valid import OUTSIDE
from nnunet_semisup.losses.targets import PseudoLabel

DOUBTFUL = 255
"""Value of voxels that are not to be learned from; nnU-Net's labels are smaller."""
PLACES = 1000
"""Voxels of a class that are kept for drawing patches around one of them."""
SIDE = 64
"""Edge of the blocks that are compressed, in voxels: a patch is read from few of them."""


def write_scan_label(folder: Path, case: str, label: np.ndarray, seed: int) -> None:
    """Write a scan's label, whole or not at all.

    Args:
        folder: of the labels.
        case: its id.
        label: ``(*spatial)`` uint8.
        seed: of the voxels that are kept of each class.
    """
    blocks = (1, *(min(SIDE, size) for size in label.shape))
    with atomic_path(folder / f"{case}.npy") as temporary, temporary.open("wb") as file:
        np.save(file, _places(label, seed).astype(np.uint16))
    with atomic_path(folder / f"{case}.b2nd") as temporary:
        temporary.unlink()  # blosc2 writes new files only.
        blosc2.asarray(label[None], urlpath=str(temporary), chunks=blocks, blocks=blocks)


def _places(label: np.ndarray, seed: int) -> np.ndarray:
    """Return voxels of each class, a line each: the class, then the place as nnU-Net keeps it."""
    draw = np.random.default_rng(seed)
    lines = [np.zeros((0, 2 + label.ndim), np.int64)]
    for value in np.unique(label):
        if value in (0, DOUBTFUL):
            continue
        voxels = np.flatnonzero(label == value)
        chosen = np.sort(draw.choice(voxels, min(PLACES, len(voxels)), replace=False))
        places = np.stack(np.unravel_index(chosen, label.shape), 1)
        lines.append(np.pad(places, ((0, 0), (2, 0))))
        lines[-1][:, 0] = value
    return np.concatenate(lines)


class LabeledScans(UnlabeledDataset):
    """Read unlabeled cases with labels that were written for them.

    Args:
        folders: case id to the folder of the preprocessed case.
        labels: folder of the labels.
        foreground: share of the patches that are drawn around a class.
    """

    labeled = True

    def __init__(self, folders: dict[str, str], labels: Path, foreground: float = 0.0) -> None:
        super().__init__(folders)
        self.labels = labels
        self.foreground = foreground

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:
        """Return image ``(C, *spatial)``, label ``(1, *spatial)``, ``None``, properties."""
        image, _, _, _ = super().load_case(identifier)
        path = self.labels / f"{identifier}.b2nd"
        label = blosc2.open(urlpath=str(path), mode="r", dparams={"nthreads": 1}, **self.mmap)
        lines = np.load(path.with_suffix(".npy")).astype(np.int64)  # For differences below 0.
        places = {int(value): lines[lines[:, 0] == value, 1:] for value in np.unique(lines[:, 0])}
        return image, label, None, {"class_locations": places}


def drawn_label(segmentation: Tensor, regions: Sequence[Sequence[int]] | None) -> PseudoLabel:
    """Return what a patch's segmentation asks the network to predict, and where.

    Args:
        segmentation: ``(B, 1, *spatial)`` of class values, :data:`DOUBTFUL` and outside marks.
        regions: values of each region; ``None`` where the classes do not overlap.
    """
    weight = ((segmentation > OUTSIDE) & (segmentation != DOUBTFUL)).float()
    if regions is None:
        return PseudoLabel(torch.where(weight > 0, segmentation.long(), 0), weight)
    # Numbers of the host, not tensors: a copy of those to the device would wait for it.
    inside = [torch.stack([segmentation == value for value in region]).any(0) for region in regions]
    target = torch.cat(inside, 1).long()
    return PseudoLabel(target, weight.expand_as(target))
