"""DICOM series as small as they can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

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


SOP_CLASSES = {
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "RTDOSE": "1.2.840.10008.5.1.4.1.1.481.2",
    "RTPLAN": "1.2.840.10008.5.1.4.1.1.481.5",
    "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
    "SR": "1.2.840.10008.5.1.4.1.1.88.33",
    "PR": "1.2.840.10008.5.1.4.1.1.11.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "XA": "1.2.840.10008.5.1.4.1.1.12.1",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "SC": "1.2.840.10008.5.1.4.1.1.7",
    "PDF": "1.2.840.10008.5.1.4.1.1.104.1",
    "DICOMDIR": "1.2.840.10008.1.3.10",
}


def write_object(path: Path, kind: str, patient: str = "P1", **elements: Any) -> Path:
    """A DICOM file that is no slice, complete as far as its SOP class says what it is."""
    content = Dataset()
    content.SOPClassUID = SOP_CLASSES[kind]
    content.SOPInstanceUID = f"1.2.826.7.{sum(patient.encode())}.{sum(kind.encode())}"
    content.PatientID = patient
    for keyword, value in elements.items():
        setattr(content, keyword, value)
    content.file_meta = FileMetaDataset()
    content.file_meta.MediaStorageSOPClassUID = content.SOPClassUID
    content.file_meta.MediaStorageSOPInstanceUID = content.SOPInstanceUID
    content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    content.save_as(path, enforce_file_format=True)
    return path


def write_picture(path: Path, kind: str, pixels: np.ndarray, patient: str = "P1") -> Path:
    """A radiograph or another single picture; ``pixels`` are 16 bits without a sign."""
    return write_object(
        path,
        kind,
        patient,
        Rows=pixels.shape[0],
        Columns=pixels.shape[1],
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=0,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        PixelData=pixels.astype(np.uint16).tobytes(),
    )


def write_seg(
    path: Path,
    series: Sequence[Path],
    masks: np.ndarray,
    labels: Sequence[str],
    slice_distance: bool = True,
    **changes: Any,
) -> Path:
    """A DICOM SEG as highdicom writes it, without its empty frames.

    Args:
        path: where to.
        series: the files of the series that it was drawn on, in the order of the slices.
        masks: ``(z, y, x)`` with the numbers of the segments, or ``(z, y, x, segment)``.
        labels: SegmentLabel of each segment.
        slice_distance: whether the file says SpacingBetweenSlices.
        changes: elements by keyword.
    """
    import highdicom
    from pydicom.sr.codedict import codes

    sources = [dcmread(file) for file in series]
    needed = ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID")
    needed += ("StudyDate", "StudyTime", "ReferringPhysicianName")
    for source in sources:
        source.SliceThickness = 1
        source.FrameOfReferenceUID = "1.2.826.1"
        for keyword in needed:
            setattr(source, keyword, getattr(source, keyword, ""))
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(labels, 1)
    ]
    made = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=masks,
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid="1.2.826.8",
        series_number=5,
        sop_instance_uid="1.2.826.8.1",
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="0",
        device_serial_number="0",
    )
    if not slice_distance:
        del made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return path
