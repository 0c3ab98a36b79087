"""One mask file a structure in a folder a case, as TotalSegmentator writes them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunet_semisup.dataset_conversion.generic.options import LAST, OVERLAPS
from nnunet_semisup.dataset_conversion.reading import formats
from nnunet_semisup.dataset_conversion.reading.label_names import plain
from nnunet_semisup.dataset_conversion.volume import (
    Geometry,
    UnreadableFileError,
    UnusableFileError,
    Volume,
)
from nnunet_semisup.preparation.raw import composed, is_junk

_SHOWN = 10


def mask_files(folder: Path) -> dict[str, Path]:
    """Return the mask files directly in a folder, by the name of what they show."""
    found = {}
    for path in sorted(folder.iterdir()):
        ending = formats.ending_of(path)
        if ending is not None and not path.is_dir() and not is_junk(path):
            found[composed(path.name[: -len(ending)])] = path
    return found


def names_of_masks(labels: Iterable[Path]) -> str | None:
    """Return the names of all masks as ``--label-names`` has them; ``None`` if there is none.

    Args:
        labels: of which some may be folders of masks.
    """
    names = {name for path in labels if path.is_dir() for name in mask_files(path)}
    return ",".join(["background", *sorted(names)]) if names else None


def folders_of_structures(labels: Mapping[str, Path], images: Collection[str]) -> str | None:
    """Return what is wrong where folders of masks are named after structures, not after cases.

    Args:
        labels: folder of masks by its name.
        images: the cases.
    """
    folders = {name: path for name, path in labels.items() if path.is_dir()}
    if not folders or not set(images).isdisjoint(folders):
        return None
    name, folder = next(iter(folders.items()))
    case = next((stem for stem in mask_files(folder) if stem in images), None)
    if case is None:
        return None
    return (
        f"{folder.parent} has a folder a structure ({_listed(folders)}), named after it; a folder "
        f"a case is read. Move {folder / case}* to {folder.parent / case / name}*, and the others "
        "likewise"
    )


@dataclass(frozen=True)
class Masks:
    """Make one label of several masks.

    Args:
        values: nnU-Net's value by the name of a mask's file without ending, as
            :func:`label_names.plain` has it; other files are not opened.
        overlap: ``"last"``: where masks overlap, the one with the highest value has the voxel.
    """

    values: Mapping[str, int] = field(default_factory=dict)
    overlap: str = OVERLAPS[0]

    def read(self, folder: Path) -> Volume:
        """Read the masks of a case.

        Args:
            folder: with a file a mask.

        Returns:
            The values of all masks, 0 elsewhere: uint8 of shape ``(z, y, x)``.

        Raises:
            UnreadableFileError: a damaged file.
            UnusableFileError: a mask is not there, has several values or another grid, or overlaps
                with another one.
        """
        there = mask_files(folder)
        files = {plain(name): path for name, path in there.items()}
        if not self.values:
            raise UnusableFileError(
                f"no label has the name of a mask ({_listed(there)}); say which masks are which "
                "label: --label-map 'MASK:VALUE,...'"
            )
        missing = [name for name in self.values if name not in files]
        if missing:
            raise UnusableFileError(
                f"there is no mask of {', '.join(missing)}, only of {_listed(there)}. Add it, with "
                "zeros alone where the case has no such structure, or leave it out of --label-names"
            )
        label: np.ndarray | None = None
        grid: Geometry | None = None
        overlaps = []
        for name, value in sorted(self.values.items(), key=lambda item: item[1]):
            volume = _read(files[name])
            inside = _inside(volume, files[name])
            if label is None or grid is None:
                label, grid = np.zeros(inside.shape, np.uint8), volume.geometry
            if not grid.equals(volume.geometry):
                raise UnusableFileError(
                    f"{files[name].name} has another grid than the others. Take the file that "
                    "belongs to them, or resample it by nearest neighbour"
                )
            if self.overlap != LAST:
                overlaps += self._overlaps(label[inside], name, value)
            label[inside] = value
        if overlaps:
            raise UnusableFileError(
                f"masks overlap, and a voxel has one label in nnU-Net: {'; '.join(overlaps)}. "
                f"Correct them, or give --overlap {LAST}: then the one that comes later in "
                "--label-names has the voxel"
            )
        assert label is not None
        assert grid is not None
        return Volume(label, grid)

    def _overlaps(self, taken: np.ndarray, name: str, own: int) -> list[str]:
        """Name the masks that a further one overlaps, from the labels inside of it."""
        names = {value: other for other, value in self.values.items()}
        return [
            f"{names[value]} and {name} share {count} voxels"
            for value, count in zip(*np.unique(taken, return_counts=True), strict=True)
            if value not in {0, own}
        ]


def _read(path: Path) -> Volume:
    """Read one mask; what is wrong with it has its name, since the label is the folder."""
    try:
        return formats.read_label(path)
    except UnusableFileError as error:
        raise UnusableFileError(f"{path.name} {error}") from error
    except UnreadableFileError as error:
        raise UnreadableFileError(f"{path.name}: {error}") from error


def _inside(volume: Volume, path: Path) -> np.ndarray:
    """Return where a mask is."""
    values = np.unique(volume.array)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        shown = ", ".join(f"{value:g}" for value in values[:_SHOWN])
        raise UnusableFileError(
            f"{path.name} has the values {shown}; the mask of one structure has 0 and one other. "
            "Save one file a structure"
        )
    return volume.array != 0


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(list(names)[:_SHOWN]) + " ..." * (len(names) > _SHOWN)
