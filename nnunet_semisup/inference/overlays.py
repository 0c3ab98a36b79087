"""Draw predictions over the images that they are of, one PNG a case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import tifffile

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.evaluation.inputs import (
    Reader,
    SegmentationClass,
    read_label_map,
    segmentation_classes,
)
from nnunet_semisup.evaluation.overlays import Image, draw_overlay, find_images, read_image
from nnunet_semisup.inference.uncertainty import file_of
from nnunet_semisup.parallel import map_cases

FOLDER = "overlays"
"""Below the predictions."""


@dataclass(frozen=True)
class _Job:
    name: str
    image: Path
    segmentation: Path
    uncertainty: Path | None
    reader: Reader
    classes: tuple[SegmentationClass, ...]
    target: Path


def draw_predictions(
    names: Sequence[str],
    images: Path,
    output: Path,
    dataset_json: dict[str, Any],
    reader: Reader,
    with_map: bool,
    num_processes: int,
) -> None:
    """Write ``overlays/CASE.png`` of cases that were predicted, each whole or not at all.

    Args:
        names: of the cases.
        images: folder of them.
        output: folder of the predictions.
        dataset_json: of the model.
        reader: nnU-Net's class that reads its files.
        with_map: lay the uncertainty over the image.
        num_processes: cases drawn at the same time.
    """
    ending = dataset_json["file_ending"]
    files = find_images(names, images, ending)
    classes = segmentation_classes(dataset_json)
    folder = output / FOLDER
    folder.mkdir(exist_ok=True)
    jobs = [
        _Job(
            name,
            files[name],
            output / f"{name}{ending}",
            file_of(output, name, ending) if with_map else None,
            reader,
            classes,
            folder / f"{name}.png",
        )
        for name in names
    ]
    map_cases(_draw, jobs, list(names), num_processes, "Overlays")


def _draw(job: _Job) -> None:
    image = read_image(job.image, job.reader)
    prediction = read_label_map(job.segmentation, job.reader, trust_affine=True)
    uncertainty = (
        None if job.uncertainty is None else read_map(job.uncertainty, image.shape, job.reader)
    )
    figure = draw_overlay(image, None, prediction, job.classes, job.name, uncertainty)
    with atomic_path(job.target) as temporary:
        figure.savefig(temporary, format="png")


def read_map(path: Path, shape: tuple[int, ...], reader: Reader) -> Image:
    """Return a map of ``shape`` in the order of the reader's arrays."""
    if path.suffix == ".tif":
        return np.asarray(tifffile.imread(path), np.float32).reshape(shape)
    if reader.__name__.startswith("Nibabel"):
        return np.asarray(reader().read_images([str(path)])[0][0], np.float32)
    values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    return np.asarray(values, np.float32).reshape(shape)
