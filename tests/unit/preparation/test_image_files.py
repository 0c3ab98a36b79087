import numpy as np
import pytest
import SimpleITK

from nnunet_semisup.dataset_conversion.reading.scans import not_finite, read_itk
from nnunet_semisup.dataset_conversion.volume import UnreadableFileError
from nnunet_semisup.preparation.image_files import (
    announced_size_fault,
    count_not_finite,
    itk_header,
    last_line,
    read_header,
    require_complete,
)
from nnunet_semisup.preparation.rules import is_positive, same_direction, same_spacing
from nnunet_semisup.preparation.sources import DamagedFileError


@pytest.fixture
def scan(tmp_path):
    """Write a scan of 4 x 5 x 6 voxels (z, y, x) of 1 x 2 x 3 mm (x, y, z) and give its path."""

    def write(name):
        image = SimpleITK.GetImageFromArray(np.arange(120, dtype=np.int16).reshape(4, 5, 6))
        image.SetSpacing((1.0, 2.0, 3.0))
        path = tmp_path / name
        SimpleITK.WriteImage(image, str(path))
        return path

    return write


@pytest.mark.parametrize(
    ("values", "expected", "words"),
    [
        (np.array([1, 2], np.int16), (0, 0), ""),
        (np.array([1.0, 2.0]), (0, 0), ""),
        (np.array([np.nan, 2.0]), (1, 0), "1 voxel is NaN or Inf"),
        (np.array([np.nan, np.inf, -np.inf, 0], np.float16), (1, 2), "3 voxels are NaN or Inf"),
    ],
)
def test_voxels_that_are_no_numbers_are_counted_apart(values, expected, words):
    assert count_not_finite(values) == expected
    assert not_finite(values) == words


def test_last_line_of_a_message_is_the_reason():
    assert last_line(RuntimeError("ITK ERROR: ...\n  in file x\n\nfile is short \n")) == (
        "file is short"
    )
    assert last_line(RuntimeError()) == ""


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_header_is_that_of_every_format(scan, ending):
    path = scan(f"scan{ending}")
    header = read_header(path)
    assert (header.dimension, header.unit, header.factor) == (3, "mm", 1.0)
    assert header.spacing == pytest.approx((1, 2, 3))
    assert announced_size_fault(path, itk_header(path)) is None
    require_complete(path)


def test_what_ends_too_early_is_refused_by_both_readers(scan):
    """Raw NIfTI, of which SimpleITK 2.5.7 fills up what is missing with zeros."""
    path = scan("scan.nii")
    path.write_bytes(path.read_bytes()[:-10])
    assert SimpleITK.ReadImage(str(path)).GetSize() == (6, 5, 4)
    with pytest.raises(DamagedFileError, match="is truncated"):
        require_complete(path)
    with pytest.raises(UnreadableFileError, match="damaged"):
        read_itk(path)


def test_tolerances_are_the_same_for_every_command():
    assert same_spacing((1, 2, 3), (1, 2, 3.002))
    assert not same_spacing((1, 2, 3), (1, 2, 3.01))
    assert same_direction((1, 0, 0, 1), (1, 0.0005, 0, 1))
    assert not same_direction((1, 0, 0, 1), (1, 0.005, 0, 1))
    assert not same_direction((1, 0, 0, 1), (1, 0, 0))
    assert is_positive((0.5, 1, 2))
    for spacing in ((0, 1, 1), (-1, 1, 1), (1, 1, float("nan")), (1, 1, float("inf"))):
        assert not is_positive(spacing)
