"""Mixed labels under deep supervision: nnU-Net's voxels and nnU-Net's weights."""

from __future__ import annotations

import pytest
import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from nnunet_semisup.losses.consistency import weighted_cross_entropy
from nnunet_semisup.losses.deep_supervision import deep_supervised
from nnunet_semisup.losses.targets import PseudoLabel, labels_of_target

SCALES = {
    (16, 12): [(1, 1), (0.5, 0.5), (0.25, 0.25)],
    (15, 9): [(1, 1), (0.5, 0.5)],
    (28, 49): [(1, 1), (0.5, 1 / 7), (0.25, 1 / 7)],
    (6, 32, 20): [(1, 1, 1), (1, 0.5, 0.5), (0.5, 0.25, 0.25)],
    (5, 21, 13): [(1, 1, 1), (1, 0.5, 0.5), (1, 1 / 3, 1 / 3)],
}


@pytest.mark.parametrize("spatial", SCALES)
@pytest.mark.parametrize("regions", [False, True], ids=["labels", "regions"])
def test_pyramid_is_that_of_the_loader(spatial, regions):
    """batchgeneratorsv2 0.3's ``DownsampleSegForDSTransform``, with an ignore label (3)."""
    channels = 3 if regions else 1
    full = torch.randint(0, 2 if regions else 4, (2, channels, *spatial), dtype=torch.int16)
    shrink = DownsampleSegForDSTransform(SCALES[spatial])
    pyramid = [
        torch.stack(level) for level in zip(*map(shrink._apply_to_segmentation, full), strict=True)
    ]
    label = labels_of_target(full, 3, regions)
    for level in pyramid:
        got, expected = label.resized(level.shape[2:]), labels_of_target(level, 3, regions)
        assert torch.equal(got.target, expected.target)
        assert got.target.dtype == expected.target.dtype
        assert torch.equal(got.weight, expected.weight)


def loss(logits, label):
    return weighted_cross_entropy(logits, label, False)


def sample():
    outputs = [torch.randn(2, 3, 8 // n, 12 // n) for n in (1, 2, 4)]
    target = torch.randint(0, 3, (2, 1, 8, 12))
    return outputs, PseudoLabel(target, torch.ones(2, 1, 8, 12))


def test_sum_is_that_of_nnunets_wrapper():
    outputs, label = sample()
    weights = (4 / 7, 2 / 7, 1 / 7)
    levels = [label.resized(one.shape[2:]) for one in outputs]
    expected = DeepSupervisionWrapper(loss, weights)(outputs, levels)
    torch.testing.assert_close(deep_supervised(loss, outputs, label, weights), expected)


def test_weight_0_leaves_an_output_out_and_one_output_needs_no_weights():
    outputs, label = sample()
    broken = [*outputs[:2], torch.full_like(outputs[2], float("nan"))]
    alone = loss(outputs[0], label)
    torch.testing.assert_close(deep_supervised(loss, broken, label, (1, 0, 0)), alone)
    assert torch.equal(deep_supervised(loss, outputs[0], label, ()), alone)
