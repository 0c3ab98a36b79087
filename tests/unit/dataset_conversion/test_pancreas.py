import json

import numpy as np
import pytest
import SimpleITK

from nnunet_semisup.dataset_conversion.subsets import apply_budget, literature_split
from tests.unit.dataset_conversion.trees_common import (
    dataset_json_of,
    names,
    read,
    report_of,
    write_nifti,
)
from tests.unit.dataset_conversion.trees_dicom import FLIPPED_ROWS, write_series
from tests.unit.dataset_conversion.trees_pancreas import (
    LAI,
    NUMBERS,
    SHAPE,
    SPACING,
    add_case,
    label_path,
    make_pancreas,
    patient,
    scan,
    series_folder,
)

FORMS = ("raw", "nii", "mcnet-h5", "coranet-h5")
MADE = "Dataset501_PancreasCT"

pytestmark = pytest.mark.usefixtures("no_search")


@pytest.fixture
def tree(tmp_path):
    return make_pancreas(tmp_path / "download")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_a_data_set(roots, tmp_path, capsys, form):
    tree = make_pancreas(tmp_path / form, form)
    assert tree.convert("--labeled", "2") == 0
    assert f"form '{form}' (5 cases)" in capsys.readouterr().out
    made = roots["raw"] / MADE
    assert names(made / "imagesTr") == ["PANCREAS_0001_0000.nii.gz", "PANCREAS_0003_0000.nii.gz"]
    assert names(made / "imagesUn") == ["PANCREAS_0013_0000.nii.gz", "PANCREAS_0026_0000.nii.gz"]
    assert names(made / "labelsTs") == ["PANCREAS_0064.nii.gz"]
    content = dataset_json_of(made)
    assert content["channel_names"] == {"0": "zscore" if "h5" in form else "CT"}
    assert content["source"] == form
    assert content["labels"] == {"background": 0, "pancreas": 1}


@pytest.mark.parametrize("form", ["raw", "nii"])
def test_image_and_label_agree_voxel_by_voxel(roots, tmp_path, form):
    tree = make_pancreas(tmp_path / form, form)
    assert tree.convert() == 0
    made = roots["raw"] / MADE
    for number in (1, 3):
        image, label = scan(number)
        written = SimpleITK.ReadImage(str(made / "imagesTr" / f"{patient(number)}_0000.nii.gz"))
        np.testing.assert_array_equal(
            SimpleITK.GetArrayFromImage(written), image[::-1, ::-1], "from LAI to LPS"
        )
        np.testing.assert_allclose(written.GetSpacing(), SPACING, rtol=1e-6)
        np.testing.assert_allclose(written.GetDirection(), np.eye(3).ravel(), atol=1e-6)
        found = SimpleITK.ReadImage(str(made / "labelsTr" / f"{patient(number)}.nii.gz"))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), label[::-1, ::-1])
        np.testing.assert_allclose(found.GetOrigin(), written.GetOrigin(), atol=1e-4)


def test_label_in_another_orientation_is_turned_to_the_image_s(roots, tree):
    _, label = scan(1)
    write_nifti(label[::-1, ::-1], label_path(tree, 1), SPACING)
    assert tree.convert() == 0
    made = roots["raw"] / MADE / "labelsTr" / "PANCREAS_0001.nii.gz"
    np.testing.assert_array_equal(read(made), label[::-1, ::-1])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_label_that_was_flipped_is_refused(roots, tree, capsys, axis):
    write_nifti(np.flip(scan(1)[1], axis), label_path(tree, 1), SPACING, direction=LAI)
    assert tree.convert() == 2
    error = capsys.readouterr().err
    assert f"only 0% if it is mirrored along {'zyx'[axis]}" in error
    assert "case PANCREAS_0001: 100% of the label lies outside soft tissue" in error
    assert names(roots["raw"]) == []


def test_label_in_air_is_refused(roots, tree, capsys):
    label = np.zeros(SHAPE, np.uint8)
    image, _ = scan(1)
    label[image < -850] = 1
    write_nifti(label, label_path(tree, 1), SPACING, direction=LAI)
    assert tree.convert() == 2
    message = "case PANCREAS_0001: 100% of the label lies in air or lung (below -200 HU)"
    assert message in capsys.readouterr().err


def test_windowed_grey_values_are_refused(roots, tmp_path, capsys):
    tree = make_pancreas(tmp_path / "nii", "nii")
    path = tree.root / "data" / "PANCREAS_0013.nii.gz"
    write_nifti(np.clip(scan(13)[0], -125, 275), path, SPACING, direction=LAI)
    assert tree.convert() == 2
    assert "the grey values are -125 to" in capsys.readouterr().err


def test_label_in_pieces_is_a_warning(roots, tree, capsys):
    _, label = scan(1)
    label[:, :, 5:6] = 0
    write_nifti(label, label_path(tree, 1), SPACING, direction=LAI)
    assert tree.convert() == 0
    assert "case PANCREAS_0001: the label is in pieces" in capsys.readouterr().out


