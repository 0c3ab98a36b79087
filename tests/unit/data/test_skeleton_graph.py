"""Graphs of skeletons, on masks whose graphs are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunet_semisup.data.skeleton_graph import CELL, EDGES, NUMBERS, skeleton_graph, skeleton_graphs

CLASSES = SimpleNamespace(has_regions=False, ignore_label=3, num_segmentation_heads=3)
REGIONS = SimpleNamespace(has_regions=True, ignore_label=None, num_segmentation_heads=2)


def degrees(nodes, edges):
    return np.bincount(edges.flatten(), minlength=len(nodes))


def test_a_line_is_a_path():
    mask = np.zeros((20, 64), bool)
    mask[9:12, 2:62] = True
    nodes, edges = skeleton_graph(mask)
    assert sorted(degrees(nodes, edges)) == [1, 1, *[2] * (len(nodes) - 2)]
    assert len(edges) == len(nodes) - 1
    assert set(nodes[:, 0]) == {10}
    lengths = np.abs(nodes[edges[:, 0], 1] - nodes[edges[:, 1], 1])
    assert (lengths <= 2 * CELL).all()
    assert lengths.sum() == np.ptp(nodes[:, 1])


def test_a_ring_is_a_cycle():
    rows, columns = np.mgrid[:64, :64] - 31.5
    mask = np.abs(np.hypot(rows, columns) - 20) < 2
    nodes, edges = skeleton_graph(mask)
    assert (degrees(nodes, edges) == 2).all()
    assert len(edges) == len(nodes) > 8


def test_lines_that_do_not_touch_are_not_joined_but_crossing_ones_are():
    apart, cross = np.zeros((2, 60, 60), bool)
    apart[14:17, 2:58] = apart[43:46, 2:58] = True
    cross[29:32, 2:58] = cross[2:58, 29:32] = True
    for mask, parts in ((apart, 2), (cross, 1)):
        nodes, edges = skeleton_graph(mask)
        group = np.arange(len(nodes))
        for _ in nodes:
            for one, other in edges:
                group[[one, other]] = min(group[one], group[other])
        assert len(set(group)) == parts
    assert degrees(nodes, edges).max() >= 3


def test_a_dot_has_an_edge_to_itself_and_nothing_has_none():
    mask = np.zeros((16, 16), bool)
    assert [part.shape for part in skeleton_graph(mask)] == [(0, 2), (0, 2)]
    mask[5:8, 5:8] = True
    nodes, edges = skeleton_graph(mask)
    assert edges.tolist() == [[0, 0]]
    assert abs(nodes - 6).max() <= 1
    assert len(skeleton_graph(np.ones((16, 16), bool))[1]) > 0


def test_rows_are_in_the_frame_of_the_patch():
    label = torch.zeros(1, 40, 80)
    label[0, 18:23, 8:72] = 1
    rows = skeleton_graphs(label, CLASSES)
    assert rows.shape == (2, EDGES, NUMBERS)
    assert not rows[1].any()
    edges = rows[0][rows[0, :, 5] == 1]
    assert torch.equal(rows[0][len(edges) :], torch.zeros(EDGES - len(edges), NUMBERS))
    # Row 20 of 40 has its centre at 2 * 20.5 / 40 - 1; columns 8 to 72 of 80 lie within 0.8.
    torch.testing.assert_close(edges[:, [1, 3]], torch.full((len(edges), 2), 0.025))
    assert edges[:, [0, 2]].abs().max() < 0.8
    assert edges[:, [0, 2]].amax() > 0.6
    torch.testing.assert_close(edges[len(edges) // 2, 4], torch.tensor(3.0))


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_each_class_or_region_has_its_graph(labels):
    label = torch.zeros(2, 48, 48)
    label[0, 10:13, 4:44] = 1
    label[1, 30:33, 4:44] = 1
    if not labels.has_regions:
        label = label[:1] + 2 * label[1:]
        label[:, :, 24:] = torch.where(label[:, :, 24:] == 2, 3.0, label[:, :, 24:])
    rows = skeleton_graphs(label, labels)
    for number, row in enumerate((11, 31)):
        edges = rows[number][rows[number, :, 5] == 1]
        assert len(edges)
        torch.testing.assert_close(edges[:, 1], torch.full((len(edges),), (2 * row + 1) / 48 - 1))
    if not labels.has_regions:
        assert edges[:, [0, 2]].max() < 0, "ignored voxels are outside"


def test_of_many_edges_as_many_are_taken_as_there_is_room_for():
    mask = torch.zeros(1, 512, 512)
    mask[:, ::16] = mask[:, :, ::16] = 1
    rows = skeleton_graphs(mask, SimpleNamespace(**{**vars(CLASSES), "num_segmentation_heads": 2}))
    assert (rows[0, :, 5] == 1).all()
    ends = rows[0, :, :2]
    assert (ends.amax(0) > 0.9).all()
    assert (ends.amin(0) < -0.9).all()


def test_no_random_number_is_drawn():
    """nnU-Net's augmentation of the next patch would be another one."""
    label = torch.zeros(1, 40, 40)
    label[0, 18:23] = 1
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    skeleton_graphs(label, CLASSES)
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
