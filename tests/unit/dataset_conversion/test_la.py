import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from nnunet_semisup.dataset_conversion.datasets import la
from nnunet_semisup.dataset_conversion.writing import dataset_writer
from tests.unit.dataset_conversion.trees import (
    IDS,
    ORIGIN,
    SPACING,
    UNLABELED,
    VALIDATION,
    ball,
    convert,
    read,
    snapshot,
    texture,
    write_nrrd,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_raw_tree_becomes_a_data_set(roots, download):
    assert convert(download, "--labeled", "2") == 0
    made = roots["raw"] / "Dataset501_LA2018"
    assert names(made / "imagesTr") == ["AAAA_0000.nii.gz", "BBBB_0000.nii.gz", "EEEE_0000.nii.gz"]
    assert names(made / "labelsTr") == ["AAAA.nii.gz", "BBBB.nii.gz", "EEEE.nii.gz"]
    assert names(made / "imagesUn") == ["CCCC_0000.nii.gz", "DDDD_0000.nii.gz"]
    for folder in ("labelsUn", "imagesTs", "labelsTs"):
        assert not (made / folder).exists()
    assert json.loads((made / "splits_final.json").read_text(encoding="utf-8")) == [
        {"train": ["AAAA", "BBBB"], "val": ["EEEE"]}
    ]
    content = json.loads((made / "dataset.json").read_text(encoding="utf-8"))
    assert content["numTraining"] == 3
    assert content["channel_names"] == {"0": "LGE-MRI"}
    assert content["labels"] == {"background": 0, "left_atrium": 1}
    assert content["source"] == "raw"
    assert content["semisup"]["labeled_order"] == ["AAAA", "BBBB"]
    assert content["semisup"]["num_unlabeled"] == 2
    assert "citation" not in content
    assert names(roots["raw"]) == ["Dataset501_LA2018"]


def test_voxels_geometry_and_type_are_the_source_s(roots, download):
    oblique = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    write_nrrd(texture(0), download.image("AAAA"), direction=oblique)
    write_nrrd(ball(0), download.label("AAAA"), direction=oblique)
    assert convert(download) == 0
    made = roots["raw"] / "Dataset501_LA2018"
    report = json.loads((made / "conversion_report.json").read_text(encoding="utf-8"))["cases"]
    for seed, case in enumerate(IDS):
        folder = "imagesUn" if case in UNLABELED else "imagesTr"
        path = made / folder / f"{case}_0000.nii.gz"
        voxels = read(path)
        assert voxels.dtype == np.uint8
        assert voxels.sum() == texture(seed).sum() == report[case]["images"][0]["sum"]
        np.testing.assert_array_equal(voxels, texture(seed))
        image = SimpleITK.ReadImage(str(path))
        np.testing.assert_allclose(image.GetSpacing(), SPACING)
        np.testing.assert_allclose(image.GetOrigin(), ORIGIN)
        expected = oblique if case == "AAAA" else np.eye(3).ravel()
        np.testing.assert_allclose(image.GetDirection(), expected, atol=1e-6)
        if case not in UNLABELED:
            label = read(made / "labelsTr" / f"{case}.nii.gz")
            np.testing.assert_array_equal(label, ball(seed, 1))
            assert report[case]["label_voxels"]["1"] == ball(seed, 1).sum()


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_linked_images_stay_nrrd(roots, download, link):
    assert convert(download, "--link", link) == 0
    made = roots["raw"] / "Dataset501_LA2018"
    assert names(made / "imagesUn") == ["CCCC_0000.nrrd", "DDDD_0000.nrrd"]
    for seed, case in enumerate(IDS):
        image = made / ("imagesUn" if case in UNLABELED else "imagesTr") / f"{case}_0000.nrrd"
        assert image.samefile(download.image(case))
        assert image.is_symlink() == (link == "symlink")
        if case not in UNLABELED:
            label = SimpleITK.ReadImage(str(made / "labelsTr" / f"{case}.nrrd"))
            np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(label), ball(seed, 1))
            np.testing.assert_allclose(label.GetSpacing(), SPACING)
            np.testing.assert_allclose(label.GetOrigin(), ORIGIN)
    content = json.loads((made / "dataset.json").read_text(encoding="utf-8"))
    assert content["file_ending"] == ".nrrd"
    verify_dataset_integrity(str(made), 1)
    before = snapshot(made)
    assert convert(download, "--link", link, "--overwrite") == 0
    assert snapshot(made) == before


