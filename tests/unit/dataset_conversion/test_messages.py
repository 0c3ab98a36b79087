"""What a stranger reads after a slip, and what a conversion says besides."""

import json

import numpy as np
import pytest

from nnunet_semisup.cli.convert import build_parser
from nnunet_semisup.dataset_conversion.checking import all_cases as consistency
from nnunet_semisup.dataset_conversion.reading.scans import source_sha256
from tests.unit.dataset_conversion.forms import make
from tests.unit.dataset_conversion.trees_common import names, report_of
from tests.unit.dataset_conversion.trees_generic import (
    WHAT,
    convert,
    make_folders,
    mask,
    scan,
    write,
)
from tests.unit.dataset_conversion.trees_msd_lung import image_path, label_path, task
from tests.unit.dataset_conversion.trees_pancreas import series_folder

pytestmark = pytest.mark.usefixtures("no_search")


@pytest.fixture
def folders(tmp_path):
    return make_folders(tmp_path / "data")


@pytest.mark.parametrize("dataset", ["generic", "pancreas"])
def test_forgotten_option_is_a_short_message(capsys, dataset):
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([dataset, "folder"])
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"usage: nnUNetv2_semisup_convert {dataset} RAW_DIR -d ID [options]"
    assert lines[1].endswith("the following arguments are required: -d/--dataset-id")


def test_id_is_refused_before_the_folder_is_searched(roots, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert convert(tmp_path / "empty", dataset_id=1502) == 2
    assert "-d 1502 is not possible; give a number from 1 to 999" in capsys.readouterr().err


def test_target_that_cannot_be_written_is_refused(roots, folders, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "file" / "raw"))
    assert convert(folders.root, *WHAT, "--dry-run") == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'file'} is not a folder; set the variable nnUNet_raw" in error
    monkeypatch.setenv("nnUNet_raw", str(roots["raw"]))
    monkeypatch.setattr("os.access", lambda *_: False)
    assert convert(folders.root, *WHAT) == 2
    assert f"{roots['raw']} is not writable" in capsys.readouterr().err


def test_disk_that_refuses_at_last(roots, folders, monkeypatch, capsys):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("nnunet_semisup.dataset_conversion.writing.target.Path.mkdir", refuse)
    assert convert(folders.root, *WHAT) == 2
    assert "cannot be written ([Errno 13] Permission denied)" in capsys.readouterr().err


def test_folder_above_or_below_the_right_one(roots, folders, capsys):
    assert convert(folders.root.parent, *WHAT) == 2
    error = capsys.readouterr().err
    assert "has no folder imagesTr or images, only data" in error
    assert "--images ." not in error
    assert convert(folders.images, *WHAT) == 2
    assert "'--images .' takes those directly in it" in capsys.readouterr().err
    assert convert(folders.images, *WHAT, "--images", ".", "--labels", str(folders.labels)) == 0


def test_labels_that_were_not_found(roots, folders, capsys):
    folders.labels.rename(folders.root / "1st_manual")
    assert convert(folders.root, *WHAT) == 2
    error = capsys.readouterr().err
    assert "none of the 5 training images has a label" in error
    assert "--labels DIR" in error


def test_lung_folder_one_level_too_deep(roots, tmp_path, capsys):
    tree = make("msd_lung", "raw", tmp_path / "download")
    split = str(tree.split)
    tree.root = task(tree) / "imagesTr"
    assert tree.convert("--split", split) == 2
    assert "give the folder that holds both, 'Task06_Lung'" in capsys.readouterr().err


def test_pancreas_without_the_archive_of_labels(roots, tmp_path, capsys):
    tree = make("pancreas", "nii", tmp_path / "download")
    labels = tree.root / "TCIA_pancreas_labels-02-05-2017"
    labels.rename(tmp_path / "labels")
    assert tree.convert() == 2
    assert "give its folder by --labels-dir DIR" in capsys.readouterr().err
    assert tree.convert("--labels-dir", str(tmp_path / "labels")) == 0


def test_dicom_without_endings_is_found_by_its_content(roots, tmp_path):
    tree = make("pancreas", "raw", tmp_path / "download")
    for path in sorted(tree.root.rglob("*.dcm")):
        path.rename(path.with_suffix(""))
    assert tree.convert("--dry-run") == 0


def test_other_files_beside_a_series(roots, tmp_path):
    tree = make("pancreas", "raw", tmp_path / "download")
    folder = series_folder(tree, 1)
    before = source_sha256(folder)
    (folder / "notes").mkdir()
    (folder / "notes" / "read.txt").write_text("text")
    assert source_sha256(folder) != before
    assert tree.convert("--dry-run") == 0


def test_what_systems_leave_behind_is_said(roots, tmp_path, capsys):
    tree = make("msd_lung", "raw", tmp_path / "download")
    (task(tree) / "__MACOSX").mkdir()
    number = len(list(tree.root.rglob("._*"))) + 1
    assert tree.convert() == 0
    out = capsys.readouterr().out
    assert f"{number} files or folders that systems leave behind are passed over: " in out
    (made,) = roots["raw"].iterdir()
    assert not [name for name in names(made / "imagesTr") if name.startswith("._")]