def test_mapping_is_by_patient_id_and_never_by_order(roots, tree):
    assert tree.convert("--keep-hidden-labels") == 0
    report = report_of(roots["raw"] / MADE)["cases"]
    for number in NUMBERS:
        case = report[patient(number)]
        assert f"Pancreas-{18000 - number}" in case["images"][0]["source"]
        assert case["label"]["source"].endswith(f"label{number:04d}.nii.gz")
        assert case["label_voxels"]["1"] == scan(number)[1].sum()


@pytest.mark.parametrize("form", FORMS)
def test_withdrawn_cases_are_left_out(roots, tmp_path, capsys, form):
    tree = make_pancreas(tmp_path / form, form)
    add_case(tree, form, 25)
    assert tree.convert() == 0
    out = capsys.readouterr().out
    assert "PANCREAS_0025 is left out: it shows the same scan as PANCREAS_0002" in out
    assert not list((roots["raw"] / MADE).rglob("*0025*"))


def test_labels_without_scan_are_listed(roots, tree, capsys):
    for number in (25, 70):
        write_nifti(scan(number)[1], label_path(tree, number), SPACING, direction=LAI)
    assert tree.convert() == 0
    assert "2 labels have no scan and are left out: PANCREAS_0025, PANC" in capsys.readouterr().out


def test_published_list_with_the_leak_needs_a_word(roots, tmp_path, capsys):
    tree = make_pancreas(tmp_path / "h5", "mcnet-h5")
    add_case(tree, "mcnet-h5", 2)
    add_case(tree, "mcnet-h5", 25, voxels=2)
    published = ("--split", "mcnet", "--labeled", "0.1", "--allow-partial")
    assert tree.convert(*published) == 2
    error = capsys.readouterr().err
    assert "names PANCREAS_0025 and PANCREAS_0070" in error
    assert "--split mcnet_dedup" in error
    lists = {"labeled": [patient(n) for n in (1, 2)], "unlabeled": [patient(3)]}
    (tmp_path / "leak.json").write_text(json.dumps({**lists, "test": [patient(25)]}))
    leak = ("--split", str(tmp_path / "leak.json"), "--no-drop-withdrawn")
    assert tree.convert(*leak) == 2
    assert "PANCREAS_0002 (labeled) and PANCREAS_0025 (test) hold the same image" in (
        capsys.readouterr().err
    )


def test_leak_is_named_where_it_is_wanted(roots, tmp_path, capsys):
    tree = make_pancreas(tmp_path / "h5", "mcnet-h5")
    for number in (2, 25):
        add_case(tree, "mcnet-h5", number)
    tree.write_split(labeled=[patient(2), patient(1)], test=[patient(25)])
    assert tree.convert("--no-drop-withdrawn") == 0
    warning = "one scan is in several subsets: PANCREAS_0002 (labeled), PANCREAS_0025 (test)"
    assert warning in capsys.readouterr().out


@pytest.mark.parametrize(("form", "split"), [("raw", "coranet"), ("mcnet-h5", "mcnet_dedup")])
def test_default_split_depends_on_the_form(roots, tmp_path, form, split):
    tree = make_pancreas(tmp_path / form, form)
    for number in {57, 18}:
        add_case(tree, form, number)
    literature = ("--split", "literature", "--labeled", "0.1", "--allow-partial")
    assert tree.convert(*literature) == 0
    report = report_of(roots["raw"] / MADE)
    assert report["settings"]["split"]["name"] == f"pancreas.json:{split}"
    expected = {"coranet": range(1, 7), "mcnet_dedup": (57, 18, 62, 31, 20, 17)}[split]
    assert report["settings"]["labeled"] == [patient(n) for n in expected]


def test_published_lists_are_what_they_are_said_to_be():
    subsets = {}
    for name, count, fraction in (
        ("coranet", (12, 50, 18), "0.2"),
        ("mcnet", (12, 50, 20), "0.2"),
        ("mcnet_dedup", (6, 55, 19), "0.1"),
    ):
        split = apply_budget(literature_split("pancreas", name), fraction)
        assert (len(split.labeled), len(split.unlabeled), len(split.lists.test)) == count
        subsets[name] = split.subset_of()
    withdrawn = {patient(25), patient(70)}
    for name in ("coranet", "mcnet_dedup"):
        assert withdrawn.isdisjoint(subsets[name])
    assert set(subsets["mcnet"]) - set(subsets["mcnet_dedup"]) == withdrawn
    assert subsets["mcnet"][patient(70)].value == "labeled", "at 12 labeled the leak is labeled"
    assert subsets["mcnet"][patient(25)].value == "test"


