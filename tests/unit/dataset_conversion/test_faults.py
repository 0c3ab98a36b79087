"""Every fault is named with what to do, all of them at once, and nothing is written."""

import json

import h5py
import numpy as np
import pytest

from nnunet_semisup.dataset_conversion.cases import Case, DatasetForm, Subset
from nnunet_semisup.dataset_conversion.checking.one_case import inspect_case
from nnunet_semisup.dataset_conversion.reading.scans import read_itk
from tests.unit.dataset_conversion.trees import SHAPE, ball, convert, snapshot, texture, write_nrrd


def truncate(d):
    content = d.image("AAAA").read_bytes()
    d.image("AAAA").write_bytes(content[: len(content) // 2])


def not_finite(d):
    image = texture(0).astype(np.float32)
    image[3, 4, 5] = np.nan
    write_nrrd(image, d.image("AAAA"))


def mixed_values(d):
    label = ball(0)
    label[0, 0, 0] = 1
    write_nrrd(label, d.label("AAAA"))


def turned(d):
    direction = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    write_nrrd(ball(0), d.label("AAAA"), direction=direction)


def twice(d):
    write_nrrd(texture(0), d.root / "other" / "AAAA" / "lgemri.nrrd")


def copy_across(d):
    write_nrrd(texture(0), d.image("DDDD"))


FAULTS = {
    "empty file": (lambda d: d.image("AAAA").write_bytes(b""), "the file is empty (0 bytes)"),
    "truncated": (truncate, "cannot be read: damaged or not a scan"),
    "text": (lambda d: d.label("AAAA").write_text("hello"), "cannot be read: damaged or not a"),
    "NaN": (not_finite, "1 voxel is NaN or Inf"),
    "4D": (
        lambda d: write_nrrd(texture(0)[0], d.image("AAAA"), (1, 1), (0, 0)),
        "has 2 dimensions",
    ),
    "constant": (
        lambda d: write_nrrd(np.full(SHAPE, 7, np.uint8), d.image("AAAA")),
        "every voxel has the value 7",
    ),
    "size": (
        lambda d: write_nrrd(ball(0)[:, :-1], d.label("AAAA")),
        "image and label differ in size (24, 20, 88) and (24, 19, 88)",
    ),
    "spacing": (
        lambda d: write_nrrd(ball(0), d.label("AAAA"), spacing=(0.625, 0.625, 1.0)),
        "image and label differ in spacing",
    ),
    "direction": (turned, "image and label differ in direction"),
    "label value": (mixed_values, "the label has the values 0, 1, 255; only 0, 255 are expected"),
    "fraction": (
        lambda d: write_nrrd(ball(0).astype(np.float32) / 2, d.label("AAAA")),
        "values that are not whole numbers (0, 127.5)",
    ),
    "no foreground": (
        lambda d: write_nrrd(np.zeros(SHAPE, np.uint8), d.label("AAAA")),
        "the label has no foreground; --allow-empty accepts that",
    ),
    "no label": (lambda d: d.label("AAAA").unlink(), "is labeled but has no label file"),
    "no label for validation": (
        lambda d: d.label("EEEE").unlink(),
        "case EEEE: is validation but has no label file",
    ),
    "no image": (lambda d: d.image("AAAA").unlink(), "has no lgemri.nrrd beside it"),
    "slices": (
        lambda d: write_nrrd(texture(3)[:80], d.image("DDDD")),
        "has 80 slices; every scan of the challenge has 88",
    ),
    "case twice": (twice, "case AAAA: is there twice"),
    "copy in two subsets": (
        copy_across,
        "AAAA (labeled) and DDDD (unlabeled) hold the same image, voxel for voxel",
    ),
    "no labeled case": (
        lambda d: d.write_split(labeled=["XXXX"]),
        "none of the 1 labeled cases is on disk",
    ),
    "no unlabeled case": (
        lambda d: d.write_split(unlabeled=["XXXX"]),
        "none of the 1 unlabeled cases is on disk",
    ),
    "missing case": (
        lambda d: d.write_split(unlabeled=["CCCC", "DDDD", "XXXX"]),
        "(unlabeled: XXXX); --allow-partial converts the others",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_and_nothing_is_written(roots, download, capsys, name):
    spoil, message = FAULTS[name]
    spoil(download)
    assert convert(download) == 2
    assert message in capsys.readouterr().err
    assert not any(roots["raw"].iterdir())


def test_all_faults_come_at_once(roots, download, capsys):
    not_finite(download)
    download.label("BBBB").unlink()
    mixed = ball(4)
    mixed[0, 0, 0] = 9
    write_nrrd(mixed, download.label("EEEE"))
    assert convert(download) == 2
    error = capsys.readouterr().err
    assert "3 faults, nothing was written" in error
    for case in ("AAAA", "BBBB", "EEEE"):
        assert f"case {case}: " in error


def test_empty_label_is_accepted_on_request(roots, download):
    write_nrrd(np.zeros(SHAPE, np.uint8), download.label("AAAA"))
    assert convert(download, "--allow-empty") == 0


def test_copy_is_dropped_on_request(roots, download, capsys):
    copy_across(download)
    assert convert(download, "--drop-duplicates") == 0
    assert "DDDD is left out" in capsys.readouterr().out
    made = roots["raw"] / "Dataset501_LA2018"
    assert [path.name for path in (made / "imagesUn").iterdir()] == ["CCCC_0000.nii.gz"]
    assert (
        json.loads((made / "dataset.json").read_text(encoding="utf-8"))["semisup"]["num_unlabeled"]
        == 1
    )


def test_one_label_for_two_images_is_only_a_warning(roots, download, capsys):
    """The challenge's own scans have such a pair."""
    write_nrrd(ball(0), download.label("EEEE"))
    assert convert(download) == 0
    assert (
        "warning: AAAA (labeled) and EEEE (validation) hold the same label, voxel for voxel; "
        "compare their images: one scan may be there twice, or one label may be wrong"
    ) in capsys.readouterr().out
    write_nrrd(ball(0), download.label("CCCC"))
    kept = ("--keep-hidden-labels", "--overwrite")
    assert convert(download, *kept) == 0
    assert "CCCC (unlabeled) hold the same label" in capsys.readouterr().out
    assert convert(download, *kept, "--drop-duplicates") == 0
    report = roots["raw"] / "Dataset501_LA2018" / "conversion_report.json"
    assert json.loads(report.read_text(encoding="utf-8"))["dropped"] == ["CCCC"]


def test_shifted_copy_is_only_a_warning(roots, download, capsys):
    volume = texture(5, (88, 32, 32))
    write_nrrd(volume[:, 2:30, 3:29], download.image("AAAA"))
    label = np.zeros((88, 28, 26), np.uint8)
    label[30:50, 8:20, 9:15] = 255
    write_nrrd(label, download.label("AAAA"))
    write_nrrd((volume[:, 4:, :30] * 0.9 + 3).astype(np.uint8), download.image("DDDD"))
    assert convert(download) == 0
    warning = "AAAA (labeled) and DDDD (unlabeled) look like the same scan"
    assert warning in capsys.readouterr().out
    assert convert(download, "--overwrite", "--drop-duplicates") == 0
    made = roots["raw"] / "Dataset501_LA2018"
    report = json.loads((made / "conversion_report.json").read_text(encoding="utf-8"))
    assert report["dropped"] == ["DDDD"]
    assert report["duplicates"][0]["cases"] == ["AAAA", "DDDD"]


H5_FAULTS = {
    "label 255": ("label", lambda a: a * 255, "the values 0, 255; only 0, 1 are expected"),
    "axes": ("image", lambda a: a.T, "image and label differ in size"),
    "no image": ("image", None, "has no data set 'image', only ['label']"),
}


@pytest.mark.parametrize("name", H5_FAULTS)
def test_fault_in_h5_is_named(roots, h5_download, capsys, name):
    key, change, message = H5_FAULTS[name]
    with h5py.File(h5_download.h5("AAAA"), "a") as file:
        array = np.asarray(file[key])
        del file[key]
        if change is not None:
            file[key] = change(array)
    assert convert(h5_download) == 2
    assert message in capsys.readouterr().err


def test_truncated_h5_is_named(roots, h5_download, capsys):
    content = h5_download.h5("AAAA").read_bytes()
    h5_download.h5("AAAA").write_bytes(content[: len(content) // 2])
    assert convert(h5_download) == 2
    assert "AAAA" in (error := capsys.readouterr().err)
    assert "cannot be read: damaged or not an HDF5 file" in error


def test_both_forms_need_a_choice(roots, download, h5_download, capsys):
    h5_download.training.rename(download.root / "h5")
    assert convert(download) == 2
    assert "choose --source raw or --source h5" in capsys.readouterr().err
    assert convert(download, "--source", "raw") == 0


def test_h5_files_cannot_be_linked(roots, h5_download, capsys):
    assert convert(h5_download, "--link", "symlink") == 2
    assert "must be rewritten as .nii.gz. Leave --link out" in capsys.readouterr().err
    assert snapshot(roots["raw"]) == {}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("-np", "0"), "-np 0 is not possible"),
        (("--report", "no/such/folder/r.json"), "does not exist; create it first"),
        (("--name", "a/b"), "use letters, digits, '-' and '_'"),
        (("--source", "h5"), "holds no case of the form 'h5'"),
        (("--labeled", "3"), "--labeled 3 is not available; give a whole number from 1 to 2"),
    ],
)
def test_option_that_cannot_be_met(roots, download, tmp_path, capsys, extra, message):
    before = snapshot(tmp_path)
    assert convert(download, *extra) == 2
    assert message in capsys.readouterr().err
    assert snapshot(tmp_path) == before


def test_raw_folder_must_be_set(download, capsys, monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert convert(download) == 2
    assert "export nnUNet_raw=" in capsys.readouterr().err


@pytest.mark.parametrize("size", [1.0, 2.0])
def test_channels_must_share_their_geometry(tmp_path, size):
    form = DatasetForm(
        "Two", "raw", {0: "a", 1: "b"}, {"background": 0}, {0: 0}, read_itk, read_itk, "", "", ""
    )
    paths = (tmp_path / "a.nrrd", tmp_path / "b.nrrd")
    write_nrrd(texture(1), paths[0], spacing=(1, 1, 1))
    write_nrrd(texture(2), paths[1], spacing=(1, 1, size))
    facts = inspect_case(Case("X", Subset.UNLABELED, paths, None), form)
    assert bool(facts.faults) == (size != 1.0)
    assert all("differs from the first channel in spacing" in fault for fault in facts.faults)
