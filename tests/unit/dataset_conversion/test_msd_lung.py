import shutil

import numpy as np
import pytest

from nnunet_semisup.dataset_conversion.subsets import apply_budget, literature_split
from tests.unit.dataset_conversion.trees_common import (
    ct_scan,
    dataset_json_of,
    names,
    read,
    write_nifti,
)
from tests.unit.dataset_conversion.trees_msd_lung import (
    CASES,
    SHAPE,
    SPACING,
    UNLABELED,
    WITHOUT_LABELS,
    image_path,
    label_path,
    make_msd_lung,
    task,
)

MADE = "Dataset501_MSDLung"

pytestmark = pytest.mark.usefixtures("no_search")


@pytest.fixture
def tree(tmp_path):
    return make_msd_lung(tmp_path / "download")


def test_raw_tree_becomes_a_data_set(roots, tree, capsys):
    assert tree.convert() == 0
    made = roots["raw"] / MADE
    assert names(made / "imagesTr") == ["lung_001_0000.nii.gz", "lung_003_0000.nii.gz"]
    assert names(made / "imagesUn") == ["lung_004_0000.nii.gz", "lung_005_0000.nii.gz"]
    assert names(made / "imagesTs") == ["lung_071_0000.nii.gz"]
    assert dataset_json_of(made)["channel_names"] == {"0": "CT"}
    for seed, case in enumerate(CASES[:2]):
        image, label = ct_scan(seed, SHAPE)
        np.testing.assert_array_equal(read(made / "imagesTr" / f"{case}_0000.nii.gz"), image)
        np.testing.assert_array_equal(read(made / "labelsTr" / f"{case}.nii.gz"), label)
    assert "the 2 scans in imagesTs have no public labels and are left out" in (
        capsys.readouterr().out
    )


def test_scans_without_public_labels_become_unlabeled_cases(roots, tree):
    assert tree.convert("--use-imagesTs", "--keep-hidden-labels") == 0
    made = roots["raw"] / MADE
    expected = sorted(f"{case}_0000.nii.gz" for case in UNLABELED + WITHOUT_LABELS)
    assert names(made / "imagesUn") == expected
    assert names(made / "labelsUn") == ["lung_004.nii.gz", "lung_005.nii.gz"]
    assert dataset_json_of(made)["semisup"]["num_unlabeled"] == 4


def test_scans_named_by_two_options_are_used_once(roots, tree, capsys):
    folders = [str(task(tree) / name) for name in ("imagesTs", "imagesTr")]
    assert tree.convert("--use-imagesTs", "--extra-unlabeled", folders[0]) == 0
    expected = sorted(f"{case}_0000.nii.gz" for case in UNLABELED + WITHOUT_LABELS)
    assert names(roots["raw"] / MADE / "imagesUn") == expected
    assert tree.convert("--overwrite", "--extra-unlabeled", folders[1]) == 2
    error = capsys.readouterr().err
    assert "is named by --extra-unlabeled, but it is used already; a file has one use" in error
    assert "remove one" not in error


def test_use_images_ts_needs_them(roots, tmp_path, capsys):
    tree = make_msd_lung(tmp_path / "h5", "h5")
    assert tree.convert("--use-imagesTs") == 2
    assert "holds no imagesTs with scans" in capsys.readouterr().err


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_images_are_linked_on_request(roots, tree, link):
    assert tree.convert("--link", link) == 0
    path = roots["raw"] / MADE / "imagesUn" / "lung_004_0000.nii.gz"
    assert path.samefile(image_path(tree, "lung_004"))
    label = roots["raw"] / MADE / "labelsTr" / "lung_001.nii.gz"
    assert not label.samefile(label_path(tree, "lung_001"))


