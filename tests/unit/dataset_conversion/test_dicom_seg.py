"""DICOM SEG as labels: on the grid of the image, by SegmentLabel.

highdicom 0.28.2 takes the distance of the frames for that of the slices where a SEG without its
empty frames does not say SpacingBetweenSlices, which is optional.
"""

import importlib.util
import json

import numpy as np
import pytest

from nnunet_semisup.dataset_conversion.reading.dicom import read_series
from nnunet_semisup.dataset_conversion.reading.dicom_seg import read_seg, segment_names
from nnunet_semisup.dataset_conversion.reading.label_names import named_values
from nnunet_semisup.dataset_conversion.volume import (
    UnreadableFileError,
    UnusableFileError,
    Volume,
    oriented,
)
from tests.unit.dataset_conversion.test_dicom import OBLIQUE, hounsfield
from tests.unit.dataset_conversion.trees import read
from tests.unit.dataset_conversion.trees_dicom import (
    FLIPPED_ROWS,
    HEAD_FIRST,
    write_object,
    write_seg,
    write_series,
)
from tests.unit.dataset_conversion.trees_generic import convert, made, names

pytestmark = pytest.mark.usefixtures("no_search")
NAMES = ("liver", "spleen")


def segments(slices, seed=0):
    """Two segments on some slices of a small scan."""
    label = np.zeros((12, 8, 10), np.uint8)
    for z in slices:
        label[z, 2 : 4 + (z + seed) % 3, 3:7] = 1
        label[z, 5:7, 1:3] = 2
    return label


@pytest.mark.parametrize("slice_distance", [True, False])
@pytest.mark.parametrize("slices", [range(12), [4, 5, 6], [2, 5, 8], [5], [2, 9]])
@pytest.mark.parametrize("orientation", [HEAD_FIRST, FLIPPED_ROWS, OBLIQUE])
def test_segments_lie_on_the_grid_of_the_image(tmp_path, slices, slice_distance, orientation):
    files = write_series(tmp_path / "ct", hounsfield(12), "P1", orientation=orientation)
    label = segments(slices)
    path = write_seg(tmp_path / "seg.dcm", files, label, NAMES, slice_distance)
    grid = read_series(files).geometry
    found = read_seg(path, grid)
    assert found.geometry == grid
    np.testing.assert_array_equal(found.array, label)
    assert segment_names(path) == named_values(path) == {1: "liver", 2: "spleen"}


@pytest.mark.parametrize("code", ["RAS", "LPS", "SAR", "PIL"])
def test_image_may_be_stored_with_other_axes(tmp_path, code):
    """As NIfTI that another program wrote from the same series."""
    files = write_series(tmp_path / "ct", hounsfield(12), "P1")
    label = segments([2, 5, 8])
    path = write_seg(tmp_path / "seg.dcm", files, label, NAMES, slice_distance=False)
    turned = oriented(Volume(label, read_series(files).geometry), code)
    np.testing.assert_array_equal(read_seg(path, turned.geometry).array, turned.array)


def test_positions_may_be_rounded(tmp_path):
    """To a hundredth of a millimetre, as many scanners write them: 4 % of the distance here."""
    rounded = {i: {"0020|0032": f"-5\\6\\{40 + i / 8:.2f}"} for i in range(12)}
    files = write_series(tmp_path / "ct", hounsfield(12), "P1", changes=rounded)
    label = segments([2, 3, 5, 8])
    path = write_seg(tmp_path / "seg.dcm", files, label, NAMES)
    np.testing.assert_array_equal(read_seg(path, read_series(files).geometry).array, label)


