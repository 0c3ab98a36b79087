import hashlib
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK

from nnunet_semisup.dataset_conversion.cases import Case, DatasetForm, Subset
from nnunet_semisup.dataset_conversion.checking.one_case import inspect_case
from nnunet_semisup.dataset_conversion.reading.scans import read_itk, source_sha256
from nnunet_semisup.dataset_conversion.volume import (
    Geometry,
    UnreadableFileError,
    Volume,
    array_sha256,
)
from nnunet_semisup.dataset_conversion.writing.dataset_writer import write_cases
from nnunet_semisup.dataset_conversion.writing.volume_files import (
    holds_written,
    write_scan,
    write_text,
)
from nnunet_semisup.errors import UserError
from tests.unit.dataset_conversion.trees import texture

GEOMETRY = Geometry((24, 20, 88), (0.5, 0.75, 2.0), (1.0, -2.0, 3.0), (0, 1, 0, 1, 0, 0, 0, 0, -1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_written_volume_reads_back(tmp_path, dtype):
    volume = Volume(texture(0).astype(dtype), GEOMETRY)
    write_scan(volume, tmp_path / "a.nii.gz")
    found = read_itk(tmp_path / "a.nii.gz")
    assert found.array.dtype == dtype
    assert array_sha256(found.array) == array_sha256(volume.array)
    assert found.geometry.mismatches(GEOMETRY) == []
    assert found.geometry.same_origin(GEOMETRY)


@pytest.mark.parametrize("step", [0.01, 0.625])
def test_origin_far_from_small_voxels_reads_back(tmp_path, step):
    """NIfTI keeps 32 bits of an origin, which may be less than a thousandth of such a voxel."""
    far = Geometry((24, 20, 88), (step,) * 3, (1e4 / 3, -7.0, -1234.567), GEOMETRY.direction)
    volume = Volume(texture(0), far)
    write_scan(volume, tmp_path / "a.nii.gz")
    assert holds_written(tmp_path / "a.nii.gz", volume)
    moved = replace(far, origin=(far.origin[0], -7.0, far.origin[2] + 0.1))
    assert holds_written(tmp_path / "a.nii.gz", Volume(texture(0), moved)) is False


def test_bytes_depend_on_the_content_alone(tmp_path):
    volume = Volume(texture(0), GEOMETRY)
    write_scan(volume, tmp_path / "a.nii.gz")
    time.sleep(1.1)
    write_scan(volume, tmp_path / "another_name.nii.gz")
    content = (tmp_path / "a.nii.gz").read_bytes()
    assert content == (tmp_path / "another_name.nii.gz").read_bytes()
    assert content[3:8] == bytes(5), "no flags and no time in the gzip header"


def test_failed_write_leaves_nothing(tmp_path):
    bad = Geometry((24, 20, 88), (0.5, 0.5, 0.5), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    folder = tmp_path / "a.nii.gz"
    folder.mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_scan(Volume(texture(0), bad), folder)
    assert os.listdir(tmp_path) == ["a.nii.gz"]


@pytest.mark.parametrize("ending", ["nii.gz", "nii"])
def test_nifti_faults_that_itk_hides(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    array = texture(0).astype(np.float32)
    array[0, 0, 0] = np.inf
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))
    with pytest.raises(UnreadableFileError, match="1 voxel is NaN or Inf"):
        read_itk(path)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(texture(0)), str(path))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UnreadableFileError, match="damaged"):
        read_itk(path)


def test_hash_sees_shape_and_type_but_not_memory_layout():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert array_sha256(array) == array_sha256(np.asfortranarray(array))
    assert array_sha256(array) != array_sha256(array.reshape(4, 3, 2))
    assert array_sha256(array) != array_sha256(array.astype(np.int8))


def test_hash_of_a_folder_sees_names_and_contents(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    first = source_sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert source_sha256(tmp_path) != first
    assert source_sha256(tmp_path / "b") == hashlib.sha256(b"x").hexdigest()


def test_text_is_replaced_at_once(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    write_text("new", path)
    assert path.read_text(encoding="utf-8") == "new"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("link", ["copy", "hardlink", "symlink"])
def test_ready_images_are_linked(tmp_path, link):
    source, folder = tmp_path / "source.nii.gz", tmp_path / "out"
    folder.mkdir()
    write_scan(Volume(texture(0), GEOMETRY), source)
    form = DatasetForm(
        "X", "raw", {0: "a"}, {"background": 0}, {0: 0}, read_itk, read_itk, "", "", "",
        images_ready=True,
    )  # fmt: skip
    facts = inspect_case(Case("A", Subset.UNLABELED, (source,), None), form)
    write_cases([facts], form, folder, 1, link)
    made = folder / "imagesUn" / "A_0000.nii.gz"
    assert made.read_bytes() == source.read_bytes()
    assert made.is_symlink() == (link == "symlink")
    assert made.samefile(source) == (link != "copy")