@pytest.mark.parametrize("form", ["raw", "h5"])
def test_nnunet_accepts_the_result(roots, download, h5_download, form):
    assert convert(download if form == "raw" else h5_download) == 0
    verify_dataset_integrity(str(roots["raw"] / "Dataset501_LA2018"), 1)


def test_h5_tree_becomes_a_data_set(roots, h5_download, capsys):
    assert convert(h5_download, "--spacing", "0.7") == 0
    assert "form 'h5'" in capsys.readouterr().out
    made = roots["raw"] / "Dataset501_LA2018"
    image = SimpleITK.ReadImage(str(made / "imagesTr" / "BBBB_0000.nii.gz"))
    np.testing.assert_allclose(image.GetSpacing(), (0.7, 0.7, 0.7), rtol=1e-6)
    source = texture(1).astype(np.float32)
    source = (source - source.mean()) / source.std()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), source)
    np.testing.assert_array_equal(read(made / "labelsTr" / "BBBB.nii.gz"), ball(1, 1))
    content = json.loads((made / "dataset.json").read_text(encoding="utf-8"))
    assert content["source"] == content["semisup"]["source"] == "h5"
    assert "assumed (0.7 mm)" in content["description"]
    report = json.loads((made / "conversion_report.json").read_text(encoding="utf-8"))
    assert report["settings"]["assumptions"]["spacing"] == 0.7


def test_test_cases_go_to_images_ts(roots, download):
    download.lists.pop("validation")
    download.write_split(test=VALIDATION)
    assert convert(download, "--labeled", "1") == 0
    made = roots["raw"] / "Dataset501_LA2018"
    assert names(made / "imagesTs") == ["EEEE_0000.nii.gz"]
    assert names(made / "labelsTs") == ["EEEE.nii.gz"]
    assert names(made / "imagesTr") == ["AAAA_0000.nii.gz"]
    assert not (made / "splits_final.json").exists()


def test_unlabeled_cases_need_no_label(roots, download):
    for case in UNLABELED:
        download.label(case).unlink()
    assert convert(download) == 0


def test_hidden_labels_are_neither_written_nor_opened(roots, download):
    for case in UNLABELED:
        download.label(case).write_bytes(b"not a label")
    assert convert(download, "--labeled", "1") == 0
    made = roots["raw"] / "Dataset501_LA2018"
    assert not (made / "labelsUn").exists()
    assert names(made / "labelsTr") == ["AAAA.nii.gz", "EEEE.nii.gz"]
    report = json.loads((made / "conversion_report.json").read_text(encoding="utf-8"))["cases"]
    assert all(report[case]["label"] is None for case in [*UNLABELED, "BBBB"])


