"""Damaged files of every format: a message, never a crash, and nothing left behind."""

import shutil

import h5py
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunet_semisup.cli import verify
from nnunet_semisup.dataset_conversion.reading.dicom import read_dicom_folder
from nnunet_semisup.dataset_conversion.reading.formats import read_image, read_label
from nnunet_semisup.dataset_conversion.reading.h5 import read_h5
from nnunet_semisup.dataset_conversion.volume import UnreadableFileError
from tests.unit.dataset_conversion import trees
from tests.unit.dataset_conversion.trees_dicom import write_series
from tests.unit.dataset_conversion.trees_generic import (
    WHAT,
    convert,
    make_folders,
    mask,
    photo,
    scan,
    write,
)

HEADER = 400
SMALL = (3, 5, 6)


def seeded(examples):
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@st.composite
def damage(draw):
    """Cut at a share of the length, or bytes put at places, most of them in the header."""
    if draw(st.booleans()):
        return draw(st.floats(0, 0.999)), []
    place = st.one_of(st.integers(0, HEADER), st.integers(0, HEADER), st.integers(0, 1 << 20))
    value = st.one_of(st.integers(0, 255), st.sampled_from(b"\x00\xff9- "))
    return 1.0, draw(st.lists(st.tuples(place, value), min_size=1, max_size=12))


def damaged(content, change):
    share, bytes_put = change
    result = bytearray(content[: int(len(content) * share)] if share < 1 else content)
    for place, value in bytes_put:
        result[place % len(result)] = value
    return bytes(result)


def make_h5(path):
    with h5py.File(path, "w") as file:
        data = scan(0, SMALL).astype(np.float32)
        file.create_dataset("image", data=data, compression="gzip")


def read_h5_image(path):
    return read_h5(path, "image", 1.0)


READERS = {
    **{
        ending: (lambda path: write(scan(0, SMALL).astype(np.float32), path), read_image)
        for ending in (".nii", ".nii.gz", ".nrrd", ".mha")
    },
    ".gipl": (lambda path: write(scan(0, SMALL), path), read_image),
    ".h5": (make_h5, read_h5_image),
    **{
        ending: (lambda path: write(photo(0, (12, 14)), path), read_image)
        for ending in (".png", ".bmp", ".tif", ".jpg")
    },
    ".gif": (lambda path: write(mask(0, 255, (12, 14)), path), read_label),
}


@pytest.mark.parametrize("ending", READERS)
def test_readers_return_a_scan_or_say_why_not(tmp_path, ending):
    make, read = READERS[ending]
    path = tmp_path / f"x{ending}"
    make(path)
    content = path.read_bytes()
    assert read(path).array.size > 0
    refused = []

    @seeded(60)
    @given(damage())
    def check(change):
        path.write_bytes(damaged(content, change))
        try:
            volume = read(path)
        except UnreadableFileError as error:
            refused.append(str(error))
        else:
            assert volume.array.dtype.kind in "biuf"

    check()
    assert len(refused) > 10
    assert all(refused)


def test_dicom_is_read_or_refused(tmp_path):
    files = write_series(tmp_path, scan(0, (3, 6, 6)).astype(np.int16), "P1")
    content = files[1].read_bytes()
    assert read_dicom_folder(tmp_path).array.shape == (3, 6, 6)
    refused = []

    @seeded(60)
    @given(damage())
    def check(change):
        files[1].write_bytes(damaged(content, change))
        try:
            read_dicom_folder(tmp_path)
        except UnreadableFileError as error:
            refused.append(str(error))

    check()
    assert len(refused) > 10


