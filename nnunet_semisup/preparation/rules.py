"""Rules for a case: one function for one fact, whichever command looks at it.

``convert``, ``verify``, ``preprocess`` and ``plan_and_preprocess`` read images in different ways
and ask here what they make of them, so that none refuses what another accepts.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_semisup.headers.nifti import numbers
from nnunet_semisup.preparation.layout import CONVERSION_REPORT

RELATIVE_TOLERANCE = 1e-3
"""Of spacings and cosines that count as equal."""
_SEGMENTATION_SUFFIX = "_seg"
_ORIGIN_TOLERANCE_VOXELS = 0.1
_UNIT_FACTORS = (10, 100, 1000)
_SPACING_SLACK = 1.5


@dataclass(frozen=True)
class Accepted:
    """Hold what the user accepts, by ``--allow-constant-channels`` and ``--allow-empty``."""

    constant_channels: bool = False
    empty_labels: bool = False

    def or_as_converted(self, raw_folder: Path) -> Accepted:
        """Return what is accepted by option now, or was when the data set was converted.

        Args:
            raw_folder: of the data set; it need not have been converted.
        """
        try:
            report = json.loads((raw_folder / CONVERSION_REPORT).read_text(encoding="utf-8"))
            settings = dict(report["settings"])
        except (OSError, ValueError, KeyError, TypeError):
            return self
        return Accepted(
            self.constant_channels or bool(settings.get("allow_constant_channels")),
            self.empty_labels or bool(settings.get("allow_empty")),
        )


def declared_copies(raw_folder: Path) -> str:
    """Return what ends the names of scans that a data set has twice by intention; empty: none.

    Data sets of rounds have scans with predicted labels as unlabeled ones, too.
    """
    try:
        report = json.loads((raw_folder / CONVERSION_REPORT).read_text(encoding="utf-8"))
        return str(report["settings"]["copies_end_with"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


STRICT = Accepted()
"""Nothing beyond what is always accepted."""


def identifier_faults(
    identifier: str, training_ids: Collection[str], test_ids: Collection[str]
) -> list[str]:
    """Return what is wrong with the id of an unlabeled case."""
    faults = [
        f"case {identifier}: the id is also used in {folder}; ids must differ"
        for folder, ids in (("imagesTr", training_ids), ("imagesTs", test_ids))
        if identifier in ids
    ]
    if identifier.endswith(_SEGMENTATION_SUFFIX):
        faults.append(
            f"case {identifier}: an id must not end in '{_SEGMENTATION_SUFFIX}', nnU-Net would "
            "take the preprocessed file for a segmentation; rename the case"
        )
    return faults


def channel_faults(
    identifier: str, files: Mapping[int, Path], num_files: int, file_ending: str
) -> list[str]:
    """Return which channels of a case are missing, and which should not be there."""
    faults = [
        f"case {identifier}: channel {channel} is missing "
        f"(expected {identifier}_{channel:04d}{file_ending})"
        for channel in range(num_files)
        if channel not in files
    ]
    faults += [
        f"case {identifier}: unexpected channel {channel} ({files[channel].name}); the training "
        f"images have {num_files} file(s) a case, numbered from 0000"
        for channel in sorted(files)
        if channel >= num_files
    ]
    return faults


def judge_constant_channels(
    values: Mapping[str, float | None], accepted: Accepted
) -> tuple[list[str], list[str]]:
    """Return faults and notes on channels of a case in which every voxel has one value.

    A sequence that a scan lacks is often stored as zeros. nnU-Net trains on it: its normalisations
    guard against a deviation of 0, and it crops to where any channel is not 0. A case without any
    channel that varies shows nothing.

    Args:
        values: name of each channel's file to its only value, ``None`` where it has several.
        accepted: by the user.
    """
    constant = [
        f"{name}: every voxel has the value {value:g}"
        for name, value in values.items()
        if value is not None
    ]
    if len(constant) == len(values):
        what = "" if len(values) == 1 else " like all channels of the case"
        advice = "take the original file, or leave the case out"
        return [f"{text}{what}; {advice}" for text in constant], []
    if accepted.constant_channels:
        return [], constant
    advice = "--allow-constant-channels accepts a channel that a scan lacks"
    return [f"{text}; {advice}" for text in constant], []


def judge_empty_label(name: str, values: Iterable[int], accepted: Accepted) -> list[str]:
    """Return faults of a label without foreground.

    Args:
        name: of its file.
        values: of its voxels, without the ignore label's.
        accepted: by the user.
    """
    if accepted.empty_labels or any(values):
        return []
    return [f"{name}: the label has no foreground; --allow-empty accepts that"]


def judge_foreground_of_all(cases: Mapping[str, Iterable[int]], ignored: int | None) -> list[str]:
    """Return faults of labeled cases that have no foreground in any of them.

    There is nothing to learn then, and nnU-Net has no intensities for its fingerprint.

    Args:
        cases: id of each labeled case to the values of its label.
        ignored: the ignore label, which is no foreground.
    """
    if not cases or any(value not in (0, ignored) for found in cases.values() for value in found):
        return []
    return [
        f"none of the {len(cases)} labeled cases has foreground in its label, so there is nothing "
        "to learn; check the label files, or add cases that have some"
    ]


def is_positive(spacing: Sequence[float]) -> bool:
    """Return whether a spacing has a length above 0 on every axis."""
    return all(0 < step < np.inf for step in spacing)


def same_spacing(first: Sequence[float], second: Sequence[float]) -> bool:
    """Return whether two spacings agree to a thousandth."""
    return bool(np.allclose(first, second, rtol=RELATIVE_TOLERANCE, atol=0))


def same_direction(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray
) -> bool:
    """Return whether the cosines of two scans' axes agree to a thousandth."""
    return len(first) == len(second) and bool(
        np.allclose(first, second, rtol=0, atol=RELATIVE_TOLERANCE)
    )


def same_place(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    spacing: Sequence[float],
) -> bool:
    """Return whether the origins of two channels agree to a tenth of a voxel.

    Args:
        first: of one channel in mm.
        second: of the other.
        spacing: of both, in mm.
    """
    tolerance = _ORIGIN_TOLERANCE_VOXELS * min(spacing)
    return len(first) == len(second) and bool(np.allclose(first, second, rtol=0, atol=tolerance))


def spacing_fault(spacing: Sequence[float], ranges: Sequence[tuple[float, float]]) -> str | None:
    """Return why a spacing is suspicious: not positive, or about 10, 100, 1000 times others.

    Args:
        spacing: of one image, in mm.
        ranges: smallest and largest spacing of the training images, axes sorted by spacing.
    """
    if not is_positive(spacing):
        return f"has the spacing {numbers(spacing)}; every axis must be positive"
    ordered = sorted(spacing)
    for factor in _UNIT_FACTORS:
        for scale, word in ((factor, "larger"), (1 / factor, "smaller")):
            fits = all(
                low / _SPACING_SLACK <= s / scale <= high * _SPACING_SLACK
                for s, (low, high) in zip(ordered, ranges, strict=True)
            )
            outside = all(
                not low <= s <= high for s, (low, high) in zip(ordered, ranges, strict=True)
            )
            if fits and outside:
                known = " x ".join(
                    f"{low:g}" if low == high else f"{low:g}..{high:g}" for low, high in ranges
                )
                return (
                    f"has the spacing {numbers(spacing)}, about {factor} times {word} on all axes "
                    f"than the training images ({known}, axes sorted): a mistake of the unit? "
                    "nnU-Net expects millimetres"
                )
    return None