def test_hidden_labels_are_kept_on_request(roots, download):
    assert convert(download, "--keep-hidden-labels") == 0
    made = roots["raw"] / "Dataset501_LA2018"
    assert names(made / "labelsUn") == ["CCCC.nii.gz", "DDDD.nii.gz"]
    assert json.loads((made / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == 3


def test_dry_run_checks_everything_and_writes_nothing(roots, download, tmp_path, capsys):
    before = snapshot(tmp_path)
    assert convert(download, "--dry-run") == 0
    assert "nothing was written (--dry-run)" in capsys.readouterr().out
    assert snapshot(tmp_path) == before
    assert names(roots["raw"]) == []


def test_report_is_copied_on_request(roots, download, tmp_path):
    assert convert(download, "--report", str(tmp_path / "copy.json")) == 0
    made = roots["raw"] / "Dataset501_LA2018" / "conversion_report.json"
    assert (tmp_path / "copy.json").read_bytes() == made.read_bytes()


def test_two_processes_write_the_same_bytes(roots, download):
    assert convert(download) == 0
    one = snapshot(roots["raw"] / "Dataset501_LA2018")
    assert convert(download, "-np", "2", "--overwrite") == 0
    assert snapshot(roots["raw"] / "Dataset501_LA2018") == one


def test_partial_download_on_request(roots, download, capsys):
    for file in (download.image("DDDD"), download.label("DDDD")):
        file.unlink()
    assert convert(download) == 2
    assert "1 of the 5 cases of split.json are not on disk" in capsys.readouterr().err
    assert convert(download, "--allow-partial") == 0
    assert "unlabeled: DDDD" in capsys.readouterr().out
    report = roots["raw"] / "Dataset501_LA2018" / "conversion_report.json"
    assert json.loads(report.read_text(encoding="utf-8"))["missing"] == ["DDDD"]


def test_origin_of_the_label_is_taken_from_the_image(roots, download, capsys):
    write_nrrd(ball(0), download.label("AAAA"), origin=(0.0, 0.0, 0.0))
    assert convert(download) == 0
    assert "case AAAA: origins differ" in capsys.readouterr().out
    label = roots["raw"] / "Dataset501_LA2018" / "labelsTr" / "AAAA.nii.gz"
    np.testing.assert_allclose(SimpleITK.ReadImage(str(label)).GetOrigin(), ORIGIN)


def test_junk_and_test_set_are_left_out_and_named(roots, download, capsys):
    (download.image("AAAA").parent / "desktop.ini").write_text("junk")
    write_nrrd(texture(9), download.root / "Testing Set" / "ZZZZ" / "lgemri.nrrd")
    assert convert(download) == 0
    out = capsys.readouterr().out
    assert "desktop.ini" in out
    assert "the 1 cases in 'Testing Set'" in out
    assert not list(roots["raw"].rglob("ZZZZ*"))


def test_source_that_changes_meanwhile_is_noticed(roots, download, capsys, monkeypatch):
    write_cases = dataset_writer.write_cases

    def change_and_write(*arguments, **keywords):
        write_nrrd(texture(77), download.image("BBBB"))
        write_cases(*arguments, **keywords)

    monkeypatch.setattr(
        "nnunet_semisup.dataset_conversion.conversion.write_cases", change_and_write
    )
    assert convert(download) == 2
    assert "BBBB" in (error := capsys.readouterr().err)
    assert "changed while it was converted" in error
    assert names(roots["raw"]) == [".Dataset501_LA2018.unfinished"]


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_source_that_changes_before_it_is_linked_is_noticed(
    roots, download, capsys, monkeypatch, link
):
    write_cases = dataset_writer.write_cases

    def change_and_write(*arguments, **keywords):
        write_nrrd(texture(77), download.image("BBBB"))
        write_cases(*arguments, **keywords)

    place = "nnunet_semisup.dataset_conversion.conversion.write_cases"
    monkeypatch.setattr(place, change_and_write)
    assert convert(download, "--link", link) == 2
    assert "BBBB" in (error := capsys.readouterr().err)
    assert "changed while it was converted" in error
    assert names(roots["raw"]) == [".Dataset501_LA2018.unfinished"]


def test_collect_accepts_the_folder_of_cases_itself(download):
    collected, source = la.collect(download.training)
    assert source == "raw"
    assert list(collected.cases) == IDS


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("NNUNET_SEMISUP_TEST_DATA")
    if not folder or not (Path(folder) / "la2018").is_dir():
        pytest.skip("NNUNET_SEMISUP_TEST_DATA does not name a folder with la2018")
    return Path(folder) / "la2018"


def test_real_download_names_its_one_duplicate(roots, real_data, capsys):
    split = real_data / "splits.json"
    arguments = ["la", str(real_data), "-d", "501", "--labeled", "8", "--split", str(split)]
    with pytest.raises(SystemExit) as end:
        la_main(arguments + ["--dry-run", "-np", "2"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert out.count("look like the same scan") == 1
    assert "0RZDK210BSMWAA6467LU (labeled) and CMPXO4J23G58J53Q98SZ (unlabeled)" in out


def la_main(arguments: list[str]) -> None:
    from nnunet_semisup.cli.convert import main

    main(arguments)
