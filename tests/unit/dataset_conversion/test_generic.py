import json
import shutil

import numpy as np
import pytest
import SimpleITK
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from nnunet_semisup.dataset_conversion.reading.dicom import read_dicom_folder
from tests.unit.dataset_conversion.trees import read, snapshot
from tests.unit.dataset_conversion.trees_dicom import write_series
from tests.unit.dataset_conversion.trees_generic import (
    LABELED,
    PHOTO_OPTIONS,
    UNLABELED,
    WHAT,
    content,
    convert,
    made,
    make_folders,
    mask,
    names,
    scan,
    write,
)


def test_images_without_a_label_become_unlabeled(roots, folders):
    assert convert(folders.root, *WHAT) == 0
    folder = made(roots)
    assert names(folder / "imagesTr") == [f"{c}_0000" for c in LABELED]
    assert names(folder / "labelsTr") == LABELED
    assert names(folder / "imagesUn") == [f"{c}_0000" for c in UNLABELED]
    assert not (folder / "splits_final.json").exists()
    assert content(roots)["channel_names"] == {"0": "MR"}
    assert content(roots)["labels"] == {"background": 0, "organ": 1}
    for seed, case in enumerate(LABELED + UNLABELED):
        place = "imagesTr" if case in LABELED else "imagesUn"
        np.testing.assert_array_equal(read(folder / place / f"{case}_0000.nii.gz"), scan(seed))


def test_validation_is_the_last_and_the_budget_the_first(roots, folders):
    assert convert(folders.root, *WHAT, "--validation", "1", "--labeled", "1") == 0
    splits = json.loads((made(roots) / "splits_final.json").read_text(encoding="utf-8"))
    assert splits == [{"train": ["p1"], "val": ["p3"]}]
    assert names(made(roots) / "imagesUn") == ["p2_0000", "p4_0000", "p5_0000"]
    assert not (made(roots) / "labelsUn").exists()


def test_validation_and_budget_by_list(roots, folders, tmp_path):
    (tmp_path / "val.txt").write_text("p1\n")
    (tmp_path / "lab.txt").write_text("p3\n")
    lists = ("--validation", str(tmp_path / "val.txt"), "--labeled-list", str(tmp_path / "lab.txt"))
    assert convert(folders.root, *WHAT, *lists, "--keep-hidden-labels") == 0
    splits = json.loads((made(roots) / "splits_final.json").read_text(encoding="utf-8"))
    assert splits == [{"train": ["p3"], "val": ["p1"]}]
    assert names(made(roots) / "labelsUn") == ["p2"]


def test_fraction_is_one_of_all_training_cases(roots, folders, capsys):
    assert convert(folders.root, *WHAT, "--labeled", "0.4") == 0
    assert names(made(roots) / "labelsTr") == ["p1", "p2"]
    assert convert(folders.root, *WHAT, "--labeled", "0.9", "--overwrite") == 2
    assert "of 5 cases is 5, but only 3 have labels" in capsys.readouterr().err


def test_seed_shuffles_the_labeled_cases(roots, folders):
    orders = set()
    for seed in range(6):
        extra = ("--split", f"seed:{seed}", "--labeled", "1", "--overwrite")
        assert convert(folders.root, *WHAT, *extra) == 0
        orders.add(tuple(content(roots)["semisup"]["labeled_order"]))
        assert content(roots)["semisup"]["split"].startswith(f"seed:{seed}@")
    assert len(orders) > 1


