"""nnU-Net's fingerprint without the voxels of the ignore label.

nnU-Net 2.8.1 takes every voxel with a label above 0 for foreground
(``fingerprint_extractor.collect_foreground_intensities``), and the ignore label is the highest. The
intensities of voxels of which nobody knows what they show then enter the mean, the deviation and
the percentiles, by which CT channels are clipped and normalised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor as stock
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)
from nnunetv2.paths import nnUNet_preprocessed

from nnunet_semisup.preparation.layout import FINGERPRINT_FILE

_MARK = "without_ignore_label"


class IgnoreAwareFingerprintExtractor(DatasetFingerprintExtractor):
    """Extract nnU-Net's fingerprint, with voxels of the ignore label as background.

    The file has one more key than nnU-Net's, so that it is known again; the planner reads the
    others. Without an ignore label it is nnU-Net's own.
    """

    def run(self, overwrite_existing: bool = False) -> dict[str, Any]:
        """Return the fingerprint, as nnU-Net; one that counts the ignore label is made anew."""
        ignored = self.dataset_json["labels"].get("ignore")
        if ignored is None:
            return dict(super().run(overwrite_existing))
        path = Path(nnUNet_preprocessed) / self.dataset_name / FINGERPRINT_FILE
        if not overwrite_existing and leaves_ignored_out(path):
            return dict(load_json(str(path)))
        with _readers_without(int(ignored)):
            fingerprint = {**super().run(True), _MARK: int(ignored)}
        save_json(fingerprint, str(path))
        return fingerprint


def leaves_ignored_out(path: Path) -> bool:
    """Return whether a fingerprint was made by :class:`IgnoreAwareFingerprintExtractor`.

    Args:
        path: of the fingerprint, which need not be there.
    """
    return path.is_file() and _MARK in load_json(str(path))


def ignored_share(cases: Sequence[Mapping[int, int]], ignored: int) -> float:
    """Return the share of the ignore label in the voxels that nnU-Net takes for foreground.

    It draws equally many voxels from each case that has any.

    Args:
        cases: number of voxels by value, for each label.
        ignored: the ignore label.
    """
    shares = []
    for counts in cases:
        labeled = sum(number for value, number in counts.items() if value != 0)
        if labeled:
            shares.append(counts.get(ignored, 0) / labeled)
    return float(np.mean(shares)) if shares else 0.0


class _KnownLabels:
    """Read as a reader of nnU-Net does, with background for the ignore label."""

    def __init__(self, reader_class: Callable[[], Any], ignored: int) -> None:
        self._reader = reader_class()
        self._ignored = ignored

    def read_images(self, files: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """Read images as the reader does."""
        images, properties = self._reader.read_images(files)
        return images, properties

    def read_seg(self, file: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Read a label as the reader does, with 0 for the ignore label."""
        labels, properties = self._reader.read_seg(file)
        return np.where(labels == self._ignored, labels.dtype.type(0), labels), properties


@contextmanager
def _readers_without(ignored: int) -> Iterator[None]:
    """Give nnU-Net's extractor readers that know no ignore label, while the context lasts.

    It has no hook for that: ``run`` looks the reader up, and calls ``analyze_case`` of the stock
    class by name.
    """
    choose = stock.determine_reader_writer_from_dataset_json

    def chosen(*args: Any, **kwargs: Any) -> Any:
        return partial(_KnownLabels, choose(*args, **kwargs), ignored)

    stock.determine_reader_writer_from_dataset_json = chosen
    try:
        yield
    finally:
        stock.determine_reader_writer_from_dataset_json = choose