def test_h5_becomes_a_data_set(roots, tmp_path):
    tree = make_msd_lung(tmp_path / "h5", "h5")
    assert tree.convert() == 0
    made = roots["raw"] / MADE
    assert dataset_json_of(made)["channel_names"] == {"0": "zscore"}
    image = ct_scan(0, SHAPE)[0]
    scaled = ((np.clip(image, -500, 275) + 500) / 775).astype(np.float32)
    np.testing.assert_array_equal(read(made / "imagesTr" / "lung_001_0000.nii.gz"), scaled)


def test_derived_split_is_said_to_be_derived(roots, tree, capsys):
    literature = ("--split", "literature", "--labeled", "0.2", "--allow-partial")
    assert tree.convert(*literature) == 0
    assert "split of this data set is derived" in capsys.readouterr().out
    assert tree.convert("--overwrite") == 0
    assert "split of this data set is derived" not in capsys.readouterr().out


@pytest.mark.parametrize(("fraction", "count"), [("0.2", 10), ("0.4", 20), ("5", 5)])
def test_published_counts(fraction, count):
    split = apply_budget(literature_split("msd_lung"), fraction)
    assert (len(split.labeled), len(split.unlabeled)) == (count, 48 - count)
    assert len(split.lists.test) == 15


def test_further_scans_of_any_name(roots, tree, tmp_path, capsys):
    write_nifti(ct_scan(60, SHAPE)[0], tmp_path / "more" / "images" / "mine_0000.nii.gz", SPACING)
    write_nifti(ct_scan(60, SHAPE)[1], tmp_path / "more" / "labels" / "mine.nii.gz", SPACING)
    more = ("--extra-unlabeled", str(tmp_path / "more"))
    assert tree.convert(*more) == 0
    assert "mine_0000.nii.gz" in names(roots["raw"] / MADE / "imagesUn")
    assert tree.convert("--overwrite", *more, *more) == 0
    shutil.copytree(tmp_path / "more", tmp_path / "again")
    assert tree.convert("--overwrite", *more, more[0], str(tmp_path / "again")) == 2
    assert "case mine: " in capsys.readouterr().err


FAULTS = {
    "flipped": (
        lambda t: write_nifti(ct_scan(0, SHAPE)[1][:, :, ::-1], label_path(t, "lung_001"), SPACING),
        "case lung_001: 100% of the label lies outside tumor tissue (-600 to 300 HU), but only 0% "
        "if it is mirrored along x",
    ),
    "four dimensions": (
        lambda t: write_nifti(np.zeros((2, *SHAPE), np.int16), image_path(t, "lung_004"), SPACING),
        "has 4 dimensions; 3 are expected",
    ),
    "not Hounsfield units": (
        lambda t: write_nifti(
            np.clip(ct_scan(2, SHAPE)[0], -500, 275), image_path(t, "lung_004"), SPACING
        ),
        "the grey values are -500 to",
    ),
    "affine": (
        lambda t: write_nifti(
            ct_scan(0, SHAPE)[1],
            label_path(t, "lung_001"),
            SPACING,
            direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1),
        ),
        "image and label differ in direction",
    ),
    "no tumor": (
        lambda t: write_nifti(np.zeros(SHAPE, np.uint8), label_path(t, "lung_001"), SPACING),
        "the label has no foreground",
    ),
    "no image": (lambda t: image_path(t, "lung_001").unlink(), "has no image in imagesTr"),
    "two endings": (
        lambda t: write_nifti(ct_scan(0, SHAPE)[0], task(t) / "imagesTr" / "lung_001.nii"),
        "case lung_001: has more than one image",
    ),
    "in both folders": (
        lambda t: write_nifti(
            ct_scan(7, SHAPE)[0], task(t) / "imagesTs" / "lung_003.nii.gz", SPACING
        ),
        "case lung_003: ",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_and_nothing_is_written(roots, tree, capsys, name):
    spoil, message = FAULTS[name]
    spoil(tree)
    assert tree.convert("--use-imagesTs") == 2
    assert message in capsys.readouterr().err
    assert names(roots["raw"]) == []
