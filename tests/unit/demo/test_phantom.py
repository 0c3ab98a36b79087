"""The phantom: the same pixels from the same seed, a plausible organ, nnU-Net's layout."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_semisup.demo.dataset import Counts, image_path, label_path, write_phantom
from nnunet_semisup.demo.phantom import LABELED_REACH, LABELS, SIZE, SPACING, make_case
from nnunet_semisup.errors import UserError

FRACTION = (0.015, 0.2)
COUNTS = Counts(2, 3, 1)


@given(seed=st.integers(0, 2**32 - 1), reach=st.sampled_from((0.0, LABELED_REACH, 1.0)))
@settings(max_examples=40, deadline=None)
def test_the_organ_is_connected_and_of_plausible_size(seed, reach):
    image, label = make_case(seed, reach)
    assert image.shape == label.shape == (SIZE, SIZE)
    assert image.min() >= 1
    assert image.max() <= 255
    assert set(np.unique(label)) == {0, 1}
    assert ndimage.label(label)[1] == 1
    assert FRACTION[0] < label.mean() < FRACTION[1]


def test_same_seed_same_pixels_and_other_seed_other_pixels():
    first, again, other = (make_case(seed) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[0] != other[0]).mean() > 0.5
    assert (first[1] != other[1]).any()


def contrast(reach):
    """Standardized difference of the organ to its surroundings, for each of 40 cases."""
    values = []
    for seed in range(40):
        image, label = make_case(seed, reach)
        near = ndimage.binary_dilation(label > 0, iterations=4) & (label == 0)
        values.append((image[label == 1].mean() - image[near].mean()) / image[near].std())
    return np.array(values)


def test_labeled_cases_are_the_clear_ones_and_the_others_reach_from_them_to_unclear_ones():
    labeled, others = contrast(LABELED_REACH), contrast(1.0)
    assert labeled.min() > np.percentile(others, 25)
    assert ((others > labeled.min()) & (others < labeled.max())).sum() >= 5


def test_gray_values_alone_do_not_separate_the_organ():
    for seed in range(5):
        image, label = make_case(seed)
        guess = image > np.percentile(image, 100 * (1 - (label == 1).mean()))
        dice = 2 * (guess & (label == 1)).sum() / (guess.sum() + (label == 1).sum())
        assert dice < 0.7


def test_layout_is_that_of_nnunet(tmp_path):
    made = write_phantom(tmp_path / "Dataset007_Small", COUNTS, 0)
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
        assert image.GetSpacing() == (SPACING, SPACING)
        assert image.GetSize() == (SIZE, SIZE)
    assert image_path(made.folder, "unlabeled", made.unlabeled[0]).is_file()
    assert label_path(made.folder, "test", made.test[0]).is_file()


def test_more_cases_change_none(tmp_path):
    first = write_phantom(tmp_path / "a", COUNTS, 5)
    second = write_phantom(tmp_path / "b", Counts(3, 4, 2), 5)
    for path in first.folder.glob("*/*.nii.gz"):
        twin = second.folder / path.relative_to(first.folder)
        arrays = [SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(p))) for p in (path, twin)]
        np.testing.assert_array_equal(*arrays)


def test_a_data_set_that_exists_is_not_touched(tmp_path):
    made = write_phantom(tmp_path / "set", COUNTS, 0)
    before = {p: p.stat().st_mtime_ns for p in made.folder.rglob("*")}
    with pytest.raises(UserError, match="exists"):
        write_phantom(tmp_path / "set", COUNTS, 0)
    assert {p: p.stat().st_mtime_ns for p in made.folder.rglob("*")} == before
