"""Complementary channel dropout: halves of the channels, pairs, what stays."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.networks.complementary import ComplementaryDropout, drop_complementary
from tests.unit.networks.shared import small_unet


def factors(pairs, share, seed=0, widths=(4, 64)):
    """Return what the channels of maps of ones are multiplied by, one ``(2 B, C)`` a stage."""
    torch.manual_seed(seed)
    ones = [torch.ones(2 * pairs, width, 3, 2) for width in widths]
    dropped = drop_complementary(ones, share)
    for stage in dropped:
        assert torch.equal(stage, stage[:, :, :1, :1].expand_as(stage)), "whole channels"
    return [stage[:, :, 0, 0] for stage in dropped]


@pytest.mark.parametrize(
    ("pairs", "share", "kept"), [(8, 0.5, 4), (3, 0.5, 1), (1, 0.5, 0), (4, 1.0, 0), (4, 0.2, 3)]
)
def test_views_have_complementary_channels_and_some_pairs_stay_whole(pairs, share, kept):
    whole = []
    for stage in factors(pairs, share):
        first, second = stage.chunk(2)
        assert torch.equal(first + second, torch.full_like(first, 2.0))
        whole.append((first == 1).all(1))
        assert ((first == 0) | (first == 2))[~whole[-1]].all()
    assert whole[0].sum() == kept
    assert torch.equal(*whole), "the same pairs at all stages"


def test_halves_are_drawn_for_each_pair_stage_and_call():
    small, wide = factors(200, 1.0)
    assert (wide == 2).float().mean() == pytest.approx(0.5, abs=0.02)
    assert (wide[:200] == 2).float().mean() == pytest.approx(0.5, abs=0.02)
    assert len({tuple(row) for row in wide[:200].tolist()}) == 200
    assert not torch.equal(small, wide[:, :4])
    assert not torch.equal(wide, factors(200, 1.0, seed=1)[1])
    chosen = torch.stack([(factors(4, 0.5, seed)[1][:4] == 1).all(1) for seed in range(100)])
    assert (chosen.sum(1) == 2).all()
    assert (chosen.float().mean(0) - 0.5).abs().max() < 0.2


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_the_predictor_is_as_it_was_and_the_gradient_of_a_dropped_channel_is_none(dims, residual):
    predictor = small_unet(dims, residual, deep_supervision=True)
    network = ComplementaryDropout(predictor)
    assert [f"predictor.{key}" for key in predictor.state_dict()] == list(network.state_dict())
    x = torch.randn(2, 2, *[8] * dims).repeat(2, *[1] * (dims + 1))
    for ours, theirs in zip(network(x).logits, predictor(x), strict=True):
        assert torch.equal(ours, theirs)
    features, dropped = [], []
    predictor.encoder.register_forward_hook(lambda _, __, output: features.extend(output))
    predictor.decoder.register_forward_pre_hook(lambda _, inputs: dropped.extend(inputs[0]))
    first, second = network(x, share=1.0).logits[0].chunk(2)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(dropped[-1].sum(0), features[-1].sum(0))
    features[-1].retain_grad()
    dropped[-1].sum().backward()
    gone = (dropped[-1] == 0).flatten(2).all(2)
    assert gone.any()
    assert (features[-1].grad.flatten(2).sum(2) == 0)[gone].all()
