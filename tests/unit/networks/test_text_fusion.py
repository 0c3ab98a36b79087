"""Texts in each voxel of a bottleneck."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_semisup.networks.text_fusion import ClassTextFusion


@pytest.mark.parametrize("grid", [(3, 4), (2, 3, 2), (1, 1)])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_every_voxel_gets_its_own_mixture_of_all_texts(grid, classes):
    fusion = ClassTextFusion(6, 7, classes, len(grid))
    fusion.fuse = nn.Identity()
    features, text = torch.randn(2, 6, *grid), torch.randn(classes, 7)
    weights = fusion.weights(features)
    assert weights.shape == (2, classes, *grid)
    joined = fusion(features, text)
    torch.testing.assert_close(joined[:, :6], features)
    for b in range(2):
        for place in torch.cartesian_prod(*map(torch.arange, grid)).tolist():
            at = (b, slice(None), *place)
            raw = fusion.weigh(fusion.reduce(features))[at].exp()
            mixed = sum(
                share / raw.sum() * fusion.text_projection(vector)
                for share, vector in zip(raw, text, strict=True)
            )
            torch.testing.assert_close(joined[at][6:], mixed, atol=1e-5, rtol=1e-5)


def test_shape_is_kept_and_texts_matter():
    fusion = ClassTextFusion(6, 7, 3, 2)
    features = torch.randn(1, 6, 4, 4)
    outputs = [fusion(features, torch.randn(3, 7)) for _ in range(2)]
    assert outputs[0].shape == features.shape
    assert not torch.allclose(*outputs)


def test_layers_that_do_not_meet_the_text_start_equal_for_all_widths():
    states = []
    for width in (7, 9):
        torch.manual_seed(0)
        states.append(ClassTextFusion(6, width, 3, 3).state_dict())
    for name, value in states[0].items():
        if not name.startswith("text_projection"):
            assert torch.equal(value, states[1][name]), name
