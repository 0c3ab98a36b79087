import json

import nibabel
import numpy as np
import pytest
import SimpleITK

from nnunet_semisup.dataset_conversion.datasets.acdc import published_split
from nnunet_semisup.dataset_conversion.subsets import apply_budget, seeded_split
from tests.unit.dataset_conversion.trees_acdc import (
    FRAMES,
    LABELED,
    PATIENTS,
    SHAPE,
    SPACING,
    UNLABELED,
    VALIDATION,
    add_patient,
    both_frames,
    folder_of,
    frame,
    make_acdc,
    scan,
    write_acdc,
)
from tests.unit.dataset_conversion.trees_common import (
    dataset_json_of,
    names,
    read,
    report_of,
)

MADE = "Dataset501_ACDC"

pytestmark = pytest.mark.usefixtures("no_search")


@pytest.fixture
def tree(tmp_path):
    return make_acdc(tmp_path / "download")


def test_raw_tree_becomes_a_data_set(roots, tree):
    assert tree.convert() == 0
    made = roots["raw"] / MADE
    content = dataset_json_of(made)
    assert content["labels"] == {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
    assert content["channel_names"] == {"0": "cineMRI"}
    assert content["numTraining"] == 6
    (fold,) = json.loads((made / "splits_final.json").read_text(encoding="utf-8"))
    assert fold == {"train": both_frames(LABELED), "val": both_frames(VALIDATION)}
    assert names(made / "imagesUn") == sorted(f"{c}_0000.nii.gz" for c in both_frames(UNLABELED))


def test_header_that_contradicts_itself_becomes_consistent(roots, tree, capsys):
    source = nibabel.load(frame(tree, "patient099", 1))
    assert not np.allclose(source.header.get_sform(), source.header.get_qform())
    assert tree.convert() == 0
    number = 4 * len(PATIENTS) - 2 * len(UNLABELED)  # hidden labels are not opened
    said = capsys.readouterr()
    assert f"{number} of {number} NIfTI files have a sform that contradicts" in said.out
    assert "unexpected scales" not in said.err, "ITK says it three times for every file"
    made = roots["raw"] / MADE
    for path in (
        made / "imagesTr" / "patient099_frame01_0000.nii.gz",
        made / "labelsTr" / "patient099_frame01.nii.gz",
        made / "imagesUn" / "patient090_frame02_0000.nii.gz",
    ):
        header = nibabel.load(path).header
        np.testing.assert_allclose(header.get_sform(), header.get_qform(), atol=1e-4)
        np.testing.assert_allclose(nibabel.affines.voxel_sizes(header.get_sform()), SPACING)
        np.testing.assert_allclose(SimpleITK.ReadImage(str(path)).GetSpacing(), SPACING)


def test_earlier_frame_is_frame01_whatever_its_number(roots, tree):
    assert tree.convert() == 0
    made = roots["raw"] / MADE
    cases = report_of(made)["cases"]
    for patient in PATIENTS:
        for k, number in enumerate(FRAMES[patient], 1):
            case = f"{patient}_frame0{k}"
            source = cases[case]["images"][0]["source"]
            assert source.endswith(f"{patient}_frame{number:02d}.nii.gz")
            written = read(made / cases[case]["images"][0]["file"])
            np.testing.assert_array_equal(written, scan(patient, number)[0])
    assert report_of(made)["settings"]["assumptions"]["frame01"].startswith("the earlier")


def test_labels_stored_as_float_are_written_as_integers(roots, tree, capsys):
    label = scan("patient099", 1)[1].astype(np.float32)
    write_acdc(label, frame(tree, "patient099", 1, "_gt"))
    assert tree.convert() == 0
    written = read(roots["raw"] / MADE / "labelsTr" / "patient099_frame01.nii.gz")
    assert written.dtype == np.uint8
    np.testing.assert_array_equal(written, label)
    assert "patient099_frame01: the label is stored as floating point" in capsys.readouterr().out


def test_h5_volumes(roots, tmp_path):
    tree = make_acdc(tmp_path / "h5", "h5")
    assert tree.convert("--spacing", "1.4", "1.4", "8") == 0
    made = roots["raw"] / MADE
    path = made / "imagesTr" / "patient099_frame02_0000.nii.gz"
    np.testing.assert_allclose(SimpleITK.ReadImage(str(path)).GetSpacing(), (1.4, 1.4, 8))
    assert read(path).shape == SHAPE
    np.testing.assert_array_equal(
        read(made / "labelsTr" / "patient099_frame02.nii.gz"), scan("patient099", 12)[1]
    )
    assert report_of(made)["settings"]["assumptions"]["spacing"] == [1.4, 1.4, 8]
    assert tree.convert("--overwrite", "--spacing", "1", "0", "1") == 2


@pytest.mark.parametrize(
    ("budget", "patients"), [("0.05", 3), ("0.1", 7), ("0.2", 14), ("0.01", 1), ("5", 5)]
)
def test_budgets_count_patients(budget, patients):
    split = apply_budget(published_split(), budget)
    assert split.labeled == tuple(published_split().pool[: 2 * patients])
    assert len(split.unlabeled) == 140 - 2 * patients
    assert (len(split.lists.validation), len(split.lists.test)) == (20, 40)


@pytest.mark.parametrize("seed", range(5))
def test_no_patient_straddles_in_a_random_split(seed):
    split = apply_budget(seeded_split(published_split(), seed), "7")
    subsets = {}
    for case, subset in split.subset_of().items():
        subsets.setdefault(case.partition("_")[0], set()).add(subset)
    assert all(len(found) == 1 for found in subsets.values())
    assert sorted(split.subset_of()) == sorted(published_split().cases)
    assert len(split.labeled) == 14
    assert seeded_split(published_split(), seed) == seeded_split(published_split(), seed)
    assert seeded_split(published_split(), seed) != seeded_split(published_split(), seed + 1)


def test_split_that_tears_a_patient_apart_is_refused(roots, tree, capsys):
    pair = both_frames(["patient099"])
    tree.write_split(labeled=[pair[0]], unlabeled=[pair[1], *both_frames(UNLABELED)])
    assert tree.convert() == 2
    assert "patient099 is in labeled and unlabeled; all cases of a patient belong" in (
        capsys.readouterr().err
    )


def test_patients_may_be_named_in_the_labeled_list(roots, tree, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("patient038\n")
    assert tree.convert("--labeled-list", str(tmp_path / "list.txt")) == 0
    made = roots["raw"] / MADE
    assert dataset_json_of(made)["semisup"]["labeled_order"] == both_frames(["patient038"])
    (tmp_path / "list.txt").write_text("patient038_frame01\n")
    assert tree.convert("--overwrite", "--labeled-list", str(tmp_path / "list.txt")) == 2
    assert "patient038 is in the list and the unlabeled cases" in capsys.readouterr().err


@pytest.mark.parametrize("choice", ["ignore", "unlabeled", "error"])
def test_patients_in_no_list(roots, tree, capsys, choice):
    add_patient(tree, "patient101")
    code = tree.convert("--extra", choice)
    output = "".join(capsys.readouterr())
    assert "2 cases on disk are in no list of download_split.json" in output
    made = roots["raw"] / MADE / "imagesUn"
    assert code == (2 if choice == "error" else 0)
    assert ("patient101_frame01_0000.nii.gz" in names(made)) == (choice == "unlabeled")


def test_patients_of_the_testing_folder_as_unlabeled_data(roots, tree, tmp_path):
    add_patient(tree, "patient101")
    testing = tree.root / "database" / "testing"
    testing.rename(tmp_path / "testing")
    assert tree.convert("--extra-unlabeled", str(tmp_path / "testing")) == 0
    found = names(roots["raw"] / MADE / "imagesUn")
    assert "patient101_frame02_0000.nii.gz" in found


def test_frames_of_one_patient_may_look_alike(roots, tree, capsys, monkeypatch):
    """They are not searched; two patients who look alike are named."""

    def similar(thumbnails, paths, read, mapper, patients, *_):
        assert patients[4] == patients[5] == "patient090" != patients[3]
        return [(3, 4, 0.98)]

    place = "nnunet_semisup.dataset_conversion.checking.all_cases.near_duplicates"
    monkeypatch.setattr(place, similar)
    assert tree.convert("--drop-duplicates") == 0
    assert report_of(roots["raw"] / MADE)["dropped"] == ["patient090_frame01"]
    out = capsys.readouterr().out
    assert (
        "patient038_frame02 (labeled) and patient090_frame01 (unlabeled) look like the same scan"
        in out
    )
    assert out.count("look like the same scan") == 1


def third_frame(t):
    write_acdc(scan("patient099", 5)[0], frame(t, "patient099", 5))


def lost_voxel_size(t):
    for suffix, array in zip(("", "_gt"), scan("patient099", 1), strict=True):
        write_acdc(array, frame(t, "patient099", 1, suffix), (1.0, 1.0, 1.0))


FAULTS = {
    "third frame": (third_frame, "patient099: has 3 frames"),
    "one frame": (
        lambda t: [frame(t, "patient099", 12, s).unlink() for s in ("", "_gt")],
        "patient099: has 1 frames (patient099_frame01); two are annotated",
    ),
    "Info.cfg": (
        lambda t: (folder_of(t, "patient099") / "Info.cfg").write_text("ED: 1\nES: 9\n"),
        "names the frames [1, 9], but there are [1, 12]",
    ),
    "no image": (
        lambda t: frame(t, "patient099", 1).unlink(),
        "patient099_frame01_gt.nii.gz has no image beside it",
    ),
    "no label": (
        lambda t: frame(t, "patient099", 1, "_gt").unlink(),
        "case patient099_frame01: is labeled but has no label file",
    ),
    "voxel size": (lost_voxel_size, "the slice distance is 1 mm; the challenge's scans have 5 mm"),
    "label value": (
        lambda t: write_acdc(scan("patient099", 1)[1] * 2, frame(t, "patient099", 1, "_gt")),
        "the label has the values 0, 2, 4, 6; only 0, 1, 2, 3 are expected",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_and_nothing_is_written(roots, tree, capsys, name):
    spoil, message = FAULTS[name]
    spoil(tree)
    assert tree.convert() == 2
    assert message in capsys.readouterr().err
    assert names(roots["raw"]) == []


def test_missing_structure_is_a_warning(roots, tree, capsys):
    label = scan("patient099", 1)[1]
    label[label == 1] = 0
    write_acdc(label, frame(tree, "patient099", 1, "_gt"))
    (folder_of(tree, "patient038") / "Info.cfg").unlink()
    assert tree.convert() == 0
    out = capsys.readouterr().out
    assert "case patient099_frame01: the label has no RV" in out
    assert "1 patients have no Info.cfg" in out
