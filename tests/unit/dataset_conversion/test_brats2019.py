import shutil
import struct

import numpy as np
import pytest

from nnunet_semisup.dataset_conversion.subsets import apply_budget, literature_split
from tests.unit.dataset_conversion.trees_brats2019 import (
    CASES,
    LABELED,
    LOW_GRADE,
    UNLABELED,
    VALIDATION,
    add_raw_case,
    case_folder,
    make_brats2019,
    scan,
)
from tests.unit.dataset_conversion.trees_common import (
    dataset_json_of,
    names,
    read,
    report_of,
    write_nifti,
)

MADE = "Dataset501_BraTS2019"

pytestmark = pytest.mark.usefixtures("no_search")


@pytest.fixture
def tree(tmp_path):
    return make_brats2019(tmp_path / "download")


def seg(tree, case=CASES[0]):
    return case_folder(tree, case) / f"{case}_seg.nii.gz"


def flair(tree, case=CASES[0]):
    return case_folder(tree, case) / f"{case}_flair.nii.gz"


def test_default_is_flair_and_the_whole_tumor(roots, tree):
    assert tree.convert() == 0
    made = roots["raw"] / MADE
    content = dataset_json_of(made)
    assert content["channel_names"] == {"0": "FLAIR"}
    assert content["labels"] == {"background": 0, "whole_tumor": 1}
    assert "regions_class_order" not in content
    assert names(made / "imagesUn") == sorted(f"{case}_0000.nii.gz" for case in UNLABELED)
    for seed, case in enumerate(CASES[:2]):
        images, label = scan(seed)
        np.testing.assert_array_equal(
            read(made / "imagesTr" / f"{case}_0000.nii.gz"), images["flair"]
        )
        written = read(made / "labelsTr" / f"{case}.nii.gz")
        np.testing.assert_array_equal(written, label > 0)


def test_validation_cases_are_kept_apart_or_left_out(roots, tree):
    assert tree.convert() == 0
    made = roots["raw"] / MADE
    assert dataset_json_of(made)["numTraining"] == 3
    splits = (made / "splits_final.json").read_text(encoding="utf-8")
    assert VALIDATION[0] in splits
    assert tree.convert("--overwrite", "--no-val") == 0
    assert dataset_json_of(made)["numTraining"] == 2
    assert not (made / "splits_final.json").exists()
    assert not list(made.rglob(f"{VALIDATION[0]}*"))
    assert report_of(made)["settings"]["left_out"] == VALIDATION


def test_a_sequence_that_a_scan_lacks_is_accepted_on_request(roots, tree, capsys):
    """As it is stored by many tools: zeros. The report remembers it for the verify command."""
    path = case_folder(tree, CASES[0]) / f"{CASES[0]}_t2.nii.gz"
    write_nifti(np.zeros_like(scan(0)[0]["t2"]), path)
    assert tree.convert("--channels", "all") == 2
    advice = "--allow-constant-channels accepts a channel that a scan lacks"
    assert f"{path}: every voxel has the value 0; {advice}" in capsys.readouterr().err
    assert tree.convert("--channels", "all", "--allow-constant-channels") == 0
    report = report_of(roots["raw"] / MADE)
    assert report["settings"]["allow_constant_channels"]
    assert f"case {CASES[0]}: {path}: every voxel has the value 0" in report["warnings"]


def test_regions_and_four_channels(roots, tree):
    assert tree.convert("--channels", "all", "--target", "regions") == 0
    made = roots["raw"] / MADE
    content = dataset_json_of(made)
    assert content["channel_names"] == {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}
    assert content["labels"] == {
        "background": 0,
        "whole_tumor": [1, 2, 3],
        "tumor_core": [2, 3],
        "enhancing_tumor": [3],
    }
    assert content["regions_class_order"] == [1, 2, 3]
    images, label = scan(0)
    for number, kind in enumerate(("t1", "t1ce", "t2", "flair")):
        path = made / "imagesTr" / f"{CASES[0]}_{number:04d}.nii.gz"
        np.testing.assert_array_equal(read(path), images[kind])
    written = read(made / "labelsTr" / f"{CASES[0]}.nii.gz")
    for old, new in ((0, 0), (2, 1), (1, 2), (4, 3)):
        np.testing.assert_array_equal(written == new, label == old)
    low_grade = read(made / "labelsTr" / f"{LOW_GRADE[0]}.nii.gz")
    assert set(np.unique(low_grade)) == {0, 1, 2}


def test_plain_nii_is_encoded_again(roots, tmp_path):
    tree = make_brats2019(tmp_path / "kaggle", ending=".nii")
    assert tree.convert() == 0
    path = roots["raw"] / MADE / "imagesTr" / f"{CASES[0]}_0000.nii.gz"
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert tree.convert("--overwrite", "--link", "hardlink") == 2


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_official_files_can_be_linked(roots, tree, link):
    assert tree.convert("--link", link) == 0
    made = roots["raw"] / MADE / "imagesTr" / f"{CASES[0]}_0000.nii.gz"
    assert made.samefile(flair(tree))
    assert made.is_symlink() == (link == "symlink")


def test_merged_folders_are_accepted(roots, tree):
    for case in CASES:
        shutil.move(case_folder(tree, case), tree.root / case)
    assert tree.convert() == 0


