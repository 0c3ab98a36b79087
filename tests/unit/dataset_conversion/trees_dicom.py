"""DICOM series as small as they can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK

HEAD_FIRST = (1, 0, 0, 0, 1, 0)
FLIPPED_ROWS = (1, 0, 0, 0, -1, 0)


def write_slice(path: Path, pixels: np.ndarray, tags: Mapping[str, str]) -> None:
    """One file; ``pixels`` are the values after the rescale that ``tags`` name."""
    image = SimpleITK.GetImageFromArray(pixels)
    row, column = (float(v) for v in tags["0028|0030"].split("\\"))
    image.SetSpacing((column, row))
    for tag, value in tags.items():
        image.SetMetaData(tag, value)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.Execute(image)


def slice_tags(
    index: int,
    patient: str,
    orientation: Sequence[float] = HEAD_FIRST,
    spacing: tuple[float, float, float] = (0.7, 0.8, 1.0),
    origin: tuple[float, float, float] = (-5.0, 6.0, 40.0),
) -> dict[str, str]:
    """Tags of the slice at ``index`` along the normal; ``spacing`` is along x, y and z."""
    normal = np.cross(orientation[:3], orientation[3:])
    position = np.array(origin) + index * spacing[2] * normal
    uid = f"1.2.826.{sum(patient.encode())}"
    return {
        "0008|0060": "CT",
        "0008|0018": f"{uid}.{index + 1}",
        "0010|0020": patient,
        "0020|000d": f"{uid}.0.1",
        "0020|000e": f"{uid}.0.2",
        "0020|0013": str(index + 1),
        "0020|0032": "\\".join(f"{v:g}" for v in position),
        "0020|0037": "\\".join(f"{v:g}" for v in orientation),
        "0028|0030": f"{spacing[1]:g}\\{spacing[0]:g}",
        "0028|1052": "-1024",
        "0028|1053": "1",
    }


def write_series(
    folder: Path,
    array: np.ndarray,
    patient: str,
    names: Sequence[str] | None = None,
    changes: Mapping[int, Mapping[str, str]] | None = None,
    **tags,
) -> list[Path]:
    """A series whose slice ``k`` along the normal is ``array[k]``; returns the files.

    Args:
        folder: where to.
        array: shape ``(z, y, x)``, int16 Hounsfield units.
        patient: its id.
        names: of the files, default ``1-001.dcm`` and so on.
        changes: tags of single slices, by index.
        tags: keywords of :func:`slice_tags`.
    """
    files = []
    for index, pixels in enumerate(array):
        written = folder / f"{index + 1}.tmp.dcm"
        change = dict((changes or {}).get(index, {}))
        write_slice(written, pixels, {**slice_tags(index, patient, **tags), **change})
        path = folder / (names[index] if names else f"1-{index + 1:03d}.dcm")
        files.append(written.rename(path))
    return files


def patch(file: Path, old: bytes, new: bytes) -> None:
    """Replace bytes of a file, for what no writer would write; the length stays."""
    content = file.read_bytes()
    assert old in content
    assert len(old) == len(new)
    file.write_bytes(content.replace(old, new))
