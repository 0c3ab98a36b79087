"""The pyramid's agreement: by hand, for regions, in extremes."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_semisup.losses.pyramid import at_full_size, pyramid_consistency


@pytest.mark.parametrize("spatial", [(8, 4), (8, 4, 4)], ids=["2D", "3D"])
def test_outputs_at_full_size(spatial):
    outputs = [torch.randn(2, 3, *(n // 2**level for n in spatial)) for level in range(3)]
    outputs[2] = torch.full_like(outputs[2], 4.0).half()
    stacked = at_full_size(outputs)
    assert stacked.shape == (3, 2, 3, *spatial)
    assert stacked.dtype == torch.float32
    assert torch.equal(stacked[0], outputs[0])
    assert torch.equal(stacked[2], torch.full_like(stacked[2], 4.0))
    assert stacked[1].mean() == pytest.approx(outputs[1].mean().item(), abs=0.3)


def test_by_hand():
    """One voxel, foreground 3/4 and 1/4: the mean is 1/2, both are equally far from it."""
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(3.0), 0.0]]).view(2, 1, 2, 1, 1)
    divergence = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    expected = 1 / 16 + divergence
    got = pyramid_consistency(logits, False)
    assert got.tolist() == pytest.approx([expected] * 2)


def test_unsure_voxels_count_less_in_the_distance():
    """A voxel of agreement and one of dispute: the distance is weighted by exp(-D)."""
    dispute = torch.tensor([[0.0, 6.0], [6.0, 0.0]]).view(2, 1, 2, 1, 1)
    both = torch.cat([dispute, torch.zeros_like(dispute)], 3)
    p = 1 / (1 + math.exp(-6.0))
    divergence = 0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1 - p))
    trust = math.exp(-divergence)
    expected = (p - 0.5) ** 2 * trust / (1 + trust) + divergence / 2
    assert pyramid_consistency(both, False).tolist() == pytest.approx([expected] * 2, rel=1e-5)


def test_regions_are_each_two_classes():
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 4, 5, 6)
    valid = torch.rand(2, 1, 5, 6) < 0.5
    apart = [
        pyramid_consistency(torch.stack([torch.zeros_like(one), one], 2), False, valid)
        for one in logits.unbind(2)
    ]
    one = pyramid_consistency(logits[:, :, :1], True, valid)
    torch.testing.assert_close(one, apart[0])
    every = pyramid_consistency(logits, True, valid)
    assert not torch.allclose(every, one)
    flipped = pyramid_consistency(-logits.flip(2), True, valid)
    torch.testing.assert_close(every, flipped)


@pytest.mark.parametrize("regions", [False, True])
def test_equal_outputs_extremes_and_nothing_valid(regions):
    torch.manual_seed(0)
    same = torch.randn(1, 2, 3, 4, 4).repeat(3, 1, 1, 1, 1)
    assert pyramid_consistency(same, regions).abs().max() < 1e-6
    far = (200 * torch.randn(3, 2, 3, 4, 4)).requires_grad_()
    terms = pyramid_consistency(far, regions)
    terms.sum().backward()
    assert terms.isfinite().all()
    assert far.grad.isfinite().all()
    nowhere = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    assert pyramid_consistency(far.detach(), regions, nowhere).tolist() == [0, 0, 0]
