"""Whatever a path in a user's own folders stands for, read as a scan or as a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_semisup.dataset_conversion.generic.channels import is_channel, read_channel
from nnunet_semisup.dataset_conversion.generic.structure_masks import Masks, mask_files
from nnunet_semisup.dataset_conversion.reading import formats, slicer_crop
from nnunet_semisup.dataset_conversion.reading.dicom import is_dicom, read_dicom_folder
from nnunet_semisup.dataset_conversion.reading.dicom_seg import read_seg
from nnunet_semisup.dataset_conversion.volume import (
    Geometry,
    UnreadableFileError,
    UnusableFileError,
    Volume,
)


def read_any_image(path: Path) -> Volume:
    """Read an image file, a channel of one, or a folder with a DICOM series.

    Raises:
        UnreadableFileError: see the functions for each of them.
    """
    if path.is_dir():
        return read_dicom_folder(path)
    return read_channel(path) if is_channel(path) else formats.read_image(path)


def is_seg(path: Path) -> bool:
    """Return whether a label is a DICOM SEG, the only one that is a DICOM file by itself."""
    return path.is_file() and formats.ending_of(path) is None and is_dicom(path)


def needs_image(path: Path) -> bool:
    """Return whether a label is brought to the grid of its image: DICOM SEG and Slicer's."""
    return is_seg(path) or slicer_crop.is_segmentation(path)


def is_masks(path: Path) -> bool:
    """Return whether a label is a folder of masks."""
    return path.is_dir() and bool(mask_files(path))


@dataclass(frozen=True)
class LabelReader:
    """Read labels of every kind.

    Args:
        images: image by label, for the labels that :func:`needs_image` is true of.
        masks: what becomes of one mask file a structure.
    """

    images: Mapping[Path, Path] = field(default_factory=dict)
    masks: Masks = field(default_factory=Masks)

    def __call__(self, path: Path) -> Volume:
        """Read a label file, a DICOM SEG, or a folder with masks or a DICOM series.

        Raises:
            UnreadableFileError: see the functions for each of them.
        """
        if is_masks(path):
            return self.masks.read(path)
        if path.is_dir():
            return read_dicom_folder(path)
        if is_seg(path):
            return read_seg(path, self._grid_of(path))
        volume = formats.read_label(path)
        if path in self.images and slicer_crop.is_segmentation(path):
            return slicer_crop.on_grid(volume, self._grid_of(path))
        return volume

    def _grid_of(self, label: Path) -> Geometry:
        """Return the grid of a label's image."""
        try:
            return read_any_image(self.images[label]).geometry
        except (UnreadableFileError, OSError) as error:
            raise UnusableFileError(
                f"is brought to the grid of {self.images[label]}, which cannot be read; repair "
                "that one"
            ) from error
