"""Values that the converters pass to each other: a data set's form, its cases, their facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_semisup.dataset_conversion.checking.intensities import Intensities
from nnunet_semisup.dataset_conversion.checking.label_meaning import Choices, Meaning
from nnunet_semisup.dataset_conversion.volume import Geometry, Volume

CT = "ct"
"""The name of a channel, in lower case, that nnU-Net shows in one window for all scans."""


class Subset(str, Enum):
    """Name the use of a case, which decides the folders it is written to."""

    LABELED = "labeled"
    VALIDATION = "validation"
    UNLABELED = "unlabeled"
    TEST = "test"

    @property
    def image_folder(self) -> str:
        """Return the folder of the images in nnU-Net's raw format."""
        return {"unlabeled": "imagesUn", "test": "imagesTs"}.get(self.value, "imagesTr")

    @property
    def label_folder(self) -> str:
        """Return the folder of the labels; that of unlabeled cases is only written on request."""
        return {"unlabeled": "labelsUn", "test": "labelsTs"}.get(self.value, "labelsTr")

    @property
    def needs_label(self) -> bool:
        """Return whether a case of this subset is useless without a label."""
        return self is not Subset.UNLABELED


@dataclass(frozen=True)
class Case:
    """Hold one scan on disk: a path a channel, and its label where there is one to be read.

    ``label`` is ``None`` for unlabeled cases unless their hidden labels were asked for: what is
    not named here is never opened.
    """

    id: str
    subset: Subset
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class SourceFiles:
    """Hold the files of one case on disk, whatever its subset."""

    images: tuple[Path, ...]
    label: Path | None


@dataclass
class FileFacts:
    """Describe a source file: its path, the hash of its bytes and, once read, of its voxels.

    ``repaired``: nnU-Net would read it otherwise, so that it must be written anew.
    """

    path: Path
    sha256: str
    voxels_sha256: str
    dtype: str
    minimum: float
    maximum: float
    total: float
    repaired: bool = False

    @property
    def varies(self) -> bool:
        """Return whether there is more than one value."""
        return self.minimum != self.maximum


@dataclass
class CaseFacts:
    """Hold what was found in one case. ``faults`` stop the conversion, ``warnings`` do not.

    ``turned_to`` are the axes to bring image and label to, if these are not theirs.
    ``label_names`` are the names that the label file gives the values that occur in it.
    ``intensities`` has every channel that could be read; ``window`` is where the first one has the
    label's foreground, if it is CT.
    """

    case: Case
    images: list[FileFacts] = field(default_factory=list)
    label: FileFacts | None = None
    geometry: Geometry | None = None
    label_counts: dict[int, int] = field(default_factory=dict)
    label_names: dict[int, str] = field(default_factory=dict)
    meaning: Meaning | None = None
    thumbnail: np.ndarray | None = None
    intensities: list[Intensities] = field(default_factory=list)
    window: tuple[float, float] | None = None
    turned_to: str = ""
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def shown(self) -> FileFacts:
        """Return the channel by which scans are compared: the first with more than one value."""
        return next((f for f in self.images if f.varies), self.images[0])


@dataclass(frozen=True)
class DatasetForm:
    """Hold what is particular to one form (raw download, h5 ...) of one data set.

    Args:
        name: the data set, as written to ``dataset.json``.
        source: name of the form, written to ``dataset.json`` and to the report.
        channel_names: nnU-Net's channel names by index.
        labels: nnU-Net's label values by name; a region is a tuple of values.
        label_map: value in the source to value in the result; any other value is a fault.
        read_image: reads a channel's path; must be a module-level function (it is pickled).
        read_label: reads a label's path.
        check: faults of one case that only this data set can have.
        check_voxels: likewise from the voxels of the first channel and of the label as read
            (``None`` where no label is read), both of shape ``(z, y, x)``.
        regions_class_order: nnU-Net's order of classes, where ``labels`` has regions.
        label_choices: what the user says of single values and names of label files that name their
            values; ``None`` where such names are only compared with ``labels``.
        label_advice: what to do about label values that are not expected.
        absent_label_advice: what to do about a label that no training case has.
        assumptions: what the files do not say and the converter assumes, for the report.
        images_ready: image files are what nnU-Net reads as they are, so they may be linked.
        file_ending: of the images and labels that are written.
        dimensions: of every image and label.
        components: values a voxel of an image file, such as 3 for colour photographs.
        test_labels: whether a test case must have a label.
        description: free text for ``dataset.json``.
        reference: citation for ``dataset.json``.
        licence: terms, as far as they are known.
    """

    name: str
    source: str
    channel_names: dict[int, str]
    labels: dict[str, int | tuple[int, ...]]
    label_map: dict[int, int]
    read_image: Callable[[Path], Volume]
    read_label: Callable[[Path], Volume]
    description: str
    reference: str
    licence: str
    check: Callable[[CaseFacts], list[str]] | None = None
    check_voxels: Callable[[CaseFacts, np.ndarray, np.ndarray | None], list[str]] | None = None
    regions_class_order: tuple[int, ...] | None = None
    assumptions: dict[str, Any] = field(default_factory=dict)
    images_ready: bool = False
    file_ending: str = ".nii.gz"
    dimensions: int = 3
    components: int = 1
    test_labels: bool = True
    label_choices: Choices | None = None
    label_advice: str = ""
    absent_label_advice: str = "check the label files"
