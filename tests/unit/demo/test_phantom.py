"""The phantom: the same voxels from the same seed, plausible organs, nnU-Net's layout."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_semisup.demo.phantom import LABELS, Counts, make_case, write_phantom
from nnunet_semisup.errors import UserError

SHAPES = ((16, 20, 20), (24, 32, 32), (64, 64))
FRACTIONS = {3: {1: (0.02, 0.12), 2: (0.003, 0.045)}, 2: {1: (0.05, 0.3), 2: (0.02, 0.16)}}
SMALL = {"shape": (12, 14, 16), "counts": Counts(2, 3, 1)}


@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from(SHAPES))
@settings(max_examples=25, deadline=None)
def test_organs_are_connected_and_of_plausible_size(seed, shape):
    image, label = make_case(shape, seed)
    assert image.shape == label.shape == shape
    assert image.min() >= 1
    assert image.max() <= 255
    assert set(np.unique(label)) == {0, 1, 2}
    for value, (low, high) in FRACTIONS[len(shape)].items():
        assert ndimage.label(label == value)[1] == 1
        assert low < (label == value).mean() < high


def test_same_seed_same_voxels_and_other_seed_other_voxels():
    first, again, other = (make_case((16, 20, 20), seed) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[0] != other[0]).mean() > 0.5
    assert (first[1] != other[1]).any()


def test_organs_differ_from_their_surroundings_in_every_case():
    for seed in range(8):
        image, label = make_case((32, 48, 48), seed)
        near = ndimage.binary_dilation(label > 0, iterations=3) & (label == 0)
        assert image[label == 1].mean() > image[near].mean()
        assert image[label == 2].mean() < image[near].mean()


def test_gray_values_alone_do_not_separate_the_organs():
    image, label = make_case((32, 48, 48), 0)
    threshold = np.percentile(image, 100 * (1 - (label == 1).mean()))
    guess = image > threshold
    dice = 2 * (guess & (label == 1)).sum() / (guess.sum() + (label == 1).sum())
    assert dice < 0.7


def test_layout_is_that_of_nnunet(tmp_path):
    made = write_phantom(tmp_path, 7, "Small", spacing=(3, 2, 1), **SMALL)
    assert made.folder == tmp_path / "Dataset007_Small"
    assert [p.name for p in tmp_path.iterdir()] == ["Dataset007_Small"]
    names = {
        f.name: sorted(p.name for p in f.iterdir()) for f in made.folder.iterdir() if f.is_dir()
    }
    assert names == {
        "imagesTr": [f"{i}_0000.nii.gz" for i in made.labeled],
        "labelsTr": [f"{i}.nii.gz" for i in made.labeled],
        "imagesUn": [f"{i}_0000.nii.gz" for i in made.unlabeled],
        "imagesTs": [f"{i}_0000.nii.gz" for i in made.test],
        "labelsTs": [f"{i}.nii.gz" for i in made.test],
    }
    ids = [*made.labeled, *made.unlabeled, *made.test]
    assert len(set(ids)) == len(ids) == 6
    content = json.loads((made.folder / "dataset.json").read_text(encoding="utf-8"))
    assert content["numTraining"] == 2
    assert content["labels"] == LABELS
    for path in made.folder.glob("*/*.nii.gz"):
        image = SimpleITK.ReadImage(str(path))
        assert image.GetSpacing() == (1, 2, 3)
        assert SimpleITK.GetArrayFromImage(image).shape == SMALL["shape"]


def test_the_same_seed_writes_the_same_files_and_more_cases_change_none(tmp_path):
    first = write_phantom(tmp_path / "a", **SMALL)
    second = write_phantom(tmp_path / "b", shape=SMALL["shape"], counts=Counts(3, 4, 2))
    for path in first.folder.glob("*/*.nii.gz"):
        twin = second.folder / path.relative_to(first.folder)
        arrays = [SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(p))) for p in (path, twin)]
        np.testing.assert_array_equal(*arrays)


def test_slices_as_png(tmp_path):
    made = write_phantom(tmp_path, dim=2, counts=Counts(1, 1, 1), file_ending=".png")
    image = SimpleITK.ReadImage(str(made.folder / "imagesUn" / "unlabeled_00_0000.png"))
    label = SimpleITK.ReadImage(str(made.folder / "labelsTr" / "labeled_00.png"))
    assert image.GetPixelID() == label.GetPixelID() == SimpleITK.sitkUInt8
    assert set(np.unique(SimpleITK.GetArrayFromImage(label))) == {0, 1, 2}


def test_a_data_set_that_exists_is_not_touched(tmp_path):
    made = write_phantom(tmp_path, **SMALL)
    before = {p: p.stat().st_mtime_ns for p in made.folder.rglob("*")}
    with pytest.raises(UserError, match="exists"):
        write_phantom(tmp_path, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in made.folder.rglob("*")} == before


def test_all_faults_are_listed_and_nothing_is_written(tmp_path):
    with pytest.raises(UserError) as error:
        write_phantom(
            tmp_path,
            shape=(4, 20, 20),
            spacing=(1, 0, 1),
            counts=Counts(0, 1, 1),
            file_ending=".png",
        )
    for word in ("shape", "spacing", "Counts", "file_ending"):
        assert word in str(error.value)
    assert not list(tmp_path.iterdir())
