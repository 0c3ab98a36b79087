"""What a case must be: one function for one fact, whichever command looks at it.

``convert``, ``verify``, ``preprocess`` and ``plan_and_preprocess`` read images in different ways
and ask here what they make of them, so that none refuses what another accepts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_semisup.preparation.layout import CONVERSION_REPORT

_ORIGIN_TOLERANCE_VOXELS = 0.1


@dataclass(frozen=True)
class Accepted:
    """What the user accepts in a data set, by ``--allow-constant-channels``, ``--allow-empty``."""

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


STRICT = Accepted()
"""Nothing beyond what is always accepted."""


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
