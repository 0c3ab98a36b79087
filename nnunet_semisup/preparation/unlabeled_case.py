"""Checks of one unlabeled case: every byte is read, every fault is collected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_semisup.headers import misreading
from nnunet_semisup.headers.nifti import NIBABEL_READERS, is_nifti, numbers, open_nifti, unit_fault
from nnunet_semisup.preparation.image_files import (
    Header,
    complete_header,
    count_not_finite,
    last_line,
)
from nnunet_semisup.preparation.rules import (
    STRICT,
    Accepted,
    judge_constant_channels,
    same_direction,
    same_place,
    same_spacing,
    spacing_fault,
)
from nnunet_semisup.preparation.sources import DamagedFileError, SourceFile, read_source


@dataclass(frozen=True)
class Reference:
    """Hold what every unlabeled case must agree with, taken from the training images.

    ``unit`` is that of their headers, ``factor`` the mm in what ``reader_class`` takes for 1 mm.
    ``spacing_range`` holds the smallest and the largest training spacing of each axis in mm, axes
    sorted by spacing so that the orientation of a scan does not matter.
    """

    reader_class: type[Any]
    num_files: int
    num_channels: int
    dimension: int | None
    unit: str
    factor: float
    spacing_range: tuple[tuple[float, float], ...]
    accepted: Accepted = STRICT

    @property
    def by_nibabel(self) -> bool:
        """Return whether the reader takes the geometry from nibabel, which knows no units."""
        return self.reader_class.__name__ in NIBABEL_READERS


@dataclass(frozen=True)
class Inspection:
    """Hold what :func:`inspect_unlabeled` found: files, faults and notes of the case."""

    sources: tuple[SourceFile, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Volume:
    name: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    placement: dict[str, np.ndarray]
    only_value: float | None


def inspect_unlabeled(
    identifier: str, images: Sequence[Path], side_file: Path | None, reference: Reference
) -> Inspection:
    """Read all files of one case and compare them with the training images.

    Args:
        identifier: id of the case, named in every fault.
        images: channel files in order.
        side_file: JSON file with the spacing, for 3D tif.
        reference: what the case must agree with.
    """
    faults: list[str] = []
    sources: list[SourceFile] = []
    volumes: list[_Volume] = []
    for path in images:
        try:
            source, length = read_source(path)
            sources.append(source)
            header = _checked_header(path, length, reference)
            if fault := misreading(path, by_nibabel=reference.by_nibabel):
                faults.append(f"{path.name}: {fault}")
                continue
            volumes.append(_read_volume(path, header, reference, faults))
        except DamagedFileError as error:
            faults.append(f"{path.name} {error}")
    if side_file is not None:
        try:
            sources.append(read_source(side_file)[0])
        except DamagedFileError as error:
            faults.append(f"{side_file.name} {error}")
    faults += _case_faults(volumes, len(images), reference)
    constant, notes = judge_constant_channels(
        {volume.name: volume.only_value for volume in volumes}, reference.accepted
    )
    return Inspection(
        tuple(sources),
        tuple(f"case {identifier}: {fault}" for fault in (*faults, *constant)),
        tuple(f"case {identifier}: {note}" for note in notes),
    )


def _checked_header(path: Path, length: int, reference: Reference) -> Header | None:
    header = complete_header(path, length)
    if header is None:
        return None
    if reference.dimension is not None and header.dimension != reference.dimension:
        raise DamagedFileError(
            f"is {header.dimension}-dimensional, the training images are "
            f"{reference.dimension}-dimensional"
        )
    return header


def _read_volume(
    path: Path, header: Header | None, reference: Reference, faults: list[str]
) -> _Volume:
    reader = reference.reader_class()
    try:
        data, properties = reader.read_images([str(path)])
        stored = _stored_voxels(path, data)
    except Exception as error:  # readers raise whatever their library raises
        raise DamagedFileError(
            f"cannot be read by {reference.reader_class.__name__} "
            f"({type(error).__name__}: {last_line(error) or 'no details'})"
        ) from error
    spacing = tuple(float(s) * reference.factor for s in properties["spacing"])
    if reference.by_nibabel and header is not None and header.factor != reference.factor:
        faults.append(f"{path.name} {unit_fault(header.unit, reference.unit)}")
    elif fault := spacing_fault(spacing, reference.spacing_range):
        declared = "" if header is None or header.unit == "mm" else f" ({_declared(header.unit)})"
        faults.append(f"{path.name} {fault}{declared}")
    for word, count in zip(("NaN", "infinite"), count_not_finite(stored), strict=True):
        if count:
            faults.append(f"{path.name} has {count} of {stored.size} voxels that are {word}")
    only_value = float(data.flat[0]) if (data == data.flat[0]).all() else None
    return _Volume(path.name, data.shape, spacing, _placement(properties), only_value)


def _declared(unit: str) -> str:
    return f"its header declares the unit {unit}, NIfTI field xyzt_units"


def _stored_voxels(path: Path, data: np.ndarray) -> np.ndarray:
    """Return voxels as stored: ITK's NIfTI reader silently turns NaN and infinite ones into 0."""
    if not is_nifti(path):
        return data
    image = open_nifti(path)[1]
    if not np.issubdtype(image.get_data_dtype(), np.inexact):
        return data
    return np.asanyarray(image.dataobj)


def _placement(properties: dict[str, Any]) -> dict[str, np.ndarray]:
    itk = properties.get("sitk_stuff", {})
    nibabel = properties.get("nibabel_stuff", {})
    parts = {"origin": itk.get("origin"), "direction": itk.get("direction")}
    parts["affine"] = nibabel.get("original_affine")
    return {k: np.asarray(v, dtype=float) for k, v in parts.items() if v is not None}


def _case_faults(volumes: list[_Volume], num_files: int, reference: Reference) -> list[str]:
    if not volumes:
        return []
    faults = []
    for other in volumes[1:]:
        faults += _geometry_faults(volumes[0], other)
    found = sum(volume.shape[0] for volume in volumes)
    if len(volumes) == num_files == reference.num_files and found != reference.num_channels:
        faults.append(f"has {found} channels, dataset.json names {reference.num_channels}")
    return faults


def _geometry_faults(first: _Volume, other: _Volume) -> list[str]:
    pair = f"channels {first.name} and {other.name} differ in"
    if first.shape[1:] != other.shape[1:]:
        return [f"{pair} shape: {first.shape[1:]} and {other.shape[1:]} (z, y, x)"]
    if not same_spacing(first.spacing, other.spacing):
        return [f"{pair} spacing: {numbers(first.spacing)} and {numbers(other.spacing)}"]
    for part in first.placement.keys() & other.placement.keys():
        a, b = first.placement[part], other.placement[part]
        if part == "direction":
            same = same_direction(a.ravel(), b.ravel())
        else:
            same = same_place(a.ravel(), b.ravel(), first.spacing)
        if not same:
            return [f"{pair} {part}: {numbers(a.ravel())} and {numbers(b.ravel())}"]
    return []