def test_voxel_size_in_another_unit_is_a_warning(roots, folders, capsys):
    write(scan(4), folders.image("p5"), (0.1, 0.1, 0.2))
    write(scan(1), folders.image("p2"), (10, 10, 20))
    write(mask(1), folders.label("p2"), (10, 10, 20))
    assert convert(folders.root, *WHAT) == 0
    out = capsys.readouterr().out
    for case, words in (("p2", "10 times larger"), ("p5", "10 times smaller")):
        (line,) = [line for line in out.splitlines() if f"case {case}: has the spacing" in line]
        assert f"about {words} on all axes" in line


def alike(monkeypatch, *pairs):
    """Let the search for similar images find these pairs, by index."""
    place = "nnunet_semisup.dataset_conversion.checking.all_cases.near_duplicates"
    monkeypatch.setattr(place, lambda *_: [(i, j, 0.92 + j / 1000) for i, j in pairs])


def test_images_that_look_alike_are_for_the_user_to_compare(roots, folders, monkeypatch, capsys):
    alike(monkeypatch, (0, 3), (1, 2))
    assert convert(folders.root, *WHAT) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "same scan" in line] == [
        "warning: p1 (labeled) and p4 (unlabeled) look like the same scan (correlation 0.92 after "
        "alignment); compare them (--drop-duplicates would leave p4 out)",
        "warning: p2 (labeled) and p3 (labeled) look like the same scan (correlation 0.92 after "
        "alignment); compare them, and leave one out if it is a copy",
    ]


@pytest.mark.parametrize("drop", [False, True])
def test_many_images_that_look_alike_are_one_line(roots, folders, monkeypatch, capsys, drop):
    write(scan(5), folders.image("p6"))
    pairs = [(i, j) for j in range(1, 6) for i in range(j) if j < 5]
    alike(monkeypatch, *pairs, (2, 5))
    monkeypatch.setattr(consistency, "MOST_SIMILAR_LISTED", 3 if drop else 10)
    write(scan(6), folders.image("p7"))
    assert convert(folders.root, *WHAT, *(["--drop-duplicates"] if drop else [])) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "same scan" in line]
    assert line == (
        "warning: 11 pairs of cases look like the same scan (correlation 0.92 to 0.93 after "
        "alignment); compare them. 3 unlabeled cases "
        f"{'are left out' if drop else 'would be left out by --drop-duplicates'}. The report lists "
        "all pairs under 'duplicates'"
    )
    (made,) = roots["raw"].iterdir()
    assert len(report_of(made)["duplicates"]) == 11
    assert report_of(made)["dropped"] == (["p4", "p5", "p6"] if drop else [])


def test_all_unlabeled_cases_dropped_is_a_fault(roots, folders, monkeypatch, capsys):
    alike(monkeypatch, (0, 3), (1, 4))
    assert convert(folders.root, *WHAT, "--drop-duplicates") == 2
    error = capsys.readouterr().err
    assert (
        "--drop-duplicates would leave out every unlabeled case (2): p1 (labeled) and p4" in error
    )
    assert "p2 (labeled) and p5 (unlabeled) look like the same scan" in error
    assert "leave the option out if they are different scans" in error
    assert not any(roots["raw"].iterdir())


@pytest.mark.parametrize("dataset", ["generic", "lc", "la"])
def test_help_speaks_of_downloads_only_where_there_is_one(capsys, dataset):
    with pytest.raises(SystemExit):
        build_parser().parse_args([dataset, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    own = ("folder with your images and labels", "fraction of the training cases such as 0.1")
    published = ("folder the download was extracted to", "fraction of the literature's table")
    there, absent = (published, own) if dataset == "la" else (own, published)
    assert all(words in text for words in there)
    assert not any(words in text for words in absent)


def test_report_holds_the_command(roots, folders):
    assert convert(folders.root, *WHAT) == 0
    (made,) = roots["raw"].iterdir()
    command = report_of(made)["command"]
    assert command[:3] == ["nnUNetv2_semisup_convert", "generic", str(folders.root)]
    assert command[-len(WHAT) :] == list(WHAT)
    assert "-np" not in command, "the number of processes changes nothing"


def test_hidden_labels_are_neither_read_nor_hashed(roots, tmp_path):
    tree = make("msd_lung", "raw", tmp_path / "download")
    hidden = tree.lists["unlabeled"]
    for case in hidden:
        label_path(tree, case).write_bytes(b"not a label")
    assert tree.convert() == 0
    (made,) = roots["raw"].iterdir()
    cases = report_of(made)["cases"]
    assert all(cases[case]["label"] is None for case in hidden)
    text = json.dumps(cases)
    assert not any(str(label_path(tree, case)) in text for case in hidden)
    assert all(str(image_path(tree, case)) in text for case in hidden)
    assert np.all([cases[case]["label_voxels"] == {} for case in hidden])
