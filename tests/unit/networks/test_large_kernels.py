"""3D UX-Net's stages from their description, and what the insert keeps of the plan's encoder."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_semisup.architectures.planned_unet import with_insert
from nnunet_semisup.networks.large_kernels import ChannelNorm, LargeKernelBlock, LargeKernelStage
from tests.unit.architectures.test_planned_unet import build, configuration, image

CHANNELS = 3


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_voxel_is_normalised_over_its_channels():
    norm = ChannelNorm(CHANNELS)
    nn.init.normal_(norm.weight)
    x = noise(2, CHANNELS, 4, 5)
    voxel = x[1, :, 2, 3]
    expected = (voxel - voxel.mean()) / (voxel.var(correction=0) + 1e-6).sqrt() * norm.weight
    torch.testing.assert_close(norm(x)[1, :, 2, 3], expected)


def test_a_block_is_its_description_channel_by_channel():
    """Channels meet in the normalisation alone: what looks like a perceptron is depthwise."""
    block = LargeKernelBlock(nn.Conv2d, CHANNELS, [7, 7])
    nn.init.normal_(block.scale)
    space, norm, wide, _, narrow = block.path
    x = noise(1, CHANNELS, 9, 8)
    mixed = torch.empty_like(x)
    padded = nn.functional.pad(x, [3] * 4)
    for c in range(CHANNELS):
        for i in range(9):
            for j in range(8):
                patch = padded[0, c, i : i + 7, j : j + 7]
                mixed[0, c, i, j] = (patch * space.weight[c, 0]).sum() + space.bias[c]
    mixed = norm(mixed)
    expected = x.clone()
    for c in range(CHANNELS):
        own = slice(4 * c, 4 * c + 4)
        w, b = wide.weight[own].flatten(), wide.bias[own]
        hidden = nn.functional.gelu(mixed[0, c, ..., None] * w + b)
        added = (hidden * narrow.weight[c].flatten()).sum(-1) + narrow.bias[c]
        expected[0, c] += block.scale[c, 0, 0] * added
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stem", [True, False])
def test_a_stage_has_the_plans_stride_and_begins_with_blocks_that_add_next_to_nothing(stem):
    stage = LargeKernelStage(nn.Conv3d, (CHANNELS, 6), [1, 2, 2], [1, 7, 7], 2, stem)
    x = noise(1, CHANNELS, 3, 8, 8)
    found = stage(x)
    assert found.shape == (1, 6, 3, 4, 4)
    torch.testing.assert_close(found, stage.norm(stage.down(x)), rtol=1e-3, atol=1e-3)
    assert stage.down.kernel_size == ((1, 7, 7) if stem else (1, 2, 2))
    counted = []
    for module in stage.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(lambda *call: counted.append(call[2].numel()))
    stage(x)
    assert stage.compute_conv_feature_map_size([3, 8, 8]) == sum(counted)


@pytest.mark.parametrize("residual", [False, True])
def test_the_first_stage_stays_and_the_queries_combine_with_it(residual):
    planned = configuration(2, residual)
    plain = build(planned["architecture"])
    network = build(with_insert(planned, "uxnet"))
    assert isinstance(network.encoder.stages[1], LargeKernelStage)
    kept = "encoder.stages.0."
    names = [{k for k in net.state_dict() if k.startswith(kept)} for net in (plain, network)]
    assert names[0] == names[1] != set()
    expected = plain(image(2)).shape
    both = with_insert({**planned, "architecture": with_insert(planned, "uxnet")}, "kmax")
    assert build(both)(image(2)).shape == expected
