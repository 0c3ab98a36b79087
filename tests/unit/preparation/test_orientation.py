"""Scans whose axes are in another order are named, in every format that has a direction."""

from itertools import permutations, product

import nibabel
import numpy as np
import pytest
import SimpleITK

from nnunet_semisup.preparation.orientation import (
    PlacedScan,
    axis_codes,
    common_axes,
    file_axes,
    turned_warning,
)
from nnunet_semisup.preparation.raw import find_dataset
from nnunet_semisup.preparation.unlabeled_images import check_dataset
from tests.helpers import make_raw_dataset, nnunet_folders
from tests.unit.dataset_conversion.verify_faults import edit

ORDERS = [
    "".join(letters) for axes in permutations(("LR", "PA", "SI")) for letters in product(*axes)
]
"""The 48 ways in which three axes can lie."""


def cosines(code):
    """ITK's direction of axes that point to the letters of ``code``."""
    to = {
        letter: (axis, sign)
        for axis, pair in enumerate(("LR", "PA", "SI"))
        for letter, sign in zip(pair, (1.0, -1.0), strict=True)
    }
    matrix = np.zeros((3, 3))
    for column, letter in enumerate(code):
        axis, sign = to[letter]
        matrix[axis, column] = sign
    return matrix


def rotation(degrees):
    """About z, then about x."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, c, -s], [0, s, c]]
    )


def affine(direction):
    """nibabel's affine (RAS) of ITK's direction (LPS)."""
    found = np.eye(4)
    found[:3, :3] = np.diag([-1, -1, 1]) @ direction
    return found


@pytest.mark.parametrize("degrees", [0, 20, -35])
def test_every_order_has_nibabels_code_and_oblique_scans_the_nearest(degrees):
    assert len(set(ORDERS)) == 48
    for code in ORDERS:
        direction = rotation(degrees) @ cosines(code)
        assert axis_codes(direction.ravel()) == code
        assert "".join(nibabel.aff2axcodes(affine(direction))) == code


def test_of_four_axes_the_first_three_count_and_pictures_have_none():
    direction = np.eye(4)
    direction[:3, :3] = cosines("PIR")
    assert axis_codes(direction.ravel()) == "PIR"
    assert axis_codes((1.0, 0.0, 0.0, 1.0)) == ""


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_every_format_gives_the_same_code(tmp_path, ending):
    image = SimpleITK.GetImageFromArray(np.zeros((3, 4, 5), np.uint8))
    for code in ("LPS", "RAS", "ASL"):
        image.SetDirection(cosines(code).ravel().tolist())
        SimpleITK.WriteImage(image, str(tmp_path / f"a{ending}"))
        assert file_axes(tmp_path / f"a{ending}") == code


def test_sheared_axes_are_nibabels_and_other_files_have_none(tmp_path):
    sheared = affine(cosines("PSR") @ np.array([[1, 0.3, 0], [0, 1, 0], [0, 0, 1]]))
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), sheared)
    nibabel.save(image, tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(b"damaged")
    (tmp_path / "c.png").write_bytes(b"a picture")
    assert [file_axes(path) for path in sorted(tmp_path.iterdir())] == ["PSR", "", ""]


def test_nibabels_reader_takes_the_sform(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), affine(cosines("RAS")))
    image.set_qform(affine(cosines("LAS")), code=1)
    image.set_sform(affine(cosines("RAS")), code=1)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert file_axes(tmp_path / "a.nii.gz", by_nibabel=True) == "RAS"


def test_labeled_scans_decide_and_long_lists_are_cut():
    scans = [PlacedScan(f"t{i}", "imagesTr", "LPS" if i else "RAS") for i in range(4)]
    scans += [PlacedScan(f"u{i}", "imagesUn", "RAS") for i in range(9)]
    assert common_axes(scans) == "LPS"
    assert common_axes(scans[4:]) == "RAS"
    told = turned_warning(scans, "turn them")
    assert (
        "the axes of 10 of 13 cases are in another orientation than those of most labeled" in told
    )
    assert "(LPS): imagesTr: t0 (RAS); imagesUn: u0 (RAS)," in told
    assert "u4 (RAS) and 4 more. nnU-Net ignores the direction" in told
    assert told.endswith("; turn them")
    assert turned_warning(scans[4:], "turn them") is None
    assert turned_warning([PlacedScan("photo", "imagesTr", "")], "turn them") is None


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A data set in which one scan of each folder has other axes."""
    roots = nnunet_folders(tmp_path, monkeypatch)
    made = make_raw_dataset(roots.raw, 501, "Blobs", (6, 8, 7), 3, 2, num_test=1).folder
    for name in ("imagesTr/lab_002", "imagesUn/unl_001", "imagesTs/tst_000"):
        path = str(made / f"{name}_0000.nii.gz")
        SimpleITK.WriteImage(SimpleITK.DICOMOrient(SimpleITK.ReadImage(path), "RAS"), path)
    return made


def test_preprocessing_names_the_scans_of_all_folders(made):
    (told,) = check_dataset(find_dataset(501), show_progress=False).warnings
    assert "the axes of 3 of 6 cases" in told
    assert (
        "(LPS): imagesTr: lab_002 (RAS); imagesUn: unl_001 (RAS); imagesTs: tst_000 (RAS)." in told
    )


@pytest.mark.parametrize("reader", ["SimpleITKIOWithReorient", "NibabelIOWithReorient"])
def test_nothing_is_said_where_the_reader_turns_the_scans(made, reader):
    edit(made / "dataset.json", lambda c: c.update(overwrite_image_reader_writer=reader))
    assert check_dataset(find_dataset(501), show_progress=False).warnings == ()
