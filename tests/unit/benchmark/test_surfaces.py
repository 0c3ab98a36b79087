"""Surfaces lie where the masks lie, in mm, and are made of no more triangles than are seen."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_semisup.benchmark import surfaces
from nnunet_semisup.benchmark.surfaces import draw_surfaces, surface_of
from nnunet_semisup.evaluation.inputs import LabelMap, SegmentationClass

SPACING = (3.0, 1.0, 0.5)


def box(low=(2, 4, 6), high=(5, 12, 14), shape=(10, 20, 30)):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def test_surface_lies_between_the_voxels_of_the_border():
    """Half a voxel beyond the centers of the outermost voxels, as x, y, z."""
    corners = surface_of(box(), SPACING).corners
    assert corners.min(axis=0) == pytest.approx([5.5 * 0.5, 3.5, 1.5 * 3])
    assert corners.max(axis=0) == pytest.approx([13.5 * 0.5, 11.5, 4.5 * 3])


def test_mask_at_the_image_s_border_is_closed():
    corners = surface_of(np.ones((4, 4, 4), dtype=bool), (1.0, 1.0, 1.0)).corners
    assert corners.min() == pytest.approx(-0.5)
    assert corners.max() == pytest.approx(3.5)


def test_large_surface_is_made_of_fewer_triangles(monkeypatch):
    mask = box((2, 2, 2), (22, 22, 22), (24, 24, 24))
    fine = surface_of(mask, (1.0, 1.0, 1.0))
    monkeypatch.setattr(surfaces, "MOST_FACES", len(fine.faces) // 2)
    coarse = surface_of(mask, (1.0, 1.0, 1.0))
    assert len(coarse.faces) < len(fine.faces) / 2
    assert coarse.corners.mean(axis=0) == pytest.approx(fine.corners.mean(axis=0), abs=1.5)


def test_empty_mask_has_none_and_is_told(tmp_path):
    assert surface_of(np.zeros((4, 4, 4), dtype=bool), SPACING) is None
    classes = (SegmentationClass("organ", (1,)),)
    full, empty = (LabelMap(m.astype(np.int32), (1,), SPACING, ()) for m in (box(), box() & False))
    figure = draw_surfaces(full, {"row": empty}, classes, "mm")
    assert [axis.get_title() for axis in figure.axes[:2]] == ["reference", "row: nothing"]
    figure.savefig(tmp_path / "surface.png")
