"""The order and direction of a scan's axes, which nnU-Net ignores.

nnU-Net 2.8.1 takes voxels as they are stored (``SimpleITKIO``, ``NibabelIO``): a scan whose first
axis runs to the left looks mirrored beside one whose first axis runs to the right. Its readers
``SimpleITKIOWithReorient`` and ``NibabelIOWithReorient`` turn all scans to one order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK

from nnunet_semisup.headers.nifti import is_nifti
from nnunet_semisup.preparation.image_files import HEADER_ENDINGS, itk_header

REORIENTING_READERS = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")
ADVICE = (
    "nnUNetv2_semisup_convert generic FOLDER -d ID --reorient brings all to one order; or let "
    'nnU-Net do it, by "overwrite_image_reader_writer": "SimpleITKIOWithReorient" in dataset.json '
    "before planning"
)
"""What to do about a data set that is in ``nnUNet_raw`` already."""

_SHOWN = 5


@dataclass(frozen=True)
class PlacedScan:
    """Hold a case, the folder of its images in nnU-Net's layout, and its :func:`axis_codes`."""

    case: str
    folder: str
    axes: str


def axis_codes(direction: Sequence[float]) -> str:
    """Return where the axes of a scan point, as nibabel's ``aff2axcodes`` names it.

    Args:
        direction: cosines in ITK's convention (LPS), row by row; of four axes the first three
            count. Oblique and sheared axes have the nearest letters.

    Returns:
        Three letters for x, y, z, such as ``"LPS"`` where x runs to the left; ``""`` for pictures.
    """
    dimension = round(len(direction) ** 0.5)
    if dimension < 3:
        return ""
    cosines = np.reshape(direction, (dimension, dimension))[:3, :3]
    codes: str = SimpleITK.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(
        [float(cosine) for cosine in cosines.ravel()]
    )
    return codes


def file_axes(path: Path, by_nibabel: bool = False) -> str:
    """Return :func:`axis_codes` of a file, reading its header alone.

    Args:
        path: a scan in a format with a direction; any other file, and one that cannot be read, has
            ``""``, as a picture has.
        by_nibabel: take nibabel's affine (the sform) of NIfTI files. Sheared ones, which ITK does
            not read, have it in any case.
    """
    if not path.name.endswith(HEADER_ENDINGS):
        return ""
    if not (by_nibabel and is_nifti(path)):
        try:
            return axis_codes(itk_header(path).GetDirection())
        except RuntimeError:
            if not is_nifti(path):
                return ""
    try:
        image: Any = nibabel.load(path)
        return "".join(nibabel.aff2axcodes(image.affine)) if image.ndim > 2 else ""
    except Exception:  # whatever a damaged file makes nibabel raise
        return ""


def common_axes(scans: Iterable[PlacedScan]) -> str:
    """Return the axes that most training images have, else most scans; ``""`` for pictures."""
    placed = [scan for scan in scans if scan.axes]
    training = Counter(scan.axes for scan in placed if scan.folder == "imagesTr")
    counted = Counter(scan.axes for scan in placed)
    return max(counted, key=lambda axes: (training[axes], counted[axes], axes), default="")


def turned_scans(scans: Sequence[PlacedScan]) -> list[PlacedScan]:
    """Return the scans whose axes differ from :func:`common_axes`."""
    common = common_axes(scans)
    return [scan for scan in scans if scan.axes and scan.axes != common]


def turned_warning(scans: Sequence[PlacedScan], advice: str) -> str | None:
    """Say which scans have their axes in another order than most; ``None`` if none has.

    Args:
        scans: of all cases.
        advice: what can be done about it.
    """
    turned = turned_scans(scans)
    if not turned:
        return None
    listed = "; ".join(
        f"{folder}: {_names([scan for scan in turned if scan.folder == folder])}"
        for folder in dict.fromkeys(scan.folder for scan in turned)
    )
    return (
        f"the axes of {len(turned)} of {len(scans)} cases are in another orientation than those of "
        f"most labeled cases ({common_axes(scans)}): {listed}. nnU-Net ignores the direction in a "
        f"header, so that it sees these mirrored or turned; {advice}"
    )


def _names(scans: Sequence[PlacedScan]) -> str:
    """Return the first few cases with their axes."""
    shown = ", ".join(f"{scan.case} ({scan.axes})" for scan in scans[:_SHOWN])
    more = len(scans) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
