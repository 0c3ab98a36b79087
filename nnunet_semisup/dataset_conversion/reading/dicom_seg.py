"""DICOM SEG as labels, read with highdicom onto the grid of the image that they belong to."""

from __future__ import annotations

import importlib.util
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from nnunet_semisup.dataset_conversion.reading.dicom_slices import (
    ROUNDING_MM,
)
from nnunet_semisup.dataset_conversion.volume import (
    Geometry,
    UnreadableFileError,
    UnusableFileError,
    Volume,
)
from nnunet_semisup.errors import UserError

_ON_GRID = 0.05
"""Share of a voxel by which a segmentation may lie beside the image's grid."""


_OFF_GRID = (
    "the DICOM SEG does not lie on the grid of the image. Resample it, for example in 3D Slicer, "
    "or give the series that it was drawn on"
)


def need_highdicom() -> None:
    """Refuse DICOM SEG where they cannot be read.

    Raises:
        UserError: highdicom is not installed.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise UserError(
            "labels in DICOM SEG need highdicom; type: pip install 'nnunet-semisup[dicom]'"
        )


def segment_names(path: Path) -> dict[int, str]:
    """Return the SegmentLabel by the segment's number, which is its value in :func:`read_seg`.

    Args:
        path: of a DICOM SEG; the pixels are not read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, stop_before_pixels=True)
    return {
        int(segment.SegmentNumber): str(segment.get("SegmentLabel", "")).strip()
        for segment in header.get("SegmentSequence", ())
    }


def read_seg(path: Path, grid: Geometry) -> Volume:
    """Read a DICOM SEG.

    Frames without a segment are usually left out of such files. Without SpacingBetweenSlices,
    highdicom 0.28.2 takes the distance of the frames that there are for that of the slices; the
    image's is given instead.

    Args:
        path: the file.
        grid: of the image.

    Returns:
        The number of the segment of every voxel, 0 where there is none, on ``grid``.

    Raises:
        UnreadableFileError: damaged.
        UnusableFileError: no binary segments, or segments that overlap or lie on another grid.
        ImportError: highdicom is not installed.
    """
    import highdicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            content = pydicom.dcmread(path)
            _check(content)
            distance = _set_slice_distance(content, grid)
            segmentation = highdicom.seg.Segmentation.from_dataset(content, copy=False)
        except UnusableFileError:
            raise
        except Exception as error:  # on damaged files highdicom and pydicom raise many kinds
            raise UnreadableFileError(f"damaged or not a complete DICOM SEG ({error})") from error
        return Volume(_on_grid(segmentation, grid, distance), grid)


def _on_grid(segmentation: Any, grid: Geometry, distance: float) -> np.ndarray:
    """Bring the segments' numbers to the image's grid, whose slices have a distance in mm."""
    import highdicom

    wanted = highdicom.VolumeGeometry(_affine(grid), grid.size[::-1], "PATIENT")
    rounding = _ON_GRID + ROUNDING_MM / min(grid.spacing)
    try:
        found = segmentation.get_volume(
            combine_segments=True, dtype=np.uint16, atol=_ON_GRID * distance + ROUNDING_MM
        )
        matched = found.match_geometry(wanted, tol=rounding)
        far = _farthest(matched.affine, wanted.affine, matched.array.shape)
    except RuntimeError as error:
        if "overlap" in str(error):
            raise UnusableFileError(
                "its segments overlap, and a voxel has one label in nnU-Net. Take the common "
                "voxels from one of them, for example in 3D Slicer"
            ) from error
        raise UnusableFileError(_OFF_GRID) from error
    except Exception as error:  # frames that cannot be decoded
        raise UnreadableFileError(f"damaged or not a complete DICOM SEG ({error})") from error
    if far > min(grid.spacing) / 2:
        raise UnusableFileError(_OFF_GRID)
    if np.count_nonzero(matched.array) != np.count_nonzero(found.array):
        raise UnusableFileError(
            "the DICOM SEG has voxels outside of the image. Give the series that it was drawn on"
        )
    array: np.ndarray = matched.array
    return array


def _check(content: Any) -> None:
    """Refuse what has no label a voxel."""
    lacking = [
        name
        for name in ("SegmentSequence", "SegmentationType", "SharedFunctionalGroupsSequence")
        if name not in content
    ]
    if lacking:
        raise UnusableFileError(
            f"the DICOM SEG has no {', '.join(lacking)}, so that it does not say what is segmented "
            "and where. Export it again, for example with 3D Slicer or highdicom"
        )
    if content.SegmentationType == "FRACTIONAL":
        raise UnusableFileError(
            "the DICOM SEG has fractions of voxels (SegmentationType FRACTIONAL); save it as BINARY"
        )


def _set_slice_distance(content: Any, grid: Geometry) -> float:
    """Say what the distance of slices is, that of the image's grid along their normal, in mm."""
    groups = [*content.SharedFunctionalGroupsSequence]
    groups += content.get("PerFrameFunctionalGroupsSequence", ())
    planes = [plane for group in groups for plane in group.get("PlaneOrientationSequence", ())]
    row, column = np.reshape([float(v) for v in planes[0].ImageOrientationPatient], (2, 3))
    along = np.abs(np.reshape(grid.direction, (3, 3)).T @ np.cross(row, column))
    distance = grid.spacing[int(np.argmax(along))]
    for group in groups:
        for measures in group.get("PixelMeasuresSequence", ()):
            measures.SpacingBetweenSlices = distance
    return distance


def _farthest(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the largest distance in mm of a corner of a grid under two affines."""
    corners = np.array(list(product(*((0, size - 1) for size in shape), (1,))))
    return float(np.linalg.norm(corners @ (first - second).T, axis=1).max())


def _affine(grid: Geometry) -> np.ndarray:
    """Return the 4 x 4 affine from indices ``(z, y, x)`` to millimetres (LPS)."""
    affine = np.eye(4)
    affine[:3, :3] = (np.reshape(grid.direction, (3, 3)) * grid.spacing)[:, ::-1]
    affine[:3, 3] = grid.origin
    return affine
