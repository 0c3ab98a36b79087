"""Representations beside the segmentation."""

from __future__ import annotations

import pytest
import torch

from nnunet_semisup.networks.representation import WIDTH, PyramidHead, RepresentationNetwork
from tests.unit.networks.shared import small_unet


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("dims", "size"), [(2, 8), (3, 4)])
def test_maps_are_as_fine_as_the_patch_in_2d_and_half_as_fine_in_3d(dims, size, residual):
    network = RepresentationNetwork(small_unet(dims, residual, deep_supervision=True), dims)
    x = torch.randn(2, 2, *[8] * dims)
    output = network(x)
    assert all(map(torch.equal, output.logits, network.predictor(x)))
    assert output.parts.voxels.shape == (2, WIDTH, *[size] * dims)
    assert output.parts.whole.shape == (2, WIDTH, *[2] * dims)


def test_predictions_are_made_of_ones_own_representations():
    network = RepresentationNetwork(small_unet(2), 2)
    x = torch.randn(1, 2, 8, 8)
    own, predicted = network(x, predicted=False).parts, network(x).parts
    assert torch.equal(predicted.voxels, network.predicted_voxels(own.voxels))
    assert torch.equal(predicted.whole, network.predicted_whole(own.whole))


def test_every_stage_reaches_every_voxel_of_its_part():
    head = PyramidHead([4, 8], 2)
    head.lateral[0].requires_grad_(False)
    with torch.no_grad():
        head.lateral[0].weight.zero_()
        head.lateral[0].bias.zero_()
    features = [torch.randn(1, 4, 6, 4), torch.randn(1, 8, 3, 2)]
    maps = head(features)
    blocks = maps.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    torch.testing.assert_close(blocks, blocks[..., :1].expand_as(blocks))
    by_hand = head.project(head.lateral[1](features[1]))
    torch.testing.assert_close(blocks[..., 0], by_hand)


def test_representations_teach_the_network_below_them():
    network = RepresentationNetwork(small_unet(2), 2)
    parts = network(torch.randn(1, 2, 8, 8)).parts
    parts.whole.square().mean().backward(retain_graph=True)
    assert all(p.grad is not None for p in network.encoder.parameters())
    assert all(p.grad is None for p in network.decoder.stages.parameters())
    parts.voxels.square().mean().backward()
    without = {id(p) for layer in network.decoder.seg_layers for p in layer.parameters()}
    for parameter in network.parameters():
        assert (parameter.grad is None) == (id(parameter) in without)