@pytest.mark.parametrize(
    "header",
    [
        b"NDims = 3\nDimSize = 6 5 3\nTransformMatrix = 1 0 0\nElementType = MET_UCHAR\n",
        b"NDims = 9\nDimSize = 6 5 3\nElementType = MET_UCHAR\n",
        b"NDims = 3\nDimSize = 6 5\nElementType = MET_UCHAR\n",
        b"NDims = 3\nDimSize = 6 -5 3\nElementType = MET_UCHAR\n",
        b"NDims = 3\nNDims = 3\nDimSize = 6 5 3\nElementType = MET_UCHAR\n",
        b"NDims = 3\nDimSize = 6 5 3\nElementSpacing = a b c\nElementType = MET_UCHAR\n",
        b"NDims = 3\nDimSize = 6 5 3\nElementType = MET_NONE\n",
        b"NDims = 3\nDimSize = 999999 999999 999999\nElementType = MET_UCHAR\n",
        b"\xff\xfe\n",
    ],
)
def test_header_of_meta_image_is_checked_before_itk_sees_it(tmp_path, header):
    path = tmp_path / "x.mha"
    path.write_bytes(b"ObjectType = Image\n" + header + b"ElementDataFile = LOCAL\n" + bytes(90))
    with pytest.raises(UnreadableFileError, match="its header"):
        read_image(path)


def check_convert(roots, path, changes, run, capsys):
    """Damage ``path`` in every way of ``changes`` and run the command."""
    content = path.read_bytes()
    codes = set()

    @seeded(changes)
    @given(damage())
    def check(change):
        path.write_bytes(damaged(content, change))
        code = run()
        captured = capsys.readouterr()
        codes.add(code)
        left = [entry.name for entry in roots["raw"].iterdir()]
        if code == 2:
            assert path.name in captured.err or path.parent.name in captured.err
            assert captured.err.count("Traceback") == 0
            assert left == []
        else:
            assert code == 0
            assert len(left) == 1
            shutil.rmtree(roots["raw"] / left[0])

    check()
    assert 2 in codes


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("kind", ["image", "label"])
def test_convert_refuses_or_converts(roots, tmp_path, capsys, ending, kind):
    folders = make_folders(tmp_path / "data", ending)
    path = getattr(folders, kind)("p2")
    check_convert(roots, path, 5, lambda: convert(folders.root, *WHAT), capsys)


def test_convert_refuses_or_converts_dicom(roots, tmp_path, capsys):
    for seed, case in enumerate(("p1", "p2")):
        array = scan(seed, (5, 16, 16))
        files = write_series(tmp_path / "images" / case, array.astype(np.int16), case.upper())
        if not seed:
            label = SimpleITK.GetImageFromArray(mask(0, 1, array.shape))
            label.CopyInformation(_geometry(files))
            (tmp_path / "labels").mkdir()
            SimpleITK.WriteImage(label, str(tmp_path / "labels" / "p1.nii.gz"))
    run = lambda: convert(tmp_path, *WHAT)  # noqa: E731 - a name for the loop
    assert run() == 0
    shutil.rmtree(roots["raw"] / "Dataset501_Generic")
    check_convert(roots, files[2], 6, run, capsys)


def _geometry(files):
    volume = read_dicom_folder(files[0].parent)
    image = SimpleITK.GetImageFromArray(volume.array)
    image.SetSpacing(volume.geometry.spacing)
    image.SetOrigin(volume.geometry.origin)
    image.SetDirection(volume.geometry.direction)
    return image


def test_convert_refuses_or_converts_h5(roots, h5_download, capsys):
    check_convert(roots, h5_download.h5("CCCC"), 4, lambda: trees.convert(h5_download), capsys)


def test_verify_names_the_file_or_passes(roots, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "nnunet_semisup.dataset_conversion.checking.raw_dataset._faults_by_nnunet", lambda *_: []
    )
    assert convert(make_folders(tmp_path / "data").root, *WHAT) == 0
    path = roots["raw"] / "Dataset501_Generic" / "imagesUn" / "p4_0000.nii.gz"
    content = path.read_bytes()

    @seeded(8)
    @given(damage())
    def check(change):
        path.write_bytes(damaged(content, change))
        before = trees.snapshot(roots["raw"])
        with pytest.raises(SystemExit) as end:
            verify.main(["501", "-np", "1"])
        error = capsys.readouterr().err
        assert end.value.code in (0, 2)
        assert "case p4: " in error or end.value.code == 0
        assert trees.snapshot(roots["raw"]) == before

    check()