def test_what_cannot_be_a_label_is_named(tmp_path):
    files = write_series(tmp_path / "ct", hounsfield(12), "P1")
    grid = read_series(files).geometry
    label = segments([4, 5])
    both = np.stack([label == 1, label > 0], axis=-1)
    overlapping = write_seg(tmp_path / "overlap.dcm", files, both, NAMES)
    fraction = write_seg(
        tmp_path / "fraction.dcm", files, label, NAMES, SegmentationType="FRACTIONAL"
    )
    other = write_series(tmp_path / "other", hounsfield(12), "P1", spacing=(0.9, 0.8, 1.0))
    elsewhere = write_seg(tmp_path / "other.dcm", other, label, NAMES)
    angle = np.radians(8)
    tilt = (np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0)
    oblique = write_series(tmp_path / "oblique", hounsfield(12), "P1", orientation=tilt)
    turned = write_seg(tmp_path / "turned.dcm", oblique, label, NAMES)
    thinner = write_series(tmp_path / "thin", hounsfield(12), "P1", spacing=(0.7, 0.8, 0.4))
    thin = write_seg(tmp_path / "thin.dcm", thinner, label, NAMES)
    short = write_series(tmp_path / "short", hounsfield(12)[:5], "P1")
    for path, wanted, message in (
        (overlapping, grid, "its segments overlap, and a voxel has one label"),
        (fraction, grid, "SegmentationType FRACTIONAL); save it as BINARY"),
        (elsewhere, grid, "does not lie on the grid of the image"),
        (turned, grid, "does not lie on the grid of the image"),
        (thin, grid, "does not lie on the grid of the image"),
        (write_seg(tmp_path / "s", files, label, NAMES), read_series(short).geometry, "outside"),
        (write_object(tmp_path / "bare.dcm", "SEG"), grid, "has no SegmentSequence, "),
    ):
        with pytest.raises(
            UnusableFileError, match=message.replace("(", r"\(").replace(")", r"\)")
        ):
            read_seg(path, wanted)
    overlapping.write_bytes(overlapping.read_bytes()[:-60])
    with pytest.raises(UnreadableFileError, match="damaged or not a complete DICOM SEG"):
        read_seg(overlapping, grid)


def tree(root, place, order=NAMES):
    """Three patients with a series, a SEG for the first two; its numbers follow no order."""
    for number in range(1, 4):
        scan = np.random.default_rng(number).integers(-900, 900, (12, 8, 10)).astype(np.int16)
        files = write_series(root / f"scans/P{number}/ct", scan, f"P{number}")
        if number < 3:
            label = segments([4, 5, 6], number)
            named = order if number == 1 else order[::-1]
            stored = label if number == 1 else np.where(label, 3 - label, 0).astype(np.uint8)
            write_seg(root / place.format(number), files, stored, named, PatientID=f"P{number}")
    return root


@pytest.mark.parametrize(
    ("place", "labels"),
    [
        ("segs/P{}/1-1.dcm", "segs"),
        ("segs/P{}.dcm", "segs"),
        ("segs/{}/deep/1-1", "segs"),
        ("scans/P{}/seg/1-1.dcm", "scans"),
    ],
)
def test_names_decide_what_a_segment_is(roots, tmp_path, place, labels):
    root = tree(tmp_path / "data", place)
    options = ("--images", "scans", "--labels", labels, "--channel-names", "CT")
    assert convert(root, *options, "--label-names", "background,spleen,liver") == 0
    for number in (1, 2):
        label = segments([4, 5, 6], number)
        written = read(made(roots) / f"labelsTr/P{number}.nii.gz")
        np.testing.assert_array_equal(written, np.where(label, 3 - label, 0))
    assert names(made(roots) / "imagesUn") == ["P3_0000"]


def test_names_of_segments_are_the_labels_unless_others_are_given(roots, tmp_path):
    root = tree(tmp_path / "data", "segs/P{}.dcm")
    assert convert(root, "--images", "scans", "--labels", "segs", "--channel-names", "CT") == 0
    content = json.loads((made(roots) / "dataset.json").read_text(encoding="utf-8"))
    assert content["labels"] == {"background": 0, "liver": 1, "spleen": 2}


def test_segment_with_a_name_that_no_label_has_is_a_fault(roots, tmp_path, capsys):
    root = tree(tmp_path / "data", "segs/P{}.dcm", ("liver", "kidney"))
    options = ("--images", "scans", "--labels", "segs", "--channel-names", "CT")
    assert convert(root, *options, "--label-names", "background,liver,spleen") == 2
    assert "its header names 2 'kidney'" in capsys.readouterr().err


def test_two_segmentations_of_a_case_are_a_fault(roots, tmp_path, capsys):
    root = tree(tmp_path / "data", "segs/P{}/1.dcm")
    (root / "segs/P1/2.dcm").write_bytes((root / "segs/P1/1.dcm").read_bytes())
    assert convert(root, "--images", "scans", "--labels", "segs", "--channel-names", "CT") == 2
    assert "case P1: has 2 DICOM SEG (" in capsys.readouterr().err


def test_extra_that_is_not_installed_is_named(roots, tmp_path, capsys, monkeypatch):
    root = tree(tmp_path / "data", "segs/P{}.dcm")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert convert(root, "--images", "scans", "--labels", "segs", "--channel-names", "CT") == 2
    assert "type: pip install 'nnunet-semisup[dicom]'" in capsys.readouterr().err