def test_user_s_split(roots, folders, tmp_path):
    split = {"labeled": ["p2"], "unlabeled": ["p4", "p5", "p3"], "test": ["p1"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    assert convert(folders.root, *WHAT, "--split", str(tmp_path / "split.json")) == 0
    assert names(made(roots) / "imagesTs") == ["p1_0000"]
    assert names(made(roots) / "imagesUn") == ["p3_0000", "p4_0000", "p5_0000"]


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_links(roots, folders, link):
    assert convert(folders.root, *WHAT, "--link", link) == 0
    assert (made(roots) / "imagesUn" / "p5_0000.nii.gz").samefile(folders.image("p5"))


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_linked_scans_keep_the_format_that_nnunet_reads(roots, tmp_path, ending):
    tree = make_folders(tmp_path / "scans", ending)
    assert convert(tree.root, *WHAT, "--link", "hardlink") == 0
    assert (made(roots) / "imagesUn" / f"p5_0000{ending}").samefile(tree.image("p5"))
    label = read(made(roots) / "labelsTr" / f"p1{ending}")
    np.testing.assert_array_equal(label, read(tree.label("p1")))
    verify_dataset_integrity(str(made(roots)), 1)
    assert convert(tree.root, *WHAT, "--overwrite") == 0
    assert (made(roots) / "imagesUn" / "p5_0000.nii.gz").is_file()


def test_channels_by_number_and_by_suffix(roots, folders):
    for case in LABELED + UNLABELED:
        path = folders.image(case)
        write(255 - read(path), path.with_name(f"{case}_0001.nii.gz"))
        path.rename(path.with_name(f"{case}_0000.nii.gz"))
    options = ("--label-names", "background,organ", "--channel-names", "T1,T2")
    assert convert(folders.root, *options) == 0
    assert names(made(roots) / "imagesUn") == ["p4_0000", "p4_0001", "p5_0000", "p5_0001"]
    before = snapshot(made(roots) / "imagesTr")
    for number, name in ((0, "t1"), (1, "t1ce")):
        for path in folders.images.glob(f"*_000{number}.nii.gz"):
            path.rename(path.with_name(path.name.replace(f"_000{number}", f"_{name}")))
    extra = ("--image-suffix", "_t1,_t1ce", "--overwrite")
    assert convert(folders.root, *options, *extra) == 0
    assert snapshot(made(roots) / "imagesTr") == before


def test_four_digits_may_belong_to_the_name(roots, folders):
    for number, case in enumerate(LABELED + UNLABELED):
        for path in (folders.image(case), folders.label(case)):
            if path.is_file():
                path.rename(path.with_name(f"scan_{number:04d}.nii.gz"))
    assert convert(folders.root, *WHAT) == 0
    assert names(made(roots) / "labelsTr") == ["scan_0000", "scan_0001", "scan_0002"]


def test_nnunet_tree_with_its_dataset_json(roots, folders, capsys):
    root = folders.root
    folders.images.rename(root / "imagesTr")
    folders.labels.rename(root / "labelsTr")
    for folder, case in (("imagesUn", "p5"), ("imagesTs", "p4")):
        (root / folder).mkdir()
        (root / "imagesTr" / f"{case}.nii.gz").rename(root / folder / f"{case}.nii.gz")
    given = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver"},
        "description": "a decathlon",
        "licence": "CC-BY-SA 4.0",
    }
    (root / "dataset.json").write_text(json.dumps(given))
    assert convert(root) == 0
    assert content(roots)["labels"] == {"background": 0, "liver": 1}
    assert content(roots)["channel_names"] == {"0": "CT"}
    assert content(roots)["description"] == "a decathlon"
    assert names(made(roots) / "imagesTs") == ["p4_0000"]
    assert names(made(roots) / "imagesUn") == ["p5_0000"]
    assert not (made(roots) / "labelsTs").exists()


def test_test_folder_with_labels(roots, folders):
    for kind in ("images", "labels"):
        (folders.root / "held_out" / kind).mkdir(parents=True)
        path = folders.root / kind / "p3.nii.gz"
        path.rename(folders.root / "held_out" / kind / "p3.nii.gz")
    extra = ("--test", "held_out/images", "--test-labels", "held_out/labels")
    assert convert(folders.root, *WHAT, *extra) == 0
    assert names(made(roots) / "labelsTs") == ["p3"]


def test_case_folders(roots, folders):
    root = folders.root.parent / "cases"
    for case in LABELED + UNLABELED:
        (root / case).mkdir(parents=True)
        folders.image(case).rename(root / case / f"ct_{case}.nii.gz")
        if case in LABELED:
            folders.label(case).rename(root / case / "seg.nii.gz")
    extra = ("--image-glob", "ct*.nii.gz", "--label-glob", "seg.*")
    assert convert(root, *WHAT, *extra) == 0
    assert names(made(roots) / "labelsTr") == LABELED
    assert names(made(roots) / "imagesUn") == ["p4_0000", "p5_0000"]
    (root / "unlabeled").mkdir()
    (root / "p3").rename(root / "unlabeled" / "p3")
    more = ("--extra-unlabeled", "unlabeled", "--overwrite")
    assert convert(root, *WHAT, *extra, *more) == 0
    assert names(made(roots) / "labelsTr") == ["p1", "p2"]
    assert names(made(roots) / "imagesUn") == ["p3_0000", "p4_0000", "p5_0000"]


def separate(folders):
    """Annotated scans, masks and unlabeled scans in a folder each, as two exports have them."""
    root = folders.root
    (root / "unlabeled").mkdir()
    for case in UNLABELED:
        folders.image(case).rename(root / "unlabeled" / f"{case}.nii.gz")
    folders.images.rename(root / "annotated")
    folders.labels.rename(root / "masks")
    return root, ("--images", "annotated", "--labels", "masks")


def test_unlabeled_scans_in_a_folder_of_their_own(roots, folders, tmp_path, monkeypatch):
    root, where = separate(folders)
    monkeypatch.chdir(tmp_path)
    assert convert(root, *WHAT, *where, "--extra-unlabeled", "unlabeled") == 0
    assert names(made(roots) / "labelsTr") == LABELED
    assert names(made(roots) / "imagesUn") == ["p4_0000", "p5_0000"]
    absolute = ("--extra-unlabeled", str(root / "unlabeled"), "--overwrite")
    assert convert(root, *WHAT, *where, *absolute) == 0
    assert names(made(roots) / "imagesUn") == ["p4_0000", "p5_0000"]


def test_usual_folder_of_unlabeled_scans_may_be_named(roots, folders):
    root, where = separate(folders)
    (root / "unlabeled").rename(root / "imagesUn")
    assert convert(root, *WHAT, *where, "--extra-unlabeled", "imagesUn") == 0
    assert names(made(roots) / "imagesUn") == ["p4_0000", "p5_0000"]


def test_split_of_labeled_cases_with_unlabeled_scans_besides(roots, folders):
    root, where = separate(folders)
    (root / "split.json").write_text(json.dumps({"labeled": LABELED, "unlabeled": []}))
    extra = ("--split", str(root / "split.json"), "--extra-unlabeled", "unlabeled")
    assert convert(root, *WHAT, *where, *extra) == 0
    assert names(made(roots) / "labelsTr") == LABELED


def test_extra_unlabeled_images(roots, folders, tmp_path):
    write(scan(7), tmp_path / "more" / "q1.nii.gz")
    assert convert(folders.root, *WHAT, "--extra-unlabeled", str(tmp_path / "more")) == 0
    assert names(made(roots) / "imagesUn") == ["p4_0000", "p5_0000", "q1_0000"]


def test_regions_and_ignore_label(roots, folders, tmp_path):
    two = mask(0)
    two[:2] = 2
    two[9] = 3
    write(two, folders.label("p1"))
    given = {
        "labels": {"background": 0, "all": [1, 2], "core": 2, "ignore": 3},
        "regions_class_order": [1, 2],
    }
    (tmp_path / "labels.json").write_text(json.dumps(given))
    extra = ("--labels-json", str(tmp_path / "labels.json"), "--channel-names", "MR")
    assert convert(folders.root, *extra) == 0
    assert content(roots)["labels"] == given["labels"]
    assert content(roots)["regions_class_order"] == [1, 2]


GROUPED = ["a_1", "a_2", "b_1", "b_2", "c_1", "c_2"]


@pytest.fixture
def grouped(tmp_path):
    """Two scans a patient; those of ``c`` have no label."""
    root = tmp_path / "grouped"
    for seed, case in enumerate(GROUPED):
        write(scan(seed), root / "images" / f"{case}.nii.gz")
        if case[0] != "c":
            write(mask(seed), root / "labels" / f"{case}.nii.gz")
    return root


def test_patients_stay_together(roots, grouped, capsys):
    extra = ("--group-regex", "^([a-z]+)_", "--validation", "1")
    assert convert(grouped, *WHAT, *extra) == 0
    splits = json.loads((made(roots) / "splits_final.json").read_text(encoding="utf-8"))
    assert splits == [{"train": ["a_1", "a_2"], "val": ["b_1", "b_2"]}]
    assert convert(grouped, *WHAT, *extra, "--labeled", "2", "--overwrite") == 2
    assert "a whole number from 1 to 1 (patients)" in capsys.readouterr().err


def test_patient_in_two_subsets_is_refused(roots, grouped, tmp_path, capsys):
    grouping = ("--group-regex", "^([a-z]+)_")
    (grouped / "held_out").mkdir()
    shutil.move(grouped / "images" / "c_2.nii.gz", grouped / "held_out" / "c_2.nii.gz")
    assert convert(grouped, *WHAT, *grouping, "--test", "held_out") == 2
    assert "c is in training and test" in capsys.readouterr().err
    split = {"labeled": ["a_1"], "unlabeled": ["a_2", "c_1"], "validation": ["b_1", "b_2"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    extra = (*grouping, "--split", str(tmp_path / "split.json"))
    assert convert(grouped, *WHAT, *extra) == 2
    assert "a is in labeled and unlabeled" in capsys.readouterr().err
    assert not any(roots["raw"].iterdir())


def test_labeled_patient_with_further_images_is_noted(roots, grouped, capsys):
    (grouped / "labels" / "a_2.nii.gz").unlink()
    assert convert(grouped, *WHAT, "--group-regex", "^([a-z]+)_") == 0
    assert "1 unlabeled cases are of patients who also have labeled ones: a_2" in (
        capsys.readouterr().out
    )


def test_declared_label_that_no_mask_has_is_a_warning(roots, folders, capsys):
    names_of = ("--label-names", "background,organ,tumor", "--channel-names", "MR")
    text = "warning: no training label contains tumor (value 2); "
    assert convert(folders.root, *names_of) == 0
    assert f"{text}check --label-names and --label-map" in capsys.readouterr().out
    two = mask(2)
    two[:2][two[:2] > 0] = 2
    write(two, folders.label("p3"))
    assert convert(folders.root, *names_of, "--validation", "1", "--overwrite") == 0
    assert f"{text}it occurs in validation or test labels only" in capsys.readouterr().out
    assert convert(folders.root, *names_of, "--overwrite") == 0
    assert "no training label contains" not in capsys.readouterr().out


def test_dry_run_and_report(roots, photos, tmp_path):
    before = snapshot(tmp_path / "data")
    report = tmp_path / "report.json"
    assert convert(photos.root, *PHOTO_OPTIONS, "--dry-run", "--report", str(report)) == 0
    assert not any(roots["raw"].iterdir())
    assert snapshot(tmp_path / "data") == before
    assumptions = json.loads(report.read_text(encoding="utf-8"))["settings"]["assumptions"]
    assert assumptions["label_map"] == {"0": 0, "255": 1}


def test_same_command_gives_the_same_bytes(roots, photos):
    assert convert(photos.root, *PHOTO_OPTIONS) == 0
    first = snapshot(made(roots))
    assert convert(photos.root, *PHOTO_OPTIONS, "--overwrite") == 0
    assert snapshot(made(roots)) == first


def series_with_label(root, seed, folder, patient, label_name):
    """A DICOM series in ``images/folder/deep`` and, if named, a label on its grid."""
    array = scan(seed, (6, 20, 24)).astype(np.int16)
    write_series(root / "images" / folder / "deep", array, patient)
    if label_name:
        volume = read_dicom_folder(root / "images" / folder)
        label = SimpleITK.GetImageFromArray(mask(seed, 1, array.shape))
        label.SetSpacing(volume.geometry.spacing)
        label.SetOrigin(volume.geometry.origin)
        label.SetDirection(volume.geometry.direction)
        (root / "labels").mkdir(exist_ok=True)
        SimpleITK.WriteImage(label, str(root / "labels" / f"{label_name}.nii.gz"))
    return array


@pytest.mark.parametrize("by", ["folder", "patient"])
def test_dicom_series_with_masks(roots, tmp_path, by):
    root = tmp_path / "dicom"
    names_by = {"folder": ["x1", "x2"], "patient": ["P-1", "P-2"]}[by]
    first = series_with_label(root, 0, "x1", "P-1", names_by[0])
    series_with_label(root, 1, "x2", "P-2", None)
    assert convert(root, *WHAT) == 0
    np.testing.assert_array_equal(
        read(made(roots) / "imagesTr" / f"{names_by[0]}_0000.nii.gz"), first
    )
    assert names(made(roots) / "imagesUn") == [f"{names_by[1]}_0000"]


def test_two_series_of_a_case_need_a_choice(roots, tmp_path, capsys):
    root = tmp_path / "dicom"
    series_with_label(root, 0, "x1", "P-1", "x1")
    series_with_label(root, 1, "x2", "P-2", None)
    array = scan(3, (6, 20, 24)).astype(np.int16)
    change = {number: {"0020|000e": "1.2.3"} for number in range(6)}
    write_series(root / "images" / "x2" / "again", array, "P-2", changes=change)
    assert convert(root, *WHAT) == 2
    assert "case x2: has 2 DICOM series" in capsys.readouterr().err


def test_a_scan_whose_mask_is_missing_is_named_where_unlabeled_ones_have_a_folder(
    roots, folders, capsys
):
    warning = "without a label, used as unlabeled"
    assert convert(folders.root, *WHAT) == 0
    assert warning not in capsys.readouterr().out, "unlabeled scans lie beside the labeled ones"
    more = folders.root / "more"
    more.mkdir()
    folders.image("p5").rename(more / folders.image("p5").name)
    assert convert(folders.root, *WHAT, "--extra-unlabeled", "more", "--overwrite") == 0
    assert f"1 case beside the labeled ones {warning}: p4" in capsys.readouterr().out
