"""Labels of whole scans: written and read, drawn around classes, and what a patch of them asks."""

from __future__ import annotations

import blosc2
import numpy as np
import pytest
import torch

from nnunet_semisup.data.scan_labels import (
    DOUBTFUL,
    PLACES,
    LabeledScans,
    drawn_label,
    write_scan_label,
)


@pytest.fixture
def scan(tmp_path):
    """A preprocessed case of one channel, and the folder that it is in."""
    image = np.random.default_rng(0).normal(size=(1, 12, 70, 80)).astype(np.float32)
    blosc2.asarray(image, urlpath=str(tmp_path / "case.b2nd"))
    return image, tmp_path


def test_what_was_written_is_read_with_its_image(scan, tmp_path):
    image, folder = scan
    label = np.zeros(image.shape[1:], np.uint8)
    label[3:6, 10:60, 20:40], label[0, 0, 0], label[8:] = 1, 2, DOUBTFUL
    labels = tmp_path / "labels"
    labels.mkdir()
    write_scan_label(labels, "case", label, seed=3)
    assert sorted(path.name for path in labels.iterdir()) == ["case.b2nd", "case.npy"]
    read, segmentation, _, properties = LabeledScans({"case": str(folder)}, labels).load_case(
        "case"
    )
    assert np.array_equal(read[:], image)
    assert np.array_equal(segmentation[:][0], label)
    places = properties["class_locations"]
    assert set(places) == {1, 2}
    assert places[2].tolist() == [[0, 0, 0, 0]]
    assert len(np.unique(places[1], axis=0)) == PLACES
    assert (segmentation[:][tuple(places[1].T)] == 1).all()


def test_places_are_a_function_of_the_seed(tmp_path):
    label = np.ones((12, 40, 40), np.uint8)
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_scan_label(tmp_path, name, label, seed)
        found.append(np.load(tmp_path / f"{name}.npy"))
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


SEGMENTATION = torch.tensor([-1, 0, 1, 2, DOUBTFUL]).view(1, 1, 1, 5)


def test_a_patch_asks_for_classes_where_they_are_sure_and_inside():
    label = drawn_label(SEGMENTATION, None)
    assert label.target.flatten().tolist() == [0, 0, 1, 2, 0]
    assert label.weight.flatten().tolist() == [0, 1, 1, 1, 0]


def test_of_regions_it_asks_for_each():
    label = drawn_label(SEGMENTATION, [(1, 2), (2,)])
    assert label.target[0, :, 0].tolist() == [[0, 0, 1, 1, 0], [0, 0, 0, 1, 0]]
    assert label.weight[0, :, 0].tolist() == [[0, 1, 1, 1, 0]] * 2
