"""Voxels drawn for a contrast of classes, and patches compared with earlier ones."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.losses.contrast import cell_means
from nnunet_semisup.networks import class_contrast
from nnunet_semisup.networks.class_contrast import ClassContrast, EarlierPatches
from nnunet_semisup.networks.representation import WIDTH


def maps_that_tell(label):
    """Return representations that have the voxel's class, and class 9 where it is unknown."""
    maps = torch.zeros(len(label), WIDTH, *label.shape[1:])
    return maps.scatter_(1, label[:, None], 1.0)


@pytest.mark.parametrize("sampling", ["sg", "sag", "ns"])
def test_negatives_are_known_voxels_of_other_classes(sampling):
    torch.manual_seed(0)
    label = torch.randint(0, 3, (2, 8, 8))
    label[1, :2] = 9
    label[label == 2] = 1  # Class 2 is absent.
    classes = torch.stack([label == number for number in range(3)], 1)
    contrast = ClassContrast(3, sampling)
    maps = maps_that_tell(label)
    _, known = contrast.learn(maps, classes)
    assert known.tolist() == [True, True, False]
    rows, filled = contrast.memory.per_class()
    assert filled.sum(1).tolist() == [512] * 3
    found = [set(row[mask].argmax(1).tolist()) for row, mask in zip(rows, filled, strict=True)]
    assert found == [{1}, {0}, {0, 1}]
    assert float(contrast.distance(maps, classes, contrast.learn(maps, classes))) > 0


def test_the_contrast_falls_where_classes_are_apart():
    torch.manual_seed(0)
    label = torch.randint(0, 3, (2, 8, 8))
    classes = torch.stack([label == number for number in range(3)], 1)
    losses = []
    for maps in (torch.rand(2, WIDTH, 8, 8), maps_that_tell(label)):
        contrast = ClassContrast(3, "sg")
        losses.append(float(contrast.distance(maps, classes, contrast.learn(maps, classes))))
    assert losses[1] < losses[0] - 1


def test_with_a_single_class_nothing_is_contrasted():
    classes = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    contrast, maps = ClassContrast(1, "sg"), torch.randn(2, WIDTH, 8, 8)
    assert float(contrast.distance(maps, classes, contrast.learn(maps, classes))) == 0
    assert not contrast.memory.filled.any()


@pytest.mark.parametrize("what", ["relations", "neighbours"])
def test_patches_are_compared_with_earlier_ones_and_then_remembered(what, monkeypatch):
    monkeypatch.setattr(class_contrast, "PATCHES", 3)
    patches = EarlierPatches(2, 4)
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, WIDTH, 8, 8).unbind()
    valid = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    valid[1, :, :4] = False
    compare = getattr(patches, what)
    assert float(compare(student, teacher, valid)) == 0, "there is nothing before the first ones"
    rows, weights = cell_means(teacher, valid, (4, 4))
    kept, filled = patches.memory.per_class()
    assert int(filled.sum()) == 24
    assert torch.equal(kept[0][:24], rows[weights > 0])
    assert float(compare(student, teacher, valid)) > 0
    assert int(patches.memory.filled) == 48, "cells of three patches"
    assert float(compare(student, teacher, torch.zeros_like(valid))) == 0
    assert torch.equal(patches.memory.per_class()[0][0][:24], rows[weights > 0])


def test_a_memory_holds_megabytes_at_most():
    voxels = ClassContrast(16, "sg").memory.features
    cells = EarlierPatches(3, class_contrast.CELLS).memory.features
    assert voxels.nbytes <= 16 * 2**20
    assert cells.nbytes <= 2**20
