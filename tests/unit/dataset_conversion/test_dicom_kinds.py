"""DICOM files are what their SOP class says; what is no slice is named, not called damaged.

GDCM in SimpleITK 2.5.7 opens files with pixels only, and says of RTSTRUCT, reports and presentation
states no more than of a text file.
"""

import numpy as np
import pytest
import SimpleITK

from nnunet_semisup.dataset_conversion.reading.dicom import find_series, read_dicom_folder
from nnunet_semisup.dataset_conversion.reading.dicom_kinds import Kind, identify
from tests.unit.dataset_conversion.test_dicom import hounsfield
from tests.unit.dataset_conversion.trees import read
from tests.unit.dataset_conversion.trees_dicom import (
    SOP_CLASSES,
    write_object,
    write_picture,
    write_series,
)
from tests.unit.dataset_conversion.trees_generic import WHAT, convert, made, mask, names, write

pytestmark = pytest.mark.usefixtures("no_search")

KINDS = {
    "RTSTRUCT": (Kind.CONTOURS, "1 RTSTRUCT (contours): "),
    "RTDOSE": (Kind.DOSE, "1 RTDOSE (doses): "),
    "RTPLAN": (Kind.OTHER, "1 other objects (RT Plan): "),
    "SEG": (Kind.SEGMENTATION, "1 DICOM SEG (segmentations): "),
    "SR": (Kind.REPORT, "1 reports (SR): "),
    "PR": (Kind.PRESENTATION, "1 presentation states: "),
    "CR": (Kind.PICTURE, "1 radiographs or other single pictures (Computed Radiography Image): "),
    "DX": (Kind.PICTURE, "(Digital X-Ray Image Storage - For Presentation): "),
    "MG": (Kind.PICTURE, "(Digital Mammography X-Ray Image Storage - For Presentation): "),
    "XA": (Kind.PICTURE, "(X-Ray Angiographic Image): "),
    "US": (Kind.PICTURE, "(Ultrasound Image): "),
    "SC": (Kind.PICTURE, "(Secondary Capture Image): "),
    "PDF": (Kind.OTHER, "1 other objects (Encapsulated PDF): "),
    "DICOMDIR": (Kind.OTHER, "1 other objects (Media Storage Directory): "),
}
SCOUT = {5: {"0008|0008": "ORIGINAL\\PRIMARY\\LOCALIZER"}}


def cases(root, places=("scans/P{}",), labeled=2):
    """Three patients with a series each, labels as NIfTI for the first two."""
    for number in range(1, 4):
        for place in places:
            scan = np.random.default_rng(number).integers(-900, 900, (6, 20, 24))
            write_series(root / place.format(number), scan.astype(np.int16), f"P{number}")
        if number <= labeled:
            label = mask(number, shape=(6, 20, 24))
            write(label, root / f"masks/P{number}.nii.gz", (0.7, 0.8, 1.0))
    return root


OPTIONS = ("--images", "scans", "--labels", "masks", *WHAT)


def test_every_kind_is_in_the_table():
    assert KINDS.keys() == SOP_CLASSES.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_object_beside_a_series_is_skipped_with_a_note(roots, tmp_path, capsys, kind):
    root = cases(tmp_path / "data")
    path = write_object(root / "scans/P1/1-7.dcm", kind, ImageType=["DERIVED", "PRIMARY"])
    expected, words = KINDS[kind]
    assert identify(path).kind is expected
    assert convert(root, *OPTIONS) == 0
    out = capsys.readouterr().out
    assert "1 DICOM files in " in out
    assert "no slices of a scan and not used as images: 1 " in out
    assert f"{words}{path}" in out
    assert names(made(roots) / "imagesTr") == ["P1_0000", "P2_0000"]


@pytest.mark.parametrize("place", ["scans/P1/rtstruct/1-1.dcm", "scans/rtstruct/P1.dcm"])
def test_objects_in_folders_of_their_own_belong_to_their_patient(roots, tmp_path, place):
    root = cases(tmp_path / "data", ("scans/P{}/ct",))
    write_object(root / place, "RTSTRUCT", "P1")
    assert convert(root, *OPTIONS) == 0


