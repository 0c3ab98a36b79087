"""The names that a label file gives its values.

Programs number what is segmented in the order in which it was drawn, so that one value may be the
liver in one file and the spleen in the next; where a file has the names, these decide.

Sources: Slicer's `.seg.nrrd <https://slicer.readthedocs.io/en/latest/developer_guide/modules/
segmentations.html>`_ (``SegmentN_Name``, ``_LabelValue``, ``_Layer``; VolView writes the same),
MITK's ``MultiLabelSegmentationIO`` (a json list of groups in the NRRD header), the label table
in xml that Caret, Connectome Workbench (code 30) and TotalSegmentator (code 0) put into a NIfTI
extension, and DICOM SEG (SegmentLabel by SegmentNumber, PS3.3, C.8.20.4).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from nnunet_semisup.dataset_conversion.reading.dicom import is_dicom
from nnunet_semisup.dataset_conversion.reading.dicom_seg import segment_names
from nnunet_semisup.dataset_conversion.volume import UnusableFileError, Volume

LAYERED = 1001
"""First value of a file whose segments lie in layers, where values do not tell them apart."""

_NIFTI_ENDINGS = (".nii", ".nii.gz")
_MITK_KEY = "org.mitk.multilabel.segmentation.labelgroups"
_SHOWN = 10


@dataclass(frozen=True)
class _Segment:
    name: str
    layer: int
    value: int


def plain(name: str) -> str:
    """Return a name for comparison: case, and blanks, ``_`` or ``-`` between words, do not count.

    ``"Left_kidney"`` and ``"left  kidney"`` are the same name.
    """
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def named_values(path: Path) -> dict[int, str] | None:
    """Return what the values of a label file mean, as far as the file says it.

    Args:
        path: a label file of any kind. Only its header is read.

    Returns:
        Name by value; a value with two names has ``"a or b"``. Files with layers are numbered from
        :data:`LAYERED` on, as :func:`in_one_layer` numbers them. ``None`` if the file has no names,
        or cannot be read, which is said where its voxels are.
    """
    segments = _segments(path)
    if _are_layered(segments):
        return {LAYERED + index: segment.name for index, segment in enumerate(segments)}
    names: dict[int, str] = {}
    for segment in segments:
        known = names.get(segment.value)
        differs = known is not None and plain(known) != plain(segment.name)
        names[segment.value] = f"{known} or {segment.name}" if differs else segment.name
    return names or None


def in_one_layer(volume: Volume, path: Path) -> Volume:
    """Bring the layers of a label file into one, numbered as :func:`named_values` numbers them.

    Args:
        volume: as read, of shape ``(z, y, x)`` or, with layers, ``(z, y, x, layer)``.
        path: the file.

    Returns:
        ``volume`` itself unless the file has segments in layers.

    Raises:
        UnusableFileError: segments of two layers overlap, so that a voxel would need two labels.
    """
    segments = _segments(path)
    if not _are_layered(segments):
        return volume
    layers = volume.array.reshape(*volume.array.shape[: len(volume.geometry.size)], -1)
    label = np.zeros(layers.shape[:-1], np.uint16)
    overlaps = []
    for index, segment in enumerate(segments):
        if segment.layer >= layers.shape[-1]:
            raise UnusableFileError(
                f"its header has segment '{segment.name}' in layer {segment.layer}, counted from "
                f"0, and the file has {layers.shape[-1]}. Save it again"
            )
        inside = layers[..., segment.layer] == segment.value
        for other, shared in zip(*np.unique(label[inside], return_counts=True), strict=True):
            if other:
                first = segments[other - LAYERED].name
                overlaps.append(f"'{first}' and '{segment.name}' share {shared} voxels")
        label[inside] = LAYERED + index
    if overlaps:
        raise UnusableFileError(
            f"its segments overlap ({listed(overlaps)}), and a voxel has one label in nnU-Net. "
            "Make them disjoint; Slicer's export to a labelmap gives such voxels to one segment"
        )
    return Volume(label, volume.geometry)


def layer_names(path: Path) -> list[str]:
    """Return the names of a file's segments if these lie in layers; none for any other file."""
    segments = _segments(path)
    return [segment.name for segment in segments] if _are_layered(segments) else []


def listed(items: Iterable[str]) -> str:
    """Return the first ten items as text, and how many more there are."""
    shown = list(items)
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" * (len(shown) > _SHOWN))


def _are_layered(segments: Sequence[_Segment]) -> bool:
    return len({segment.layer for segment in segments}) > 1


def _segments(path: Path) -> list[_Segment]:
    """Return the named segments of a file; none without names or a readable header."""
    name = path.name.lower()
    try:
        if not path.is_file():
            return []
        if name.endswith(_NIFTI_ENDINGS):
            return _of_nifti(path)
        if name.endswith(".nrrd"):
            return _of_nrrd(path)
        if is_dicom(path):
            return [_Segment(label, 0, number) for number, label in segment_names(path).items()]
    except Exception:  # whatever is wrong with the file is named when it is read as a whole
        return []
    return []


def _of_nifti(path: Path) -> list[_Segment]:
    """Read the label table in an extension of any code, since programs disagree about it."""
    image: Any = nibabel.load(path)
    segments = []
    for extension in image.header.extensions:
        content = extension.content.rstrip(b"\0 \r\n\t")
        if b"<LabelTable" not in content:
            continue
        for label in ElementTree.fromstring(content).iter("Label"):
            segments.append(_Segment((label.text or "").strip(), 0, int(label.attrib["Key"])))
    return segments


def _of_nrrd(path: Path) -> list[_Segment]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    keys = {key: _text(reader.GetMetaData(key)) for key in reader.GetMetaDataKeys()}
    if _MITK_KEY in keys:
        return [
            _Segment(label["name"], layer, int(label["value"]))
            for layer, group in enumerate(json.loads(keys[_MITK_KEY]))
            for label in group.get("labels") or ()
        ]
    return _of_slicer(keys)


def _of_slicer(keys: Mapping[str, str]) -> list[_Segment]:
    """Read Slicer's segments; before 4.11 it wrote a layer each, value 1, without saying so."""
    numbers = sorted(
        int(match[1]) for key in keys if (match := re.fullmatch(r"Segment(\d+)_Name", key))
    )
    stated = any(f"Segment{n}_LabelValue" in keys for n in numbers)
    return [
        _Segment(
            keys[f"Segment{n}_Name"].strip(),
            int(keys.get(f"Segment{n}_Layer", 0 if stated else index)),
            int(keys.get(f"Segment{n}_LabelValue", 1)),
        )
        for index, n in enumerate(numbers)
    ]


def _text(value: str) -> str:
    """Return a header's value as text: bytes that are no UTF-8 arrive as surrogates."""
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
