"""The matrix as a page: what each file means, what libraries make of it, and what the commands do.

    python -m tests.formats.table > docs/datasets/formats.md

A test compares the page with this output where the installed libraries have the page's versions.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
import tifffile
from PIL import Image
from skimage import io

from tests.formats.matrix import ROWS
from tests.formats.row import Row
from tests.formats.rows_dicom import read_values

LIBRARIES = ("SimpleITK", "nibabel", "tifffile", "Pillow", "scikit-image", "pydicom")
HEADER = """\
# What files say, and who reads it

Each row is a valid file that a test writes, with the meaning that its format's standard gives it
(nifti1.h, the NRRD and MetaImage specifications, TIFF 6.0, PNG, DICOM), what libraries make of it,
and what the commands do: "read" is with the values, voxel size and axes of the standard, "refused"
with a message that names the file and what to do. A voxel size of 2 x 2.5 x 3 mm is meant in every
row; a cell with other lengths, axes or values is what the library gives instead. v is a stored
value. A reader in brackets is one that `dataset.json` names.

`convert` writes what it reads, also where nnU-Net's own reader would read the source otherwise.
`verify` and planning (`plan_and_preprocess`, `preprocess`) accept a file only if nnU-Net's reader
gives what the standard means. Where a NIfTI file has a sform and a qform that differ, the standard
leaves the choice; SimpleITK takes the voxel size of the qform, and `convert` and `verify` warn.

Printed by `python -m tests.formats.table`; the tests in `tests/formats` hold every row against the
commands.

"""
Reading = tuple[np.ndarray, tuple[float, ...] | None, np.ndarray | None]


def versions() -> str:
    """The line of the page that says which libraries gave its cells."""
    return "Libraries: " + ", ".join(f"{name} {version(name)}" for name in LIBRARIES) + ".\n"


def _itk(path: Path) -> Reading:
    image = SimpleITK.ReadImage(str(path))
    shape = (image.GetDimension(),) * 2
    direction = np.reshape(image.GetDirection(), shape)
    return SimpleITK.GetArrayFromImage(image), image.GetSpacing(), direction


def _itk_series(path: Path) -> Reading:
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
    image = SimpleITK.ReadImage(names)
    direction = np.reshape(image.GetDirection(), (3, 3))
    return SimpleITK.GetArrayFromImage(image), image.GetSpacing(), direction


def _nibabel(path: Path) -> Reading:
    image = nibabel.load(path)
    axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    spacing = tuple(float(step) for step in image.header.get_zooms())
    return image.get_fdata().T, spacing, np.array([[-1.0], [-1.0], [1.0]]) * axes


def _pillow(path: Path) -> Reading:
    with Image.open(path) as picture:
        return np.asarray(picture), None, None


@dataclass(frozen=True)
class Group:
    """Rows of one table and the libraries that know the format."""

    title: str
    formats: tuple[str, ...]
    libraries: dict[str, Callable[[Path], Reading]]


GROUPS = (
    Group("NIfTI", ("NIfTI",), {"SimpleITK": _itk, "nibabel": _nibabel}),
    Group("NRRD, MetaImage, GIPL", ("NRRD", "MetaImage", "GIPL"), {"SimpleITK": _itk}),
    Group(
        "DICOM series",
        ("DICOM",),
        {"SimpleITK": _itk_series, "pydicom": lambda path: (read_values(path), None, None)},
    ),
    Group(
        "Pictures and TIFF stacks",
        ("PNG", "BMP", "TIFF", "JPEG", "GIF", "TIFF stack"),
        {
            "scikit-image": lambda path: (np.asarray(io.imread(path)), None, None),
            "tifffile": lambda path: (np.asarray(tifffile.imread(path)), None, None),
            "Pillow": _pillow,
            "SimpleITK": lambda path: (_itk(path)[0], None, None),
        },
    ),
)


def cell(row: Row, read: Callable[[Path], Reading], path: Path) -> str:
    """What a library makes of a file, beside what the standard says."""
    if read.__name__ == "_pillow" and row.format == "TIFF stack":
        return "first slice"
    try:
        with warnings.catch_warnings(), _no_output():
            warnings.simplefilter("ignore")
            values, spacing, direction = read(path)
    except Exception:  # each library has its own
        return "refuses"
    wanted = np.asarray(row.values(row.image()))
    differences = []
    if spacing is not None and (
        row.spacing is None or not np.allclose(spacing, row.spacing, rtol=1e-4)
    ):
        differences.append(" x ".join(f"{step:.6g}" for step in spacing) + " mm")
    if (
        direction is not None
        and row.direction is not None
        and not np.allclose(direction, row.direction, atol=1e-3)
    ):
        differences.append("other axes")
    return ", ".join([*differences, *_other_values(values, wanted)]) or "right"


def _other_values(values: np.ndarray, wanted: np.ndarray) -> Iterator[str]:
    """In what the values differ, if they do."""
    if values.shape != wanted.shape:
        yield f"shape {values.shape} for {wanted.shape}"
        return
    got, meant = values.astype(np.float64), wanted.astype(np.float64)
    differs = ~np.isclose(got, meant, rtol=1e-6)
    if np.isnan(meant).any():
        yield "v"
    elif differs.any():
        first = np.unravel_index(np.flatnonzero(differs)[0], differs.shape)
        yield f"value {got[first]:g} for {meant[first]:g}"


@contextlib.contextmanager
def _no_output() -> Iterator[None]:
    """Without what ITK prints beside Python's streams."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _ours(row: Row) -> list[str]:
    """Outcomes of convert, of verify and planning, and of evaluate."""
    planned = "refused" if "verify" in row.refused else "read"
    return [
        "refused" if "convert" in row.refused else "read",
        planned if row.by_nnunet else "-",
        ("refused" if "evaluate" in row.refused else "read")
        if row.by_nnunet and row.labels
        else "-",
    ]


def page() -> str:
    """The whole page."""
    parts = [HEADER, versions()]
    with tempfile.TemporaryDirectory() as scratch:
        for group in GROUPS:
            columns = ["format", "the header says", "that means", *group.libraries]
            columns += ["convert", "verify, planning", "evaluate"]
            parts.append(f"\n## {group.title}\n\n| {' | '.join(columns)} |\n")
            parts.append("|---" * len(columns) + "|\n")
            for number, row in enumerate(r for r in ROWS if r.format in group.formats):
                path = Path(scratch) / f"{number}{row.ending}"
                row.write(path, row.image())
                says = row.says + (f" ({row.reader})" if row.reader else "")
                found = [
                    "-" if name == "tifffile" and row.ending != ".tif" else cell(row, read, path)
                    for name, read in group.libraries.items()
                ]
                cells = [row.format, says, row.means or "as it says", *found, *_ours(row)]
                parts.append(f"| {' | '.join(cells)} |\n")
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")
