from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semisup.losses.targets import PseudoLabel
from nnunet_semisup.mixing.masks import foreground, sample_box, sample_boxes

CPU = torch.device("cpu")
sizes = st.lists(st.integers(2, 14), min_size=2, max_size=3)
few = settings(max_examples=40, deadline=None)


def boxes(batch, spatial, seed=0, **arguments):
    torch.manual_seed(seed)
    return sample_boxes(batch, spatial, CPU, **arguments)


class TestSampleBoxes:
    @few
    @given(st.integers(1, 4), sizes, st.integers(0, 999))
    def test_is_one_box_an_image(self, batch, spatial, seed):
        """True is an interval along each axis, and their product."""
        mask = boxes(batch, spatial, seed)
        assert mask.shape == (batch, 1, *spatial)
        assert mask.dtype == torch.bool
        for one in mask[:, 0]:
            product = torch.ones_like(one)
            for axis, size in enumerate(spatial):
                inside = one.movedim(axis, 0).flatten(1).any(1)
                places = inside.nonzero()[:, 0]
                if len(places):
                    assert len(places) == places[-1] - places[0] + 1
                shape = [1] * len(spatial)
                shape[axis] = size
                product = product & inside.view(shape)
            assert torch.equal(one, product)

    @pytest.mark.parametrize("spatial", [(48, 64), (32, 24, 40)])
    @pytest.mark.parametrize("volume", [(0.1, 0.5), (0.02, 0.4), (0.25, 0.25)])
    def test_volume_is_within_its_range(self, spatial, volume):
        """But for the voxel grid, and for long edges, which are cut off at the image."""
        share = boxes(400, spatial, volume=volume, aspect=1.5).flatten(1).float().mean(1)
        assert share.max() < volume[1] + 0.05
        assert share.quantile(0.03) > 0.8 * volume[0] - 0.02
        assert share.mean().item() == pytest.approx(sum(volume) / 2, abs=0.03)

    def test_edges_have_the_aspect_of_the_image(self):
        mask = boxes(200, (16, 64), aspect=1.0)
        edges = [mask[:, 0].any(3 - axis).float().mean(1) for axis in (1, 2)]
        assert (edges[0] - edges[1]).abs().max() < 0.1

    def test_reaches_every_voxel(self):
        assert boxes(600, (8, 8)).float().mean(0).min() > 0

    @pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
    def test_probability_of_a_box(self, probability):
        share = boxes(2000, (8, 8), probability=probability).flatten(1).any(1).float().mean()
        if probability in (0.0, 1.0):
            assert share == probability
        else:
            assert share.item() == pytest.approx(probability, abs=0.05)

    def test_images_have_different_boxes(self):
        mask = boxes(20, (16, 16))
        assert len({tuple(one.flatten().tolist()) for one in mask}) > 15

    def test_seed(self):
        assert torch.equal(boxes(4, (9, 9), 3), boxes(4, (9, 9), 3))
        assert not torch.equal(boxes(4, (9, 9), 3), boxes(4, (9, 9), 4))


class TestSampleBox:
    @few
    @given(sizes, st.sampled_from([0.25, 0.5, 2 / 3, 1.0]), st.integers(0, 999))
    def test_is_one_box_of_whole_voxels(self, spatial, side, seed):
        torch.manual_seed(seed)
        mask = sample_box(spatial, CPU, side)
        assert mask.shape == (1, 1, *spatial)
        where = mask[0, 0].nonzero()
        edges = where.amax(0) - where.amin(0) + 1
        assert edges.tolist() == [max(1, int(side * size)) for size in spatial]
        assert len(where) == edges.prod()

    @pytest.mark.parametrize("size", [96, 112, 80, 513])
    def test_positions_reach_both_ends_alike(self, size):
        """Rounding moves no edge, and the first and last positions are as likely as others."""
        length = int(2 / 3 * size)
        torch.manual_seed(0)
        starts = [sample_box((size,), CPU)[0, 0].float().argmax().item() for _ in range(3000)]
        possible = size - length + 1
        counts = torch.bincount(torch.tensor(starts), minlength=possible)
        assert len(counts) == possible
        expected = 3000 / possible
        for edge in (counts[: possible // 8].sum(), counts[-(possible // 8) :].sum()):
            share = expected * (possible // 8)
            assert abs(edge.item() - share) < 5 * share**0.5

    def test_reads_nothing_back(self):
        """On a device without values, any look at one would raise."""
        assert sample_box((6, 8, 7), torch.device("meta")).shape == (1, 1, 6, 8, 7)

    def test_seed(self):
        drawn = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            drawn.append(sample_box((20, 20), CPU))
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])


def test_foreground_is_what_is_used_and_not_background():
    label = PseudoLabel(torch.tensor([[[[0, 1, 2, 3]]]]), torch.tensor([[[[1.0, 1, 0, 0.5]]]]))
    assert foreground(label).flatten().tolist() == [False, True, False, True]
