"""Values are what the standard says: stored value x slope + intercept, each slice by its own.

SimpleITK 2.5.7 inverts the stored values of MONOCHROME1 before the rescale, and its series reader
gives all slices the type of the first: 0.5 becomes 0 where the first has whole numbers.
"""

import numpy as np
import pydicom
import pytest
import SimpleITK

from nnunet_semisup.dataset_conversion.reading.dicom import read_dicom_folder, read_series
from tests.unit.dataset_conversion.forms import make
from tests.unit.dataset_conversion.test_dicom import hounsfield
from tests.unit.dataset_conversion.trees import read
from tests.unit.dataset_conversion.trees_dicom import write_object, write_series
from tests.unit.dataset_conversion.trees_generic import WHAT, convert, made, mask, write
from tests.unit.dataset_conversion.trees_pancreas import series_folder

pytestmark = pytest.mark.usefixtures("no_search")


def edit(path, **elements):
    content = pydicom.dcmread(path)
    for keyword, value in elements.items():
        setattr(content, keyword, value)
    content.save_as(path)
    return content


def meant(files):
    """What the standard says, from the stored values as pydicom gives them."""
    contents = map(pydicom.dcmread, files)
    return np.stack(
        [c.pixel_array * float(c.RescaleSlope) + float(c.RescaleIntercept) for c in contents]
    )


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"PixelRepresentation": 0},
        {"RescaleSlope": 2, "RescaleIntercept": -5},
        {"RescaleSlope": "0.5", "RescaleIntercept": "0.25"},
    ],
)
def test_monochrome1_does_not_change_the_values(tmp_path, elements):
    files = write_series(tmp_path, hounsfield() + 1000, "P1")
    for file in files:
        edit(file, PhotometricInterpretation="MONOCHROME1", **elements)
    found = read_series(files).array
    np.testing.assert_array_equal(found, meant(files))
    mirrored = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(files[0])))[0]
    assert not np.array_equal(mirrored, meant(files)[0]), "a copy would not be needed"


@pytest.mark.parametrize("first", [1, 0.5])
@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_each_slice_has_its_own_rescale(tmp_path, modality, first):
    files = write_series(tmp_path, hounsfield(), "P1")
    for number, file in enumerate(files):
        slope = first if number == 0 else 0.5 + number / 8
        edit(file, Modality=modality, RescaleSlope=slope, RescaleIntercept=number)
    found = read_series(files).array
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, meant(files))


@pytest.mark.parametrize("numbers", [(1, 3, 5, 7, 9, 11), (6, 5, 4, 3, 2, 1), (1, 2, 3, 4, 5, 90)])
def test_instance_numbers_need_not_be_consecutive(tmp_path, numbers):
    """InstanceNumber identifies an image (PS3.3, C.7.6.1), it does not count slices."""
    changes = {i: {"0020|0013": str(number)} for i, number in enumerate(numbers)}
    files = write_series(tmp_path, hounsfield(), "P1", changes=changes)
    np.testing.assert_array_equal(read_series(files).array, hounsfield())


def test_mixture_of_polarities_is_named_in_a_data_set(roots, tmp_path, capsys):
    root = tmp_path / "data"
    for number in range(1, 4):
        scan = np.random.default_rng(number).integers(-900, 900, (6, 20, 24)).astype(np.int16)
        for place, patient in (("scans", f"P{number}"), ("more", f"Q{number}")):
            moved = scan + (5 if place == "more" else 0) * np.arange(6)[:, None, None]
            files = write_series(root / place / patient, moved.astype(np.int16), patient)
            if number == 1:
                for file in files:
                    edit(file, PhotometricInterpretation="MONOCHROME1")
        write(mask(number, shape=(6, 20, 24)), root / f"masks/P{number}.nii.gz", (0.7, 0.8, 1))
    options = ("--images", "scans", "--labels", "masks", "--extra-unlabeled", "more")
    assert convert(root, *options, *WHAT) == 0
    out = capsys.readouterr().out
    for place, patient in (("scans", "P1"), ("more", "Q1")):
        folder = root / place
        assert f"1 of 3 DICOM series in {folder} are stored as MONOCHROME1" in out
        assert f"({folder / patient}). Values are written as they are stored" in out
    first = np.random.default_rng(1).integers(-900, 900, (6, 20, 24))
    np.testing.assert_array_equal(read(made(roots) / "imagesTr/P1_0000.nii.gz"), first)
    more = first + 5 * np.arange(6)[:, None, None]
    np.testing.assert_array_equal(read(made(roots) / "imagesUn/Q1_0000.nii.gz"), more)


def test_pancreas_series_are_read_in_the_same_way(roots, tmp_path, capsys):
    tree = make("pancreas", "raw", tmp_path / "download")
    folder = series_folder(tree, 1)
    before = read_dicom_folder(folder).array
    for number, file in enumerate(sorted(folder.glob("*.dcm"))):
        edit(file, PhotometricInterpretation="MONOCHROME1", InstanceNumber=2 * number)
    write_object(folder / "RS.dcm", "RTSTRUCT", "PANCREAS_0001")
    write_object(tree.root / "DICOMDIR", "DICOMDIR", "")
    np.testing.assert_array_equal(read_dicom_folder(folder).array, before)
    assert tree.convert() == 0
    out = capsys.readouterr().out
    assert "2 DICOM files in " in out
    assert "1 RTSTRUCT (contours): " in out
    assert "1 other objects (Media Storage Directory): " in out
    assert "DICOM series in " in out
    assert "are stored as MONOCHROME1" in out