def test_validation_set_of_the_challenge_is_unlabeled_data(roots, tree, tmp_path):
    more = tmp_path / "MICCAI_BraTS_2019_Data_Validation"
    add_raw_case(more / "BraTS19_CBICA_AAM_1", "BraTS19_CBICA_AAM_1", scan(40)[0], None)
    assert tree.convert("--extra-unlabeled", str(more)) == 0
    made = roots["raw"] / MADE
    assert "BraTS19_CBICA_AAM_1_0000.nii.gz" in names(made / "imagesUn")
    content = dataset_json_of(made)["semisup"]
    assert content["num_unlabeled"] == 3
    assert content["label_fraction"] == pytest.approx(2 / 5)
    assert report_of(made)["settings"]["further_unlabeled"] == ["BraTS19_CBICA_AAM_1"]


def test_labels_of_further_scans_are_never_opened(roots, tree, tmp_path):
    case = "BraTS19_CBICA_AAM_1"
    add_raw_case(tmp_path / "more" / case, case, scan(40)[0], None)
    (tmp_path / "more" / case / f"{case}_seg.nii.gz").write_bytes(b"no label")
    extra = ("--extra-unlabeled", str(tmp_path / "more"), "--keep-hidden-labels")
    assert tree.convert(*extra) == 0
    made = roots["raw"] / MADE
    assert sorted(p.removesuffix(".nii.gz") for p in names(made / "labelsUn")) == sorted(UNLABELED)


def test_h5_has_its_axes_in_the_other_order(roots, tmp_path):
    tree = make_brats2019(tmp_path / "h5", "h5")
    assert tree.convert() == 0
    made = roots["raw"] / MADE
    image = scan(0)[0]["flair"]
    written = read(made / "imagesTr" / f"{CASES[0]}_0000.nii.gz")
    assert written.shape == image.shape
    assert np.corrcoef(written.ravel(), image.ravel())[0, 1] > 0.999
    assert dataset_json_of(made)["source"] == "h5"
    assert tree.convert("--overwrite", "--channels", "all") == 2
    assert tree.convert("--overwrite", "--target", "regions") == 2


@pytest.mark.parametrize(("fraction", "count"), [("0.05", 12), ("0.1", 25), ("0.2", 50)])
def test_published_split(fraction, count):
    split = apply_budget(literature_split("brats2019"), fraction)
    assert len(split.labeled) == count
    assert len(split.unlabeled) == 250 - count
    assert (len(split.lists.validation), len(split.lists.test)) == (25, 60)
    assert len(split.subset_of()) == 335


def converted_before(t):
    label = read(seg(t))
    write_nifti(np.where(label == 4, 3, label), seg(t))


def in_both(t):
    case = LABELED[0]
    shutil.copytree(case_folder(t, case), case_folder(t, case).parent.parent / "LGG" / case)


def both_endings(t):
    write_nifti(scan(0)[0]["flair"], flair(t).with_suffix(""))


def no_pixdim(t):
    path = flair(t).with_suffix("")
    write_nifti(scan(0)[0]["flair"], path)
    flair(t).unlink()
    content = bytearray(path.read_bytes())
    content[80:92] = struct.pack("<3f", 0, 0, 0)
    path.write_bytes(content)


FAULTS = {
    "converted before": (
        converted_before,
        "the label has the values 0, 1, 2, 3; only 0, 1, 2, 4 are expected. A label with the value "
        "3 was converted before; take the original file",
    ),
    "HGG and LGG": (in_both, f"case {LABELED[0]}: has more than one flair file"),
    "both endings": (both_endings, f"case {LABELED[0]}: has more than one flair file"),
    "no channel": (lambda t: flair(t).unlink(), f"case {LABELED[0]}: has no flair file"),
    "no label": (lambda t: seg(t).unlink(), "is labeled but has no label file"),
    "empty channel": (
        lambda t: write_nifti(np.zeros_like(scan(0)[0]["flair"]), flair(t)),
        "every voxel has the value 0",
    ),
    "voxel size": (
        lambda t: [write_nifti(read(path), path, (2, 2, 2)) for path in (flair(t), seg(t))],
        "the voxel size is (2.0, 2.0, 2.0) mm; the challenge's scans have 1 mm",
    ),
    "pixdim 0": (no_pixdim, "the header gives no voxel size (pixdim 0, 0, 0)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_and_nothing_is_written(roots, tree, capsys, name):
    spoil, message = FAULTS[name]
    spoil(tree)
    assert tree.convert() == 2
    assert message in capsys.readouterr().err
    assert names(roots["raw"]) == []


def test_channels_on_different_grids(roots, tree, capsys):
    case = CASES[0]
    path = case_folder(tree, case) / f"{case}_t2.nii.gz"
    write_nifti(scan(0)[0]["t2"], path, origin=(0, 0, 5))
    assert tree.convert() == 0
    assert tree.convert("--overwrite", "--channels", "all") == 2
    assert "differs from the first channel in origin" in capsys.readouterr().err


def test_other_size_is_a_warning(roots, tree, capsys):
    assert tree.convert() == 0
    assert "the size is (24, 24, 15); the challenge's scans have (240, 240, 155)" in (
        capsys.readouterr().out
    )
