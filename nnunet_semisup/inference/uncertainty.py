"""Measure how sure a prediction is by voxel: the entropy of the mean of several predictions.

[0] Lakshminarayanan et al., Simple and scalable predictive uncertainty estimation using deep
    ensembles, NeurIPS 2017, arXiv 1612.01474: the mean of probabilities, and its entropy.
[1] Guo et al., On calibration of modern neural networks, ICML 2017, arXiv 1706.04599: a temperature
    for the logits, fitted by the likelihood of held-out labels.

With p the mean over N predictions of a voxel's probabilities, and T the temperature:
    q = softmax(log p / T), of regions sigmoid(logit(p) / T)
    map = - sum of q log q over the K classes / log K; of regions the mean of their binary entropies
The map is 0 where one class is certain and 1 where all are equally likely. Where the predictions
disagree, p is flat: the map rises.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import SimpleITK
import tifffile
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from torch import Tensor

from nnunet_semisup.atomic import atomic_path

FOLDER = "uncertainty"
"""Below the predictions, because nnU-Net takes each file of its ending beside them for a case."""
PICTURES = (".png", ".bmp", ".tif", ".tiff")


def file_of(output: Path, case: str, ending: str) -> Path:
    """Return where the map of a case is; pictures become float ``.tif``."""
    return output / FOLDER / f"{case}{'.tif' if ending in PICTURES else ending}"


def entropy(probabilities: Tensor, regions: bool) -> Tensor:
    """Return the normalised entropy ``(*spatial)``, from 0 to 1, of ``(K, *spatial)``."""
    p = probabilities.float()
    if not regions:
        return -torch.xlogy(p, p).sum(0) / math.log(len(p))
    binary = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))
    return binary.mean(0) / math.log(2)


class RunningMean:
    """Average probabilities of predictions that come one after the other; one of them is kept.

    Args:
        regions: sigmoid in place of softmax over the first axis.
    """

    def __init__(self, regions: bool) -> None:
        self.regions = regions
        self.number = 0
        self._sum: Tensor | None = None

    def add(self, logits: Tensor) -> None:
        """Add a prediction ``(K, *spatial)``."""
        logits = logits.float()
        probabilities = logits.sigmoid() if self.regions else logits.softmax(0)
        self._sum = probabilities if self._sum is None else self._sum.add_(probabilities)
        self.number += 1

    def logits(self) -> Tensor:
        """Return logits ``(K, *spatial)`` whose probabilities are the mean."""
        assert self._sum is not None
        mean = (self._sum / self.number).clamp_(1e-7, 1 - 1e-7)
        return mean.logit() if self.regions else mean.log_()


def mean_of(predictions: Iterable[Tensor], regions: bool) -> Tensor:
    """Return the logits of the mean of predictions, each ``(K, *spatial)``."""
    mean = RunningMean(regions)
    for logits in predictions:
        mean.add(logits)
    return mean.logits()


@dataclass(frozen=True)
class UncertaintyMap:
    """Write the map of a case beside its segmentation.

    Attributes:
        temperature: T; 1 leaves the probabilities as they are.
    """

    temperature: float

    def write(
        self,
        logits: npt.NDArray[Any],
        properties: dict[str, Any],
        configuration: Any,
        plans: Any,
        dataset_json: dict[str, Any],
        segmentation: Path,
        output: Path,
    ) -> None:
        """Write the map of a case whole or not at all.

        Args:
            logits: ``(K, *spatial)`` of the mean, on the network's grid.
            properties, configuration, plans, dataset_json: of the case, as nnU-Net's export.
            segmentation: of the case, whose geometry the map gets.
            output: folder of the predictions.
        """
        labels = plans.get_label_manager(dataset_json)
        tempered = np.ascontiguousarray(logits, dtype=np.float32) / self.temperature
        _, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
            tempered, plans, configuration, labels, properties, return_probabilities=True
        )
        values = entropy(torch.from_numpy(probabilities), labels.has_regions).numpy()
        ending = dataset_json["file_ending"]
        target = file_of(output, segmentation.name.removesuffix(ending), ending)
        target.parent.mkdir(exist_ok=True)
        suffix = target.name.removeprefix(segmentation.name.removesuffix(ending))
        with atomic_path(target, suffix=suffix) as temporary:
            write_map(values, segmentation, temporary, ending, plans.image_reader_writer_class)


def write_map(
    values: npt.NDArray[np.float32], like: Path, target: Path, ending: str, reader: type
) -> None:
    """Write float values with the geometry of a segmentation.

    Args:
        values: ``(*spatial)`` in the order of nnU-Net's reader.
        like: the segmentation.
        target: file to write.
        ending: of the segmentation.
        reader: nnU-Net's class that wrote it.
    """
    if ending in PICTURES:
        tifffile.imwrite(target, np.squeeze(values))
    elif reader.__name__.startswith("Nibabel"):
        image: Any = nibabel.load(like)
        if reader.__name__.endswith("Reorient"):
            image = nibabel.as_closest_canonical(image)
        nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), image.affine), target)
    else:
        geometry = SimpleITK.ReadImage(str(like))
        if reader.__name__.endswith("Reorient"):
            geometry = SimpleITK.DICOMOrient(geometry, "RAS")
        image = SimpleITK.GetImageFromArray(values.reshape(geometry.GetSize()[::-1]))
        image.CopyInformation(geometry)
        SimpleITK.WriteImage(image, str(target), useCompression=True)
