import copy

import pytest
import torch
from torch import nn

from nnunet_semisup.networks.memory_format import use_channels_last


@pytest.mark.parametrize(
    ("convolution", "shape", "order"),
    [
        (nn.Conv2d, (2, 3, 8, 9), torch.channels_last),
        (nn.Conv3d, (2, 3, 6, 7, 8), torch.channels_last_3d),
    ],
)
def test_results_and_state_stay_and_activations_follow(convolution, shape, order):
    usual = nn.Sequential(convolution(3, 4, 3, padding=1), nn.LeakyReLU(), convolution(4, 5, 3))
    other = copy.deepcopy(usual)
    use_channels_last(other)
    for before, after in zip(usual.parameters(), other.parameters(), strict=True):
        assert torch.equal(before, after)
        assert after.dim() == 1 or after.is_contiguous(memory_format=order)
    image = torch.randn(shape)
    expected, output = usual(image), other(image)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    assert output.is_contiguous(memory_format=order)
    usual.load_state_dict(other.state_dict())
