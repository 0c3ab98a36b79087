"""Complementary channel dropout: halves of the channels, pairs, what stays."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.networks.complementary import ComplementaryDropout, channel_factors
from tests.unit.networks.shared import small_unet


def factors(images, share, seed=0, widths=(4, 64)):
    """Return the factors of first views, one ``(B, C)`` a stage."""
    torch.manual_seed(seed)
    drawn = channel_factors([torch.ones(images, width, 3, 2) for width in widths], share)
    assert [tuple(stage.shape) for stage in drawn] == [(images, width, 1, 1) for width in widths]
    return [stage[:, :, 0, 0] for stage in drawn]


@pytest.mark.parametrize(
    ("pairs", "share", "kept"), [(8, 0.5, 4), (3, 0.5, 1), (1, 0.5, 0), (4, 1.0, 0), (4, 0.2, 3)]
)
def test_channels_are_dropped_or_doubled_and_some_images_stay_whole(pairs, share, kept):
    whole = []
    for first in factors(pairs, share):
        whole.append((first == 1).all(1))
        assert ((first == 0) | (first == 2))[~whole[-1]].all()
    assert whole[0].sum() == kept
    assert torch.equal(*whole), "the same images at all stages"


def test_halves_are_drawn_for_each_pair_stage_and_call():
    small, wide = factors(200, 1.0)
    assert (wide == 2).float().mean() == pytest.approx(0.5, abs=0.02)
    assert len({tuple(row) for row in wide.tolist()}) == 200
    assert not torch.equal(small, wide[:, :4])
    assert not torch.equal(wide, factors(200, 1.0, seed=1)[1])
    chosen = torch.stack([(factors(4, 0.5, seed)[1] == 1).all(1) for seed in range(100)])
    assert (chosen.sum(1) == 2).all()
    assert (chosen.float().mean(0) - 0.5).abs().max() < 0.2


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_the_predictor_is_as_it_was_and_the_gradient_of_a_dropped_channel_is_none(dims, residual):
    predictor = small_unet(dims, residual, deep_supervision=True)
    network = ComplementaryDropout(predictor)
    assert [f"predictor.{key}" for key in predictor.state_dict()] == list(network.state_dict())
    x = torch.randn(2, 2, *[8] * dims)
    for ours, theirs in zip(network(x).logits, predictor(x), strict=True):
        assert torch.equal(ours, theirs)
    features, dropped = [], []
    predictor.encoder.register_forward_hook(lambda _, __, output: features.extend(output))
    predictor.decoder.register_forward_pre_hook(lambda _, inputs: dropped.extend(inputs[0]))
    first = network(x, share=1.0)
    second = network(x, first=first.parts)
    assert not torch.allclose(first.logits[0], second.logits[0])
    stages = len(features) // 2
    for of_first, of_second, whole in zip(dropped, dropped[stages:], features, strict=False):
        torch.testing.assert_close(of_first + of_second, 2 * whole)
        assert (of_first == 0).flatten(2).all(2).any()
    features[-1].retain_grad()
    dropped[-1].sum().backward()
    gone = (dropped[-1] == 0).flatten(2).all(2)
    assert gone.any()
    assert (features[-1].grad.flatten(2).sum(2) == 0)[gone].all()
