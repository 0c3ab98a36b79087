"""Tiny nnU-Net data sets for tests, and nnU-Net's planning and preprocessing without processes.

A data set is made in three steps::

    folders = nnunet_folders(tmp_path, monkeypatch)   # nnUNet_raw, _preprocessed, _results
    made = make_raw_dataset(folders.raw, 501, "Blobs", (24, 24, 24), num_labeled=3, num_unlabeled=2)
    plan_and_preprocess_labeled(501, ["3d_fullres"])  # stock code, in this process
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK

from nnunet_semisup.registry import METHODS
from nnunet_semisup.training.settings import split_assignments

Labels = Mapping[str, int | Sequence[int]]
BINARY: Labels = {"background": 0, "blob": 1}


@dataclass(frozen=True)
class Folders:
    """The three folders of nnU-Net."""

    raw: Path
    preprocessed: Path
    results: Path


@dataclass(frozen=True)
class RawDataset:
    """A raw data set on disk and the ids of its cases."""

    folder: Path
    name: str
    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    test: tuple[str, ...]


def nnunet_folders(root: Path, monkeypatch: Any) -> Folders:
    """Create nnU-Net's three folders under ``root`` and point its environment variables there."""
    folders = Folders(root / "raw", root / "preprocessed", root / "results")
    for variable, folder in (
        ("nnUNet_raw", folders.raw),
        ("nnUNet_preprocessed", folders.preprocessed),
        ("nnUNet_results", folders.results),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv(variable, str(folder))
    return folders


def make_raw_dataset(
    root: Path,
    dataset_id: int,
    name: str,
    shape: Sequence[int],
    num_labeled: int,
    num_unlabeled: int,
    num_channels: int = 1,
    labels: Labels = BINARY,
    file_ending: str = ".nii.gz",
    spacing: Sequence[float] | None = None,
    num_test: int = 0,
    regions_class_order: Sequence[int] | None = None,
    channel_name: str = "MR",
) -> RawDataset:
    """Write ``root/DatasetXXX_name`` with one bright ellipsoid per class on noise.

    Class ``k`` has the intensity ``0.2 + k`` on noise of standard deviation 0.1, so a small network
    learns it in a few steps. The same arguments always give the same voxels. Unlabeled cases get
    no label file.

    Args:
        root: the folder ``nnUNet_raw``.
        dataset_id: three-digit number of the data set.
        name: its name after the number.
        shape: size in voxels ``(z, y, x)``; two numbers make 2D images (then use ``".png"``).
        num_labeled: cases ``lab_000``... in ``imagesTr`` and ``labelsTr``.
        num_unlabeled: cases ``unl_000``... in ``imagesUn``; with 0 the folder is not made.
        num_channels: files per case; channel ``c`` is scaled by ``1 + c``.
        labels: ``labels`` of ``dataset.json``; regions are lists, ``"ignore"`` marks the first
            slab of every labeled case.
        file_ending: of images and labels; ``.png`` is written with 8 bits.
        spacing: voxel size in mm ``(z, y, x)``, default 1 mm; not used for ``.png``.
        num_test: cases ``tst_000``... in ``imagesTs`` and ``labelsTs``.
        regions_class_order: passed to ``dataset.json`` when regions are used.
        channel_name: ``"CT"`` selects nnU-Net's CT normalization.
    """
    folder = root / f"Dataset{dataset_id:03d}_{name}"
    groups = {
        "Tr": tuple(f"lab_{i:03d}" for i in range(num_labeled)),
        "Un": tuple(f"unl_{i:03d}" for i in range(num_unlabeled)),
        "Ts": tuple(f"tst_{i:03d}" for i in range(num_test)),
    }
    for number, (suffix, ids) in enumerate(groups.items()):
        for i, identifier in enumerate(ids):
            rng = np.random.default_rng([dataset_id, number, i])
            image, label = _blobs(rng, tuple(shape), _classes(labels))
            if suffix == "Tr" and "ignore" in labels:
                label[: max(1, shape[0] // 8)] = labels["ignore"]
            for c in range(num_channels):
                name = f"{identifier}_{c:04d}{file_ending}"
                write_image(folder / f"images{suffix}" / name, image * (1 + c), spacing)
            if suffix != "Un":
                path = folder / f"labels{suffix}" / f"{identifier}{file_ending}"
                write_image(path, label, spacing)
    _write_dataset_json(
        folder, num_labeled, [channel_name] * num_channels, labels, file_ending, regions_class_order
    )
    return RawDataset(folder, folder.name, groups["Tr"], groups["Un"], groups["Ts"])


def _write_dataset_json(
    folder: Path,
    num_labeled: int,
    channel_names: Sequence[str],
    labels: Labels,
    file_ending: str,
    regions_class_order: Sequence[int] | None,
) -> None:
    content: dict[str, Any] = {
        "channel_names": {str(c): name for c, name in enumerate(channel_names)},
        "labels": dict(labels),
        "numTraining": num_labeled,
        "file_ending": file_ending,
    }
    if regions_class_order is not None:
        content["regions_class_order"] = list(regions_class_order)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def write_image(path: Path, array: np.ndarray, spacing: Sequence[float] | None = None) -> None:
    """Write ``array`` (integers as a label map) with ``spacing`` in mm, both ordered z, y, x."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        is_image = np.issubdtype(array.dtype, np.floating)
        array = np.clip(array * 40 + 20, 1, 255) if is_image else array
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.astype(np.uint8)), str(path))
        return
    dtype = np.float32 if np.issubdtype(array.dtype, np.floating) else np.uint8
    image = SimpleITK.GetImageFromArray(array.astype(dtype))
    image.SetSpacing([float(s) for s in (spacing or [1.0] * array.ndim)][::-1])
    SimpleITK.WriteImage(image, str(path), True)


def _classes(labels: Labels) -> list[int]:
    values = set()
    for label_name, value in labels.items():
        if label_name != "ignore":
            values |= {value} if isinstance(value, int) else set(value)
    return sorted(values - {0})


def _blobs(
    rng: np.random.Generator, shape: tuple[int, ...], classes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    label = np.zeros(shape, np.uint8)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    for value in classes:
        radii = rng.uniform(0.15, 0.25, len(shape)) * shape
        centre = rng.uniform(0.3, 0.7, len(shape)) * shape
        label[(((grid - centre) / radii) ** 2).sum(-1) <= 1] = value
    return rng.normal(0.2, 0.1, shape) + label, label


@contextmanager
def nnunet_in_process() -> Iterator[None]:
    """Make nnU-Net's planning and preprocessing fast for tiny images.

    Threads replace its process pools, and the fingerprint samples 10,000 voxels of a case instead
    of 10^8 divided by the number of cases (with replacement, whatever the size of the image).
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )

    analyze_case = DatasetFingerprintExtractor.analyze_case

    def analyze_few_voxels(images: Any, label: Any, reader: Any, _: int) -> Any:
        return analyze_case(images, label, reader, 10_000)

    threads = SimpleNamespace(
        get_context=lambda _: SimpleNamespace(Pool=ThreadPool), Pool=ThreadPool
    )
    package = "nnunetv2"
    with (
        mock.patch(f"{package}.utilities.utils.Pool", ThreadPool),
        mock.patch(
            f"{package}.experiment_planning.dataset_fingerprint.fingerprint_extractor"
            ".multiprocessing",
            threads,
        ),
        mock.patch.object(
            DatasetFingerprintExtractor, "analyze_case", staticmethod(analyze_few_voxels)
        ),
        mock.patch(
            f"{package}.preprocessing.preprocessors.default_preprocessor.multiprocessing", threads
        ),
    ):
        yield


@contextmanager
def validation_in_threads() -> Iterator[None]:
    """Let nnU-Net's final validation write and score in threads; it spawns processes for both."""
    threads = SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=ThreadPool))
    with (
        mock.patch("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.multiprocessing", threads),
        mock.patch("nnunetv2.evaluation.evaluate_predictions.multiprocessing", threads),
    ):
        yield


def plan_and_preprocess_labeled(
    dataset_id: int, configurations: Sequence[str], **planning: Any
) -> str:
    """Run nnU-Net's fingerprint, plan and preprocessing of ``imagesTr`` in this process.

    Args:
        dataset_id: number of the data set.
        configurations: to preprocess for; none plans only.
        planning: keyword arguments of nnU-Net's ``plan_experiments``.

    Returns:
        Name of the plans.
    """
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    with nnunet_in_process():
        api.extract_fingerprints(
            [dataset_id], num_processes=1, clean=True, verbose=False, show_progress_bar=False
        )
        plans = api.plan_experiments([dataset_id], **planning)
        if configurations:
            api.preprocess([dataset_id], plans, list(configurations), [1], show_progress_bar=False)
    return str(plans)


def trial_settings(trainer: str) -> dict[str, str]:
    """Return a registry row's settings for a trial; none for a class that is not in it."""
    rows = (method for method in METHODS if method.trainer == trainer)
    return next((split_assignments(method.trial) for method in rows), {})
