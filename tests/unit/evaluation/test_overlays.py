"""Overlay pictures: slices, files, refused images."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import io

from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.evaluate import evaluate_folders
from nnunet_semisup.evaluation.inputs import LabelMap, SegmentationClass
from nnunet_semisup.evaluation.overlays import (
    draw_overlay,
    find_images,
    select_cases,
    write_overlays,
)

HEART = (SegmentationClass("heart", (1,)),)


def label_map(labels, spacing):
    return LabelMap(labels.astype(np.int32), (0, 1), spacing, ())


def shown_slices(labels, spacing, prediction=None):
    reference = label_map(labels, spacing)
    other = reference if prediction is None else label_map(prediction, spacing)
    image = np.random.default_rng(0).random(labels.shape, dtype=np.float32)
    figure = draw_overlay(image, reference, other, HEART, "title")
    return [ax.get_title() for ax in figure.axes]


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [((1, 1, 1), 0), ((1, 3, 1), 1), ((0.5, 0.5, 2), 2), ((0.7, 0.70001, 0.7), 0)],
)
def test_slices_lie_in_the_reference_along_the_coarsest_axis(spacing, axis):
    labels = np.zeros((12, 12, 12))
    labels[2:11, 2:11, 2:11] = 1
    assert shown_slices(labels, spacing) == [f"slice {i} of axis {axis}" for i in (4, 6, 8)]


def test_slices_of_an_empty_reference_follow_the_prediction_then_the_image():
    empty = np.zeros((9, 9, 9))
    prediction = empty.copy()
    prediction[3] = 1
    assert shown_slices(empty, (1, 1, 1), prediction) == ["slice 3 of axis 0"]
    assert shown_slices(empty, (1, 1, 1)) == [f"slice {i} of axis 0" for i in (2, 4, 6)]


def test_contours_differ_only_where_the_masks_differ():
    labels = np.zeros((10, 10))
    labels[3:7, 3:7] = 1
    reference, other = label_map(labels, (1, 1)), label_map(np.roll(labels, 2, 0), (1, 1))
    (ax,) = draw_overlay(np.zeros((10, 10), np.float32), reference, other, HEART, "t").axes
    outlines = [
        path.vertices for contour in ax.collections for path in contour.get_paths() if len(path)
    ]
    assert [v.min(axis=0).tolist() for v in outlines] == [[2.5, 2.5], [2.5, 4.5]]
    assert [v.max(axis=0).tolist() for v in outlines] == [[6.5, 6.5], [6.5, 8.5]]


@pytest.fixture
def evaluated(folders, cube):
    """Three cases, the first without any label, the second perfect, the third poor; and images."""
    folders.dataset_json({"background": 0, "heart": 1})
    empty = np.zeros_like(cube)
    for name, reference, prediction in (
        ("a", empty, empty),
        ("b", cube, cube),
        ("c", cube, np.roll(cube, 2, axis=2)),
    ):
        folders.case(name, reference, prediction)
        folders.write(folders.images, f"{name}_0000", cube * np.float32(9.5))
    return evaluate_folders(folders.reference, folders.prediction)


def test_the_worst_cases_come_first_and_undefined_ones_last(evaluated):
    assert [case.name for case in select_cases(evaluated, 3)] == ["c", "b", "a"]
    assert [case.name for case in select_cases(evaluated, None)] == ["a", "b", "c"]


def test_one_picture_a_case_is_written(evaluated, folders):
    images = find_images("abc", folders.images, ".nii.gz")
    target = folders.prediction / "deep" / "overlays"
    written = write_overlays(evaluated, images, target)
    assert sorted(target.iterdir()) == sorted(written)
    assert [path.name for path in written] == ["a.png", "b.png", "c.png"]
    picture = io.imread(written[1])
    assert picture.shape[0] > 300
    assert picture.shape[1] > 500
    assert np.ptp(picture[..., 0].astype(int) - picture[..., 1]) > 100, "no colored contour"
    assert not list(folders.prediction.glob(".overlays*"))


def test_unreadable_and_unfitting_images_are_all_listed_and_nothing_is_written(evaluated, folders):
    images = find_images("abc", folders.images, ".nii.gz")
    images["a"].write_bytes(b"no image")
    folders.write(folders.images, "c_0000", np.zeros((3, 3, 3), np.float32))
    before = folders.written()
    with pytest.raises(UserError, match=r"(?s)2 images.*a: .*c: image has size \(3, 3, 3\)"):
        write_overlays(evaluated, images, folders.prediction / "overlays")
    assert folders.written() == before


def test_missing_images_are_all_listed(evaluated, folders):
    with pytest.raises(UserError, match=r"2 images .*x_0000\.nii\.gz, y_0000\.nii\.gz"):
        find_images("axy", folders.images, ".nii.gz")


def test_color_images_are_drawn(folders):
    folders.dataset_json({"background": 0, "heart": 1}, file_ending=".png")
    labels = np.zeros((20, 20), np.uint8)
    labels[5:9, 5:12] = 1
    for folder in (folders.reference, folders.prediction):
        io.imsave(folder / "a.png", labels, check_contrast=False)
    rgb = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    io.imsave(folders.images / "a_0000.png", rgb)
    evaluation = evaluate_folders(folders.reference, folders.prediction)
    images = find_images(["a"], folders.images, ".png")
    (path,) = write_overlays(evaluation, images, folders.prediction / "overlays")
    assert path.stat().st_size > 0
