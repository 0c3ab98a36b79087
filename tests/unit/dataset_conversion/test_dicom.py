import shutil

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunet_semisup.dataset_conversion.reading.dicom import (
    find_series,
    read_dicom_folder,
    read_series,
)
from nnunet_semisup.dataset_conversion.volume import UnreadableFileError
from tests.unit.dataset_conversion.trees_dicom import (
    FLIPPED_ROWS,
    HEAD_FIRST,
    patch,
    slice_tags,
    write_series,
    write_slice,
)

OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)


def hounsfield(depth: int = 6) -> np.ndarray:
    return np.random.default_rng(depth).integers(-1000, 1500, (depth, 8, 10)).astype(np.int16)


@pytest.mark.parametrize("orientation", [HEAD_FIRST, FLIPPED_ROWS, OBLIQUE])
def test_series_in_any_file_order_equals_gdcm_s_volume(tmp_path, orientation):
    array = hounsfield(20)
    order = np.random.default_rng(0).permutation(20)
    names = [f"{i:06d}.dcm" for i in order]
    files = write_series(tmp_path, array, "P1", names, orientation=orientation)
    found = read_series([files[i] for i in order])
    assert found.array.dtype == np.int16
    np.testing.assert_array_equal(found.array, array)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    expected = reader.Execute()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(expected), array)
    np.testing.assert_allclose(found.geometry.spacing, expected.GetSpacing(), rtol=1e-5)
    np.testing.assert_allclose(found.geometry.origin, expected.GetOrigin(), atol=1e-5)
    np.testing.assert_allclose(found.geometry.direction, expected.GetDirection(), atol=1e-5)
    assert found.geometry.size == expected.GetSize()


@given(st.permutations(range(5)))
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_order_of_the_files_does_not_matter(tmp_path, order):
    folder = tmp_path / "series"
    if not folder.exists():
        write_series(folder, hounsfield(5), "P1")
    files = sorted(folder.iterdir())
    np.testing.assert_array_equal(read_series([files[i] for i in order]).array, hounsfield(5))


def test_series_are_found_at_any_depth_and_with_any_name(tmp_path):
    write_series(tmp_path / "b" / "deep", hounsfield(), "P2")
    write_series(tmp_path / "a", hounsfield(), "P1", [f"IM{i}" for i in range(6)])
    (tmp_path / "a" / "LICENSE").write_text("terms")
    (tmp_path / "a" / "._IM0").write_bytes(b"junk")
    (tmp_path / "a" / "._x.dcm").write_bytes(b"junk")
    faults = []
    found = find_series(tmp_path, faults)
    assert faults == []
    assert [(s.patient_id, len(s.files), s.modality) for s in found] == [
        ("P1", 6, "CT"),
        ("P2", 6, "CT"),
    ]
    assert found[1].folder == tmp_path / "b" / "deep"
    np.testing.assert_array_equal(read_dicom_folder(tmp_path / "a").array, hounsfield())


def test_damaged_file_is_named(tmp_path):
    files = write_series(tmp_path, hounsfield(), "P1")
    files[2].write_bytes(files[2].read_bytes()[:-9])
    files[3].write_text("no image")
    faults = []
    assert len(find_series(tmp_path, faults)[0].files) == 4
    assert [files[i].name in fault for i, fault in zip((2, 3), faults, strict=True)] == [True] * 2
    with pytest.raises(UnreadableFileError, match="damaged or not a DICOM image"):
        read_dicom_folder(tmp_path)


def test_fractions_are_kept_as_float32(tmp_path):
    five = {"0028|1052": "0", "0028|1053": "5"}
    stored = np.arange(480, dtype=np.int16).reshape(6, 8, 10)
    for file in write_series(tmp_path, stored * 5, "P1", changes=dict.fromkeys(range(6), five)):
        patch(file, b"\x53\x10\x02\x00\x00\x005 ", b"\x53\x10\x02\x00\x00\x00.5")
    found = read_dicom_folder(tmp_path).array
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, stored / 2)


def at_height(z: float) -> dict[str, str]:
    return {"0020|0032": f"-5\\6\\{z}"}


FAULTS = {
    "two patients": ({2: {"0010|0020": "P9"}}, "differ in patient (P1, P9)"),
    "two series": ({2: {"0020|000e": "1.2.9"}}, "differ in series"),
    "modality": ({2: {"0008|0060": "MR"}}, "differ in modality (CT, MR)"),
    "pixel spacing": ({2: {"0028|0030": "0.9\\0.7"}}, "differ in pixel spacing"),
    "orientation": ({2: {"0020|0037": "0\\1\\0\\-1\\0\\0"}}, "differ in orientation"),
    "number twice": ({2: {"0020|0013": "2"}}, "instance numbers are there several times (2)"),
    "same position": ({3: at_height(42)}, "slices lie at the same position (1-004.dcm)"),
    "gap": (
        {5: at_height(46) | {"0020|0013": "8"}},
        "the slice distance is not constant: 1 to 2 mm, so slices are missing (instance numbers 6, "
        "7). Download or extract the series again",
    ),
    "tilted": (
        {i: {"0020|0032": f"-5\\{6 + i / 5}\\{40 + i}"} for i in range(6)},
        "shifted sideways by up to 1 mm (a tilted gantry)",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_of_a_series_is_named(tmp_path, name):
    changes, message = FAULTS[name]
    files = write_series(tmp_path, hounsfield(), "P1", changes=changes)
    with pytest.raises(UnreadableFileError) as error:
        read_series(files)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (rb"-5\6\40", rb"-5\x\40", r"ImagePositionPatient is '-5\\x\\40'; 3 numbers are"),
        (rb"1\0\0\0\1\0", rb"1\0\0\0\2\0", "not two unit vectors"),
        (rb".8\.7", rb".8\xx", "PixelSpacing"),
        (rb".8\.7", rb".8\.0", "it must be above 0"),
    ],
)
def test_senseless_tag_is_named(tmp_path, old, new, message):
    files = write_series(tmp_path, hounsfield(), "P1")
    patch(files[0], old, new)
    with pytest.raises(UnreadableFileError) as error:
        read_series(files)
    assert message in str(error.value)


def test_size_and_copies(tmp_path):
    files = write_series(tmp_path, hounsfield(), "P1")
    write_slice(files[1], np.zeros((8, 9), np.int16), slice_tags(1, "P1"))
    with pytest.raises(UnreadableFileError, match=r"differ in size \(\(10, 8\), \(9, 8\)\)"):
        read_series(files)
    shutil.copy(files[2], files[1])
    with pytest.raises(UnreadableFileError, match="the same instance is there several times"):
        read_series(files)
    with pytest.raises(UnreadableFileError, match="the series has 1 slices"):
        read_series(files[:1])


def test_two_series_in_one_folder(tmp_path):
    write_series(tmp_path, hounsfield(), "P1")
    write_series(tmp_path, hounsfield(), "P2", [f"2-{i}.dcm" for i in range(6)])
    with pytest.raises(
        UnreadableFileError, match="holds 2 DICOM series; keep the one that is meant"
    ):
        read_dicom_folder(tmp_path)


def test_several_frames_in_one_file(tmp_path):
    image = SimpleITK.GetImageFromArray(hounsfield().astype(np.uint16))
    SimpleITK.WriteImage(image, str(tmp_path / "many.dcm"))
    faults = []
    assert find_series(tmp_path, faults) == []
    assert "holds 6 frames in one file" in faults[0]