def second_series(tree):
    uid = {"0020|000e": "1.2.3.4"}
    folder = tree.root / "Pancreas-CT" / "again"
    write_series(folder, scan(1)[0], patient(1), changes=dict.fromkeys(range(12), uid))


def two_in_a_folder(tree):
    names = [f"2-{i:03d}.dcm" for i in range(12)]
    write_series(series_folder(tree, 1), scan(1)[0], "PANCREAS_0077", names)


def lost_slice(tree):
    sorted(series_folder(tree, 1).iterdir())[4].unlink()


def broken_slice(tree):
    path = sorted(series_folder(tree, 1).iterdir())[4]
    path.write_bytes(path.read_bytes()[:-50])


def tilted(tree):
    folder = series_folder(tree, 1)
    for path in folder.iterdir():
        path.unlink()
    changes = {i: {"0020|0032": f"-5\\{6 + i}\\{40 - i}"} for i in range(12)}
    write_series(folder, scan(1)[0], patient(1), changes=changes, orientation=FLIPPED_ROWS)


def in_two_folders(tree):
    folder = series_folder(tree, 1)
    (folder.parent / "more").mkdir()
    path = sorted(folder.iterdir())[0]
    path.rename(folder.parent / "more" / path.name)


FAULTS = {
    "in two folders": (in_two_folders, "or this series is in several folders"),
    "second series": (second_series, "case PANCREAS_0001: has more than one series"),
    "two in a folder": (two_in_a_folder, "holds files of several series"),
    "lost slice": (lost_slice, "slices are missing (instance numbers 3)"),
    "broken slice": (broken_slice, "cannot be read: damaged or not a DICOM image"),
    "tilted": (tilted, "a tilted gantry"),
    "label size": (
        lambda t: write_nifti(scan(1)[1][:-1], label_path(t, 1), SPACING, direction=LAI),
        "image and label differ in size",
    ),
    "label spacing": (
        lambda t: write_nifti(scan(1)[1], label_path(t, 1), (0.7, 0.8, 2.5), direction=LAI),
        "image and label differ in spacing",
    ),
    "label value": (
        lambda t: write_nifti(scan(1)[1] * 2, label_path(t, 1), SPACING, direction=LAI),
        "the label has the values 0, 2; only 0, 1 are expected",
    ),
    "label twice": (
        lambda t: write_nifti(scan(1)[1], t.root / "more" / "label0001.nii", SPACING),
        "case PANCREAS_0001: has more than one label",
    ),
    "no label": (lambda t: label_path(t, 1).unlink(), "is labeled but has no label file"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_and_nothing_is_written(roots, tree, capsys, name):
    spoil, message = FAULTS[name]
    spoil(tree)
    assert tree.convert() == 2
    assert message in capsys.readouterr().err
    assert names(roots["raw"]) == []


def test_labels_dir_and_junk(roots, tree, tmp_path):
    folder = label_path(tree, 1).parent
    moved = folder.rename(tmp_path / "elsewhere")
    (moved / "._label0001.nii.gz").write_bytes(b"junk")
    assert tree.convert() == 2
    assert tree.convert("--labels-dir", str(moved)) == 0


def test_other_patients_are_left_out_or_taken_as_unlabeled(roots, tree, tmp_path, capsys):
    write_series(tree.root / "other", scan(90)[0], "SOMEBODY")
    assert tree.convert() == 0
    assert "its PatientID is 'SOMEBODY'" in capsys.readouterr().out
    (tree.root / "other").rename(tmp_path / "more")
    assert tree.convert("--overwrite", "--extra-unlabeled", str(tmp_path / "more")) == 0
    made = roots["raw"] / MADE
    assert "SOMEBODY_0000.nii.gz" in names(made / "imagesUn")
    assert dataset_json_of(made)["semisup"]["num_unlabeled"] == 3


def test_further_scan_that_the_split_names_is_refused(roots, tree, tmp_path, capsys):
    write_series(tmp_path / "more" / "a", scan(91)[0], patient(64))
    write_series(tmp_path / "more" / "b", scan(92)[0], "X")
    assert tree.convert("--extra-unlabeled", str(tmp_path / "more")) == 2
    assert "case PANCREAS_0064: " in (error := capsys.readouterr().err)
    assert "has the same name. Rename one if they are different scans" in error
    assert tree.convert("--extra-unlabeled", str(tmp_path / "nowhere")) == 2
    (tmp_path / "empty").mkdir()
    assert tree.convert("--extra-unlabeled", str(tmp_path / "empty")) == 2
    assert "holds no scan of the form 'raw'" in capsys.readouterr().err


def test_two_forms_need_a_choice(roots, tree, capsys):
    add_case(tree, "nii", 1)
    assert tree.convert() == 2
    assert "choose --source raw or --source nii" in capsys.readouterr().err
    assert tree.convert("--source", "coranet-h5") == 2
    assert "holds no case of the form 'coranet-h5'" in capsys.readouterr().err
