"""Scans are verified as the reader that nnU-Net chooses for the data set reads them."""

import shutil

import nibabel
import numpy as np
import pytest
from nnunetv2.experiment_planning.verify_dataset_integrity import check_cases
from nnunetv2.imageio import nibabel_reader_writer, simpleitk_reader_writer

from nnunet_semisup.dataset_conversion.checking import raw_dataset as module
from nnunet_semisup.dataset_conversion.reading import as_nnunet
from nnunet_semisup.dataset_conversion.reading.scans import read_itk
from nnunet_semisup.dataset_conversion.volume import UnreadableFileError
from tests.helpers import make_raw_dataset, nnunet_folders
from tests.unit.dataset_conversion.test_verify_dataset import verify
from tests.unit.dataset_conversion.trees_common import write_nifti
from tests.unit.dataset_conversion.verify_faults import edit, noise, truncate

SHAPE = (14, 16, 8)
STRAIGHT = np.diag([1.0, 1.5, 2.0, 1.0])
SHEARED = STRAIGHT + np.array([[0, 0.4, 0, -5], [0, 0, 0.3, 7], [0, 0, 0, 2], [0, 0, 0, 0]])
SIMPLE_ITK = simpleitk_reader_writer.SimpleITKIO
NIBABEL = nibabel_reader_writer.NibabelIO
REORIENT = nibabel_reader_writer.NibabelIOWithReorient


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data set of two labeled, one unlabeled and one test case, to be filled with images."""
    monkeypatch.setattr(module, "_faults_by_nnunet", lambda *_: [])
    raw = nnunet_folders(tmp_path, monkeypatch).raw
    return make_raw_dataset(raw, 501, "Blobs", SHAPE[::-1], 2, 1, num_test=1).folder


def save(array, path, affine):
    """Axes x, y, z and, perhaps, channels."""
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def fill(folder, affine, channels=()):
    """Write every image and label with this affine."""
    for number, path in enumerate(sorted(folder.glob("images*/*"))):
        save(noise(number, (*SHAPE, *channels)), path, affine)
    for number, path in enumerate(sorted(folder.glob("labels*/*"))):
        mask = np.zeros(SHAPE, np.uint8)
        mask[3 : 6 + number, 4:9, 2:5] = 1
        save(mask, path, affine)


def channels_in_a_dimension(folder, number=2):
    fill(folder, STRAIGHT, (2,))
    names = {str(channel): f"C{channel}" for channel in range(number)}
    edit(folder / "dataset.json", lambda c: c.update(channel_names=names))


def nnunet_accepts(folder, reader, channels=1):
    image = str(folder / "imagesTr" / "lab_000_0000.nii.gz")
    label = str(folder / "labelsTr" / "lab_000.nii.gz")
    return check_cases([image], label, channels, reader)


def test_channels_in_a_fourth_dimension(folder, capsys):
    """That is named as what it is, and is no reason for other faults."""
    channels_in_a_dimension(folder)
    assert verify() == 2
    error = capsys.readouterr().err
    assert "has 1 fault." in error
    assert "- the images hold their channels in a fourth dimension. nnU-Net reads such" in error
    fill(folder, STRAIGHT)
    edit(folder / "dataset.json", lambda c: c.update(channel_names={"0": "C0"}))
    assert verify() == 0


def test_nnunet_writes_no_prediction_for_a_fourth_dimension(folder):
    """Nor does its own check accept one: it compares origins of four and of three numbers."""
    channels_in_a_dimension(folder)
    image = str(folder / "imagesTr" / "lab_000_0000.nii.gz")
    array, properties = SIMPLE_ITK().read_images([image])
    with pytest.raises(AssertionError):
        SIMPLE_ITK().write_seg(np.zeros(array.shape[1:]), str(folder / "x.nii.gz"), properties)
    with pytest.raises(ValueError, match="broadcast"):
        nnunet_accepts(folder, SIMPLE_ITK, 2)


def test_faults_of_images_with_a_fourth_dimension(folder, capsys):
    channels_in_a_dimension(folder)
    save(noise(9, (*SHAPE, 3)), folder / "imagesUn" / "unl_000_0000.nii.gz", STRAIGHT)
    save(noise(8, (*SHAPE[:2], 9, 2)), folder / "imagesTs" / "tst_000_0000.nii.gz", STRAIGHT)
    assert verify() == 2
    error = capsys.readouterr().err
    assert "unl_000_0000.nii.gz: has 3 values a voxel; 2 expected" in error
    assert "image and label differ in size (14, 16, 9) and (14, 16, 8)" in error
    assert "has 3 faults" in error


@pytest.mark.parametrize("named", [None, NIBABEL, REORIENT])
def test_sheared_axes_are_read_by_nibabel(folder, capsys, named):
    """Named in dataset.json, or chosen by nnU-Net because ITK refuses the first image."""
    fill(folder, SHEARED)
    if named is not None:
        change = {"overwrite_image_reader_writer": named.__name__}
        edit(folder / "dataset.json", lambda c: c.update(change))
    with pytest.raises(UnreadableFileError, match="orthonormal"):
        read_itk(folder / "imagesTr" / "lab_000_0000.nii.gz")
    assert nnunet_accepts(folder, named or NIBABEL)
    assert verify() == 0
    assert "0 faults, 1 warning" in capsys.readouterr().out


SPOILT = {
    "damaged": (
        lambda d: truncate(d / "imagesTr" / "lab_001_0000.nii.gz"),
        "lab_001_0000.nii.gz: cannot be read: damaged or not a NIfTI file",
    ),
    "empty": (
        lambda d: (d / "imagesUn" / "unl_000_0000.nii.gz").write_bytes(b""),
        "unl_000_0000.nii.gz: cannot be read: the file is empty (0 bytes)",
    ),
    "infinite": (
        lambda d: save(noise(1, SHAPE) / 0, d / "imagesUn" / "unl_000_0000.nii.gz", SHEARED),
        "voxels are NaN or Inf",
    ),
    "copy": (
        lambda d: shutil.copy(
            d / "imagesTr" / "lab_000_0000.nii.gz", d / "imagesUn" / "unl_000_0000.nii.gz"
        ),
        "hold the same image, voxel for voxel",
    ),
    "label elsewhere": (
        lambda d: save(np.eye(14, 16, dtype=np.uint8)[..., None].repeat(8, 2), *elsewhere(d)),
        "image and label differ in direction",
    ),
    "label of another size": (
        lambda d: save(np.ones((14, 16, 7), np.uint8), elsewhere(d)[0], SHEARED),
        "image and label differ in size (14, 16, 8) and (14, 16, 7)",
    ),
    "four dimensions": (
        lambda d: save(noise(1, (*SHAPE, 2)), d / "imagesUn" / "unl_000_0000.nii.gz", STRAIGHT),
        "has 4 dimensions; 3 are expected",
    ),
    "colours": (
        lambda d: save(
            np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])),
            d / "imagesUn" / "unl_000_0000.nii.gz",
            SHEARED,
        ),
        "does not hold one number a voxel",
    ),
}


def elsewhere(folder):
    return folder / "labelsTr" / "lab_001.nii.gz", SHEARED @ np.diag([-1, 1, 1, 1])


@pytest.mark.parametrize("name", SPOILT)
def test_faults_of_a_data_set_that_nibabel_reads(folder, capsys, name):
    fill(folder, SHEARED)
    edit(folder / "dataset.json", lambda c: c.update(overwrite_image_reader_writer="NibabelIO"))
    spoil, message = SPOILT[name]
    with np.errstate(all="ignore"):
        spoil(folder)
    assert verify() == 2
    error = capsys.readouterr().err
    assert message in error
    assert "1 fault." in error


def test_one_sheared_image_among_others_is_a_fault_of_it(folder, capsys):
    """nnU-Net reads all with SimpleITK, since that can read the first."""
    fill(folder, STRAIGHT)
    save(noise(7, SHAPE), folder / "imagesUn" / "unl_000_0000.nii.gz", SHEARED)
    assert verify() == 2
    message = "unl_000_0000.nii.gz: the axes of its sform are not perpendicular"
    assert message in capsys.readouterr().err


READERS = {
    SIMPLE_ITK: as_nnunet.read_itk_channels,
    simpleitk_reader_writer.SimpleITKIOWithReorient: as_nnunet.read_itk_reoriented,
    NIBABEL: as_nnunet.read_nibabel,
    REORIENT: as_nnunet.read_nibabel_reoriented,
}


@pytest.mark.parametrize("reader", READERS)
def test_voxels_and_spacing_are_those_of_nnunet(tmp_path, reader):
    path = tmp_path / "a.nii.gz"
    turned = (0, 1, 0, -1, 0, 0, 0, 0, 1)
    write_nifti(noise(3, (5, 6, 7)), path, (1, 2, 3), (4, -5, 6), turned)
    content = {"file_ending": ".nii.gz", "overwrite_image_reader_writer": reader.__name__}
    assert as_nnunet.scan_reader(content, path) is READERS[reader]
    expected, properties = reader().read_images([str(path)])
    found = READERS[reader](path)
    np.testing.assert_array_equal(found.array, expected[0])
    np.testing.assert_allclose(found.geometry.spacing[::-1], properties["spacing"])
    itk = read_itk(path).geometry
    if "Reorient" not in reader.__name__:
        assert found.geometry.equals(itk)


def test_channels_are_those_of_nnunet(tmp_path):
    path = tmp_path / "a.nii.gz"
    save(noise(3, (5, 6, 7, 2)), path, STRAIGHT)
    expected, properties = SIMPLE_ITK().read_images([str(path)])
    found = as_nnunet.read_itk_channels(path)
    np.testing.assert_array_equal(np.moveaxis(found.array, -1, 0), expected)
    assert found.components == 2
    np.testing.assert_allclose(found.geometry.spacing[::-1], properties["spacing"])
    save(noise(3, (5, 6, 7)), path, STRAIGHT)
    assert found.geometry.equals(read_itk(path).geometry)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"file_ending": ".nii.gz"}, as_nnunet.read_itk_channels),
        ({"file_ending": ".mha"}, as_nnunet.read_itk_channels),
        ({"file_ending": ".nii"}, as_nnunet.read_nibabel),
        (
            {"file_ending": ".nii.gz", "overwrite_image_reader_writer": "None"},
            as_nnunet.read_itk_channels,
        ),
        (
            {"file_ending": ".nii.gz", "overwrite_image_reader_writer": "NoSuchReader"},
            as_nnunet.read_itk_channels,
        ),
    ],
)
def test_reader_by_ending(content, expected):
    assert as_nnunet.scan_reader(content, None) is expected