def test_localiser_is_no_slice_of_the_series(tmp_path):
    """It has the SOP class of a slice and, from some scanners, the series of the scan."""
    write_series(tmp_path, hounsfield(6), "P1", changes=SCOUT)
    beside = []
    (series,) = find_series(tmp_path, [], beside)
    assert len(series.files) == 5
    assert [found.kind for found in beside] == [Kind.LOCALIZER]
    np.testing.assert_array_equal(read_dicom_folder(tmp_path).array, hounsfield(6)[:5])


@pytest.mark.parametrize("kind", ["SC", "US"])
def test_picture_with_a_position_is_a_slice(tmp_path, kind):
    path = write_object(tmp_path / "1.dcm", kind, ImagePositionPatient=[0, 0, 1])
    assert identify(path).kind is Kind.SLICE


def test_file_without_a_kind_is_taken_for_a_slice(tmp_path):
    path = tmp_path / "1.dcm"
    path.write_text("no DICOM")
    assert identify(path).kind is Kind.SLICE
    faults = []
    assert find_series(tmp_path, faults) == []
    assert "damaged or not a DICOM image. Download or extract it again" in faults[0]


@pytest.mark.parametrize("kind", ["DX", "CR", "MG"])
def test_radiographs_are_told_what_would_work(roots, tmp_path, capsys, kind):
    root = tmp_path / "data"
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 4000, (60, 72))
        write_picture(root / f"scans/X{number}.dcm", kind, pixels, f"X{number}")
        write(mask(number, shape=(60, 72)), root / f"masks/X{number}.png")
    assert convert(root, *OPTIONS) == 2
    error = capsys.readouterr().err
    assert "4 radiographs or other single pictures (" in error
    assert "Save each as .png or .tif with all its grey values" in error
    assert "pictures are converted, and trained in 2d" in error
    assert "again" not in error


def test_case_that_has_contours_alone_is_a_fault(roots, tmp_path, capsys):
    root = cases(tmp_path / "data")
    write_object(root / "scans/P9/RS.dcm", "RTSTRUCT", "P9")
    assert convert(root, *OPTIONS) == 2
    error = capsys.readouterr().err
    assert "without a series of slices beside them, 1 RTSTRUCT (contours): " in error
    assert "Contours must be turned into masks first, for example with 3D Slicer" in error


def test_contours_as_labels_lead_to_a_tool(roots, tmp_path, capsys):
    root = cases(tmp_path / "data", labeled=0)
    for number in (1, 2):
        write_object(root / f"masks/P{number}/RS.dcm", "RTSTRUCT", f"P{number}")
    assert convert(root, *OPTIONS) == 2
    error = capsys.readouterr().err
    assert "masks has 2 RTSTRUCT (contours): " in error
    assert "`plastimatch convert`; one mask file a structure, in a folder a case, is read" in error


def test_several_frames_in_a_file_are_not_called_damaged(roots, tmp_path, capsys):
    root = cases(tmp_path / "data")
    image = SimpleITK.GetImageFromArray(hounsfield().astype(np.uint16))
    image.SetMetaData("0008|0016", "1.2.840.10008.5.1.4.1.1.7.3")
    SimpleITK.WriteImage(image, str(root / "scans/P1/many.dcm"))
    assert convert(root, *OPTIONS) == 2
    error = capsys.readouterr().err
    assert "holds 6 frames in one file; convert all scans to NIfTI first" in error
    assert "Download" not in error


def test_series_of_masks_are_labels(roots, tmp_path):
    root = cases(tmp_path / "data", labeled=0)
    for number in (1, 2):
        label = mask(number, shape=(6, 20, 24)).astype(np.int16)
        write_series(root / f"masks/P{number}", label, f"L{number}")
    assert convert(root, *OPTIONS) == 0
    for number in (1, 2):
        written = read(made(roots) / f"labelsTr/P{number}.nii.gz")
        np.testing.assert_array_equal(written, mask(number, shape=(6, 20, 24)))


def test_damaged_series_of_masks_is_named(roots, tmp_path, capsys):
    root = cases(tmp_path / "data", labeled=0)
    for number in (1, 2):
        label = mask(number, shape=(6, 20, 24)).astype(np.int16)
        files = write_series(root / f"masks/P{number}", label, f"L{number}")
    files[0].write_bytes(files[0].read_bytes()[:-9])
    assert convert(root, *OPTIONS) == 2
    assert "masks/P2/1-001.dcm: cannot be read: damaged" in capsys.readouterr().err
