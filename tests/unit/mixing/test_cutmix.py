from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semisup.mixing.cutmix import paste, sample_boxes

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


class TestPaste:
    @few
    @given(st.integers(1, 4), st.integers(1, 3), sizes, st.integers(0, 999))
    def test_inside_is_the_previous_item_outside_the_own(self, batch, channels, spatial, seed):
        mask = boxes(batch, spatial, seed)
        own = torch.randn(batch, channels, *spatial)
        mixed = paste(own, mask)
        for i in range(batch):
            inside = mask[i].expand(channels, *spatial)
            assert torch.equal(mixed[i][inside], own[i - 1][inside])
            assert torch.equal(mixed[i][~inside], own[i][~inside])

    @few
    @given(st.integers(2, 4), sizes, st.integers(0, 999))
    def test_image_and_label_stay_together(self, batch, spatial, seed):
        """A label made from the image still fits it afterwards."""
        image = torch.randint(0, 5, (batch, 1, *spatial)).float()
        label = image.long() * 2 + 1
        mask = boxes(batch, spatial, seed)
        assert torch.equal(paste(label, mask), paste(image, mask).long() * 2 + 1)

    def test_no_boxes_is_the_identity(self):
        own = torch.randn(3, 2, 6, 6)
        assert torch.equal(paste(own, boxes(3, (6, 6), probability=0.0)), own)

    def test_single_item_is_unchanged(self):
        own = torch.randn(1, 2, 6, 6)
        assert torch.equal(paste(own, boxes(1, (6, 6))), own)

    def test_does_not_share_memory(self):
        own = torch.randn(3, 2, 6, 6)
        before = own.clone()
        mixed = paste(own, boxes(3, (6, 6)))
        mixed[0] = 100.0
        assert torch.equal(own, before)
        assert mixed[1:].max() < 100
